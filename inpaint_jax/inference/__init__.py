"""Filling holes with a trained model: arrays, users' files, and the files that models are handed on in."""

from inpaint_jax.inference.inpainter import Inpainter

__all__ = ["Inpainter"]
