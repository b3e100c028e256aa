"""Fills holes of photos of any size, as their owner would want it: where the paper's generator works, and at what size.

Only windows around holes are worked on. A hole of up to half the working size is filled at the photo's own size, a
long and thin one window by window; a larger one at a reduced size, and enlarged with the detail of its surroundings.
Wide holes are filled from coarse to fine, and get texture (`texture`). A classical method can be used in the same way.
"""

import dataclasses
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from inpaint_jax import classical
from inpaint_jax.inference import texture
from inpaint_jax.inference.inpainter import Inpainter, as_bool, check_images

SIDE = 512
"""Pixels of the longest side that the generator works at by default."""

_CONTEXT = 2  # side of a window, in sides of its hole; the least is the working size


class Stopped(RuntimeError):
    """Nobody wants the result any more."""


@dataclasses.dataclass(frozen=True)
class Retouched:
    """A photo without its hole.

    Attributes:
        pixels: uint8 [H, W, 3]; given pixels are bit-identical to the photo's.
        worked_at: height and width that the generator worked at, for each window.
        temperatures: float32 [K] of the attention heads, for each window; K = 0 for what has none.
    """

    pixels: np.ndarray
    worked_at: list[tuple[int, int]]
    temperatures: list[np.ndarray]


def retouch(
    inpainter: Inpainter | str,
    photo: np.ndarray,
    hole: np.ndarray,
    lines: np.ndarray | None = None,
    *,
    side: int = SIDE,
    stop: Callable[[], bool] = lambda: False,
) -> Retouched:
    """Fills the hole of a photo.

    Args:
        inpainter: the model, or the name of a classical method. Texture is added to what a model makes that was
            trained without a critic, if no lines are given.
        photo: uint8 [H, W, 3], any size. What it holds inside the hole is never looked at.
        hole: [H, W], read like the masks of `Inpainter.predict`. An empty one gives the photo back.
        lines: [H, W], likewise, for a model that is guided by sketches. They are thinned to one pixel, as in training.
        side: the longest side that the generator works at, in pixels.
        stop: asked before every window.

    Raises:
        ValueError: see `Inpainter.predict`; or lines for a classical method.
        UserError: the method is unknown or not installed.
        Stopped: `stop` returned True.
    """
    if lines is not None and isinstance(inpainter, str):
        raise ValueError(f"The method {inpainter} takes no lines.")
    photo, hole = np.asarray(photo), np.asarray(hole)
    check_images(photo[None], hole[None])
    left = as_bool(hole[None])[0].copy()
    drawn = None if lines is None else as_bool(np.asarray(lines)[None], "sketch")[0]
    pixels, worked_at, temperatures = photo.copy(), [], []
    for window in _windows(left, side):
        if stop():
            raise Stopped
        sketch = None if drawn is None else drawn[window]
        pixels[window], shape, used = _fill(inpainter, pixels[window], left[window], sketch, side)
        worked_at.append(shape)
        temperatures.append(used)
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
    inpainter: Inpainter | str, photo: np.ndarray, hole: np.ndarray, lines: np.ndarray | None, side: int
) -> tuple[np.ndarray, tuple[int, int], np.ndarray]:
    """A window without its hole, the size that it was filled at, and the temperatures."""
    height, width = hole.shape
    scale = min(1.0, side / max(height, width))
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    small = photo if scale == 1 else cv2.resize(photo, shape[::-1], interpolation=cv2.INTER_AREA)
    small_hole = touched(hole, shape)
    if small_hole.all() and not hole.all():  # many small holes: means over what is given, where that is half or more
        given = (~hole).astype(np.float32)
        share = cv2.resize(given, shape[::-1], interpolation=cv2.INTER_AREA)
        sums = cv2.resize(photo * given[..., None], shape[::-1], interpolation=cv2.INTER_AREA)
        small = np.round(sums / np.maximum(share, 1e-6)[..., None]).clip(0, 255).astype(np.uint8)
        small_hole = share < 0.5
    if isinstance(inpainter, str):
        completed, temperatures = classical.complete(inpainter, small, small_hole), np.zeros(0, np.float32)
        smooth = False
    else:
        drawn = None if lines is None else _thinned(touched(lines, shape))[None]
        made = inpainter.predict(small[None], small_hole[None], sketches=drawn, margin=0, wide=True)
        completed, temperatures = made.completed[0], made.temperatures[0]
        smooth = lines is None and inpainter.is_smooth and texture.wide_part(small_hole).any()
    matches = texture.match(completed, small_hole) if smooth or scale < 1 else None
    if smooth and matches is not None:
        completed = texture.add_texture(completed, small_hole, matches)
    if scale < 1:
        completed = texture.to_full_size(completed, photo, hole, matches)
    return completed, shape, temperatures


def _windows(left: np.ndarray, side: int) -> Iterator[tuple[slice, slice]]:
    """Windows of a photo that together cover its hole; a photo of the working size is one.

    Args:
        left: bool [H, W], the hole. When the next window is asked for, what the last one filled is taken out.
        side: the working size.
    """
    if max(left.shape) <= side:
        if left.any():
            yield slice(None), slice(None)
        return
    # Holes that are close to each other are one.
    reach = side // 16
    near = cv2.dilate(left.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(near)
    depth = cv2.distanceTransform(left.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    for number in range(1, count):
        left_edge, top, width, height, _ = boxes[number].tolist()
        box = np.s_[top : top + height, left_edge : left_edge + width]
        own = left[box] & (labels[box] == number)
        if not own.any():  # an earlier window had it in its middle
            continue
        thin = depth[box][own].max() <= reach
        x, y, width, height = cv2.boundingRect(own.astype(np.uint8))
        step = side // _CONTEXT if thin else max(width, height)
        for first in range(y, y + height, step):
            for begin in range(x, x + width, step):
                part = np.s_[first : min(first + step, y + height), begin : min(begin + step, x + width)]
                if not own[part].any():
                    continue
                start = top + first, left_edge + begin
                end = top + part[0].stop, left_edge + part[1].stop
                window = _placed(start, end, max(side, _CONTEXT * step), left.shape)
                yield window
                left[box][part][own[part]] = False
                if _CONTEXT * step <= side:
                    _take_out_middle(left, window, labels, boxes)


def _take_out_middle(left: np.ndarray, window: tuple[slice, slice], labels: np.ndarray, boxes: np.ndarray) -> None:
    """Takes all holes out of `left` that lie in the middle of a window at full size: they were filled as well."""
    (top, bottom), (first, last) = ((part.start, part.stop) for part in window)
    down, right = (bottom - top) // 8, (last - first) // 8
    inside = (boxes[:, 0] >= first + right) & (boxes[:, 0] + boxes[:, 2] <= last - right)
    inside &= (boxes[:, 1] >= top + down) & (boxes[:, 1] + boxes[:, 3] <= bottom - down)
    left[window] &= ~inside[labels[window]]


def _placed(start: tuple[int, int], end: tuple[int, int], side: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """A square window of a photo of `shape` around a box, moved into the photo, and cut where that is smaller."""
    slices = []
    for first, last, length in zip(start, end, shape):
        size = min(max(side, last - first), length)
        begin = min(max(0, (first + last - size) // 2), length - size)
        slices.append(slice(begin, begin + size))
    return slices[0], slices[1]
