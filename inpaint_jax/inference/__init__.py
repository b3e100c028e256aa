"""Filling holes with a trained model: arrays, and users' files."""

from inpaint_jax.inference.inpainter import Inpainter

__all__ = ["Inpainter"]
