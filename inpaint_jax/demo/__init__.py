"""The web page: `python -m inpaint_jax.demo`. User interface only."""
