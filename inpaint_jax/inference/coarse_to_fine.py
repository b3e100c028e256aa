"""Wide holes of large photos, filled at a smaller size first: the geometry and its numbers.

A network that learned from small crops knows holes of a few pixels. A wide hole is therefore filled at half the size,
or a quarter, ..., at which it is as narrow as those; what comes of it, enlarged, is what the hole holds at first at the
next size (`Generator`'s `guess`), where a smooth fill would know nothing of edges that go on.
"""

import cv2
import numpy as np

BLUR = 2.5
"""Pixels of the larger size: networks that learned to sharpen a smooth fill would sharpen a sharp guess twice."""

SHARE = 0.5
"""Of the residual that is taken at the sizes between; the smallest, which has no guess, and the last take all of it."""

# Of a pixel at half the size, from which on it counts as given.
_GIVEN_FROM = 0.3


def is_wide(hole: np.ndarray, image_size: int) -> bool:
    """Whether a hole is better filled at half the size first.

    Args:
        hole: bool [H, W].
        image_size: side of the training images.

    Returns:
        whether some of its pixels are further than an eighth of the training images from any given one, and half the
        size is still no smaller than they were. Never for a hole that covers everything.
    """
    if min(hole.shape) // 2 < image_size or hole.all():
        return False
    return bool(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3).max() > image_size / 8)


def halve(image: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A photo and its hole at half the size: means over the given pixels.

    Args:
        image: uint8 [H, W, 3].
        hole: bool [H, W].

    Returns:
        uint8 [H // 2, W // 2, 3], and bool [H // 2, W // 2].
    """
    size = hole.shape[1] // 2, hole.shape[0] // 2
    given = (~hole).astype(np.float32)
    share = cv2.resize(given, size, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(image * given[..., None], size, interpolation=cv2.INTER_AREA)
    means = sums / np.maximum(share, 1e-6)[..., None]
    return np.round(np.clip(means, 0, 255)).astype(np.uint8), share < _GIVEN_FROM


def enlarge(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A completed image at the next size, as a guess.

    Args:
        image: uint8 [h, w, 3].
        height: H.
        width: W.

    Returns:
        float32 [H, W, 3] in [0, 1].
    """
    large = cv2.resize(image.astype(np.float32) / 255, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(cv2.GaussianBlur(large, (0, 0), BLUR), 0, 1)
