"""Methods without learning. Imports no jax, because worker processes import this module again."""

import contextlib
from collections.abc import Sequence

import cv2
import numpy as np
from skimage.restoration import inpaint_biharmonic

from inpaint_jax.errors import UserError

_PATCH_RADIUS = 3  # patches of 7 x 7 pixels, as in pypatchmatch's examples
_RADIUS = 3  # pixels around a missing one that OpenCV's methods look at, as in its tutorials


def mean_fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills the hole with the mean colour of the known pixels, mid grey if there are none."""
    known = image[~mask]
    colour = known.mean(axis=0) if known.size else np.full(3, 127.5)
    return np.where(mask[..., None], np.rint(colour).astype(np.uint8), image)


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Telea, "An Image Inpainting Technique Based on the Fast Marching Method" (2004), by OpenCV."""
    return cv2.inpaint(np.ascontiguousarray(image), mask.astype(np.uint8), _RADIUS, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bertalmio et al., "Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting" (2001), by OpenCV."""
    return cv2.inpaint(np.ascontiguousarray(image), mask.astype(np.uint8), _RADIUS, cv2.INPAINT_NS)


def biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Damelin and Hoang, "On Surface Completion and Image Inpainting by Biharmonic Functions" (2018), by scikit-image.

    It solves one linear system per hole, which takes seconds for holes of tens of thousands of pixels.
    """
    if mask.all():
        return mean_fill(image, mask)  # the equation has no boundary to start from
    filled = inpaint_biharmonic(image, mask, channel_axis=-1)
    return np.rint(np.clip(filled, 0, 1) * 255).astype(np.uint8)


def patchmatch(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Barnes et al., "PatchMatch: A Randomized Correspondence Algorithm" (2009), by pypatchmatch, with a fixed seed."""
    if mask.all():
        return mean_fill(image, mask)  # there is no patch to copy
    from patchmatch import patch_match

    patch_match.set_random_seed(0)
    return patch_match.inpaint(np.ascontiguousarray(image), mask, patch_size=_PATCH_RADIUS)


METHODS = {
    "mean": mean_fill,
    "telea": telea,
    "navier_stokes": navier_stokes,
    "biharmonic": biharmonic,
    "patchmatch": patchmatch,
}
"""Name -> function of image uint8 [H, W, 3] and mask bool [H, W], True = missing, to the completed uint8 [H, W, 3]."""


def complete(method: str, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills the hole of one image.

    Args:
        method: one of METHODS.
        image: uint8 [H, W, 3].
        mask: bool [H, W], True = missing.

    Returns:
        uint8 [H, W, 3], the known pixels as given.

    Raises:
        UserError: There is no such method.
    """
    check(method)
    if not mask.any():
        return image
    # OpenCV's Telea lets the content of the hole, here the truth, leak into its result: hide it.
    return np.where(mask[..., None], METHODS[method](mean_fill(image, mask), mask), image)


def usable(methods: Sequence[str]) -> list[str]:
    """Those of the methods whose library is installed."""
    found = []
    for method in methods:
        with contextlib.suppress(UserError):
            check(method)
            found.append(method)
    return found


def check(method: str, names: Sequence[str] = tuple(METHODS)) -> None:
    """Checks the name of a method, and that its library is installed.

    Args:
        method: Name of the method.
        names: Names that the message offers.

    Raises:
        UserError: There is no such method, or the library that it needs is not installed.
    """
    if method not in METHODS:
        raise UserError(f"There is no method {method!r}; choose of {', '.join(names)}.")
    if method == "patchmatch":
        try:
            from patchmatch import patch_match
        except ImportError:
            usable = False
        else:
            usable = patch_match.patchmatch_available
        if not usable:
            raise UserError("The method patchmatch needs its extra: pip install 'inpaint-jax[patchmatch]'.")
