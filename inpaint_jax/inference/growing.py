"""Grows holes: what is drawn roughly leaves a rim of what should go, and its colours would run into the hole."""

from typing import Literal

import cv2
import numpy as np

from inpaint_jax.inference.retouching import SIDE

Growth = int | Literal["auto"]
"""A number of pixels of the photo, 0 for none, or "auto", see `auto_growth`."""

# A hole is grown where the generator works, or as far as a hand is exact that draws on the whole photo.
_OF_WORKING_SIDE = 1 / 128
_OF_PHOTO = 1 / 256


def grow(hole: np.ndarray, growth: Growth, side: int = SIDE) -> np.ndarray:
    """Grows a hole by all pixels that are at most so far from it.

    Args:
        hole: bool [H, W], True = missing.
        growth: by how much.
        side: the longest side that the generator works at, in pixels; for "auto".

    Returns:
        bool [H, W]. The hole as it was if it is empty, or if nothing given would be left.
    """
    pixels = auto_growth(hole.shape, side) if growth == "auto" else growth
    if not pixels or not hole.any():
        return hole
    away = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    grown = away <= pixels
    return hole if grown.all() else grown


def auto_growth(shape: tuple[int, ...], side: int = SIDE) -> int:
    """What "auto" is for a photo, in its pixels.

    A 128th of the working size (4 pixels of 512; of the photo, if that is smaller), or a 256th of the photo's longest
    side if that is more (16 pixels of 4000); at least 1.

    Args:
        shape: height and width of the photo.
        side: the longest side that the generator works at, in pixels.
    """
    longest = max(shape)
    return max(1, round(max(min(side, longest) * _OF_WORKING_SIDE, longest * _OF_PHOTO)))
