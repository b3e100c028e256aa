"""The web page: `inpaint-jax demo`. User interface only."""
