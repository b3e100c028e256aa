"""Sketches of a whole data set, made ahead of the training: `inpaint-jax sketch`."""
