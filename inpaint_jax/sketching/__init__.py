"""Sketches of a whole data set, made ahead of the training: `python -m inpaint_jax.sketching`."""
