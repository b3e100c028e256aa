"""The web page of `inpaint-jax demo`. User interface only."""
