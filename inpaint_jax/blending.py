"""A soft seam between the given pixels and those that a network filled in."""

import cv2
import numpy as np


def blend_seam(completed: np.ndarray, refined: np.ndarray, hole: np.ndarray, radius: float) -> np.ndarray:
    """Takes the step out of colour and brightness at the border of a hole; only pixels inside the hole change.

    The network predicts the given pixels too, so its error is known right outside the hole. This error, averaged with
    a Gaussian (sigma = radius / 3) over the given pixels near by, is what the filled pixels near by are wrong by as
    well. It is added to them in full at the border, and fades out (half a cosine) until `radius` pixels inside. What
    it removes is an offset; it moves no edges and draws no texture.

    Args:
        completed: uint8 [H, W, 3], given pixels and filled ones.
        refined: uint8 [H, W, 3], the network's pixels everywhere.
        hole: bool [H, W], True = missing.
        radius: in pixels; 0 changes nothing.

    Returns:
        uint8 [H, W, 3].
    """
    if radius <= 0 or hole.all() or not hole.any():
        return completed.copy()
    given = ~hole
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    error = np.where(given[..., None], completed.astype(np.float32) - refined, 0)

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (0, 0), sigmaX=radius / 3, borderType=cv2.BORDER_REFLECT)

    offset = blur(error) / np.maximum(blur(given.astype(np.float32)), 1e-6)[..., None]
    weight = np.where(depth < radius, 0.5 + 0.5 * np.cos(np.pi * depth / radius), 0)
    blended = np.rint(np.clip(completed + weight[..., None] * offset, 0, 255)).astype(np.uint8)
    return np.where(hole[..., None], blended, completed)
