"""Filling holes with a trained model: arrays, photos of any size, and users' files."""

from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inference.retouching import retouch

__all__ = ["Inpainter", "retouch"]
