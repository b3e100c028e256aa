"""Image inpainting with learned-temperature masked self-attention, in JAX and Flax."""

__version__ = "0.1.0"
