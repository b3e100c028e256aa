"""Photos, masks, sketches and the input pipeline; imports no jax, because worker processes import it again."""
