"""Fills holes of photos of any size, as their owner would want it: where the paper's generator works, and at what size.

Only windows around holes are worked on. A hole that fits into a window of the working size is filled at the photo's
own size, a long and thin one window by window; a larger one at a reduced size, and enlarged with the detail of its
surroundings. Wide holes are filled from coarse to fine, and get texture (`texture`).
"""

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np

from inpaint_jax.inference import texture
from inpaint_jax.inference.inpainter import Inpainter

SIDE = 512
"""Pixels of the longest side that the generator works at by default."""

_CONTEXT = 2  # side of a window, in sides of its hole; the least is the working size


@dataclasses.dataclass(frozen=True)
class Retouched:
    """A photo without its hole.

    Attributes:
        pixels: uint8 [H, W, 3]; given pixels are bit-identical to the photo's.
        worked_at: height and width that the generator worked at in each window.
        temperatures: float32 [K] of the attention heads, in the last window.
    """

    pixels: np.ndarray
    worked_at: list[tuple[int, int]]
    temperatures: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Window:
    """A part of the photo to look at, and the part of it whose hole is to be filled."""

    seen: tuple[slice, slice]
    filled: tuple[slice, slice]


def retouch(
    inpainter: Inpainter, photo: np.ndarray, hole: np.ndarray, lines: np.ndarray | None = None, *, side: int = SIDE
) -> Retouched:
    """Fills the hole of a photo.

    Args:
        inpainter: the model. Texture is added if it was trained without a critic, and no lines are given.
        photo: uint8 [H, W, 3], any size. What it holds inside the hole is never looked at.
        hole: bool [H, W], True = missing; some of it must be, and not all.
        lines: bool [H, W], True = line, for a model that is guided by sketches, one pixel wide.
        side: the longest side that the generator works at, in pixels.

    Raises:
        ValueError: see `Inpainter.predict`.
    """
    pixels, left, worked_at, temperatures = photo.copy(), hole.copy(), [], np.zeros(0, np.float32)
    for window in _windows(hole, side):
        missing = left[window.seen]
        drawn = None if lines is None else lines[window.seen]
        filled, shape, temperatures = _fill(inpainter, pixels[window.seen], missing, drawn, side)
        pixels[window.seen] = filled
        left[window.filled] = False
        worked_at.append(shape)
    return Retouched(pixels, worked_at, temperatures)


def touched(drawn: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes a drawing, bool [h, w], to `shape`; a pixel that covers any drawn pixel is drawn."""
    if drawn.shape == shape:
        return drawn
    way = cv2.INTER_NEAREST_EXACT if drawn.shape[0] <= shape[0] else cv2.INTER_AREA
    return cv2.resize(drawn.astype(np.float32), shape[::-1], interpolation=way) > 0


def _thinned(lines: np.ndarray) -> np.ndarray:
    from skimage.morphology import skeletonize  # takes half a second, and few need it

    return skeletonize(lines)


def _fill(
    inpainter: Inpainter, photo: np.ndarray, hole: np.ndarray, lines: np.ndarray | None, side: int
) -> tuple[np.ndarray, tuple[int, int], np.ndarray]:
    """A window without its hole, the size that it was filled at, and the temperatures."""
    height, width = hole.shape
    scale = min(1.0, side / max(height, width))
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    small = photo if scale == 1 else cv2.resize(photo, shape[::-1], interpolation=cv2.INTER_AREA)
    small_hole = touched(hole, shape)
    drawn = None if lines is None else _thinned(touched(lines, shape))[None]
    made = inpainter.predict(small[None], small_hole[None], drawn, margin=0, wide=True)
    completed = made.completed[0]
    smooth = lines is None and inpainter.is_smooth and texture.wide_part(small_hole).any()
    matches = texture.match(completed, small_hole) if smooth or scale < 1 else None
    if smooth and matches is not None:
        completed = texture.add_texture(completed, small_hole, matches)
    if scale < 1:
        completed = texture.enlarge(completed, photo, hole, matches)
    return completed, shape, made.temperatures[0]


def _windows(hole: np.ndarray, side: int) -> Iterator[_Window]:
    """Windows that together cover the hole; one photo of the working size is one window."""
    if max(hole.shape) <= side:
        yield _Window(_around((0, 0), hole.shape, side, hole.shape), (slice(None), slice(None)))
        return
    # Holes that are close to each other are one.
    reach = side // 16
    near = cv2.dilate(hole.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(near)
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    for number in range(1, count):
        left, top, width, height, _ = boxes[number].tolist()
        box = np.s_[top : top + height, left : left + width]
        own = hole[box] & (labels[box] == number)
        x, y, width, height = cv2.boundingRect(own.astype(np.uint8))
        left, top = left + x, top + y
        step = side // _CONTEXT if depth[box][own].max() <= reach else max(width, height)
        for y in range(top, top + height, step):
            for x in range(left, left + width, step):
                end = min(y + step, top + height), min(x + step, left + width)
                part = slice(y, end[0]), slice(x, end[1])
                if hole[part].any():
                    yield _Window(_around((y, x), end, max(side, _CONTEXT * step), hole.shape), part)


def _around(start: tuple[int, int], end: tuple[int, int], side: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """A square window of a photo of `shape` around a box, moved into the photo, and cut where that is smaller."""
    slices = []
    for first, last, length in zip(start, end, shape):
        size = min(max(side, last - first), length)
        begin = min(max(0, (first + last - size) // 2), length - size)
        slices.append(slice(begin, begin + size))
    return slices[0], slices[1]
