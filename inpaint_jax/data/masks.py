"""Holes: drawn at random for training, or read from files. True = missing; in files, white = missing."""

import dataclasses
import math
import os
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np

from inpaint_jax.data.images import UnreadableImage, read_image
from inpaint_jax.data.sources import ImageSource, open_source
from inpaint_jax.errors import UserError

# All sizes are given for 256 x 256 pixels; they scale with the image.
REFERENCE_DIAGONAL = 256 * math.sqrt(2)
STROKE_WIDTH = (12, 39)
STROKES = (1, 3)
VERTICES = (4, 11)
MEAN_ANGLE = 2 * math.pi / 5
ANGLE_RANGE = 2 * math.pi / 15
SQUARE_FRACTION = 3 / 8
LOCAL_CROP_FRACTION = 1 / 2
MIXED_RATIOS = (0.0, 0.6)
_RATIO_ATTEMPTS = 200

Missing = Literal["white", "black"]

BINS = tuple((low / 10, (low + 1) / 10) for low in range(6))
"""The paper's bins of mask ratios, as (low, high]."""


class UnreadableMask(UserError):
    """A mask file that cannot be decoded. Other than a photo, it cannot be passed over; see FolderMasks."""


class Mask(NamedTuple):
    """A hole and the local discriminator's view of it.

    mask: bool [H, W], True = missing. crop: int32 [2], top and left of the local crop, whose side is half the image's.
    """

    mask: np.ndarray
    crop: np.ndarray


def free_form_mask(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    strokes: tuple[int, int] = STROKES,
    vertices: tuple[int, int] = VERTICES,
    stroke_width: tuple[float, float] = STROKE_WIDTH,
) -> np.ndarray:
    """Draws brush strokes as in DeepFillv2 (Yu et al., ICCV 2019, Algorithm 1).

    A stroke starts anywhere and makes 4-11 steps, each to a new vertex. Its direction is 2pi/5, give or take up to
    2pi/15, mirrored at every other step so that the stroke zigzags; its length is N(R, R/2) clipped to [0, 2R], where
    R is an eighth of the diagonal. Vertices are clipped into the image, joints are round. The mask is the union of
    1-3 strokes, flipped horizontally and vertically with probability 1/2 each.

    Args:
      rng: source of randomness.
      height: of the mask.
      width: of the mask.
      strokes: least and greatest number of strokes.
      vertices: least and greatest number of steps of a stroke.
      stroke_width: range of the brush's width in pixels at 256 x 256; scaled with the diagonal.

    Returns:
      bool [height, width], True = missing.
    """
    diagonal = math.hypot(height, width)
    radius = diagonal / 8
    canvas = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(*strokes, endpoint=True)):
        count = rng.integers(*vertices, endpoint=True)
        low, high = MEAN_ANGLE + np.array([-1, 1]) * rng.uniform(0, ANGLE_RANGE, 2)
        angles = rng.uniform(low, high, count)
        angles[::2] *= -1
        lengths = np.clip(rng.normal(radius, radius / 2, count), 0, 2 * radius)
        steps = np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)

        x, y = rng.uniform(0, (width - 1, height - 1))
        points = [(x, y)]
        for dx, dy in steps.tolist():  # one after the other, since a clipped vertex is where the next step starts
            x, y = min(max(x + dx, 0), width - 1), min(max(y + dy, 0), height - 1)
            points.append((x, y))

        brush = rng.uniform(*stroke_width) * diagonal / REFERENCE_DIAGONAL
        # OpenCV draws a line of the even thickness t > 0 (and of t - 1) t + 1 pixels wide.
        thickness = max(1, 2 * round((brush - 1) / 2))
        cv2.polylines(canvas, [np.rint(points).astype(np.int32)], isClosed=False, color=1, thickness=thickness)
    flip_rows, flip_columns = rng.random(2) < 0.5
    return canvas[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1].astype(bool)


def free_form_mask_of_ratio(rng: np.random.Generator, height: int, width: int, low: float, high: float) -> np.ndarray:
    """Draws brush strokes until they cover a wanted part of the image.

    The wanted ratio is uniform in the range. Strokes are those of `free_form_mask`; one that would overshoot the range
    is dropped, and the next ones are thinner and shorter.

    Args:
      rng: source of randomness.
      height: of the mask.
      width: of the mask.
      low: missing pixels as a fraction of all, to be exceeded.
      high: the same, not to be exceeded.

    Returns:
      bool [height, width], True = missing; low < mean <= high.

    Raises:
      ValueError: the range is empty.
      UserError: it is too narrow for strokes on so small an image.
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"A mask ratio must lie in a range within 0 and 1, not ({low}, {high}].")
    target = rng.uniform(low, high)
    mask, scale = np.zeros((height, width), bool), 1.0
    for _ in range(_RATIO_ATTEMPTS):
        fewest, most = (max(1, round(scale * count)) for count in VERTICES)
        thin, thick = (scale * pixels for pixels in STROKE_WIDTH)
        grown = mask | free_form_mask(
            rng, height, width, strokes=(1, 1), vertices=(fewest, most), stroke_width=(thin, thick)
        )
        if grown.mean() > high:
            scale *= 0.9
            continue
        mask = grown
        if mask.mean() >= target and mask.mean() > low:
            return mask
    if mask.mean() > low:
        return mask
    raise UserError(
        f"No strokes cover between {low} and {high} of {height} x {width} pixels; widen the range or take larger ones."
    )


def random_walk_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws what a random walk visits, as the PyTorch version of partial convolutions trains with.

    It starts anywhere on a canvas of twice the size, whose border holds it back, and makes as many steps as the canvas
    has pixels: up, down, left or right. A pixel of the mask is missing if half of its four on the canvas are.

    Args:
      rng: source of randomness.
      height: of the mask.
      width: of the mask.

    Returns:
      bool [height, width], True = missing.
    """
    sides = np.array([2 * height, 2 * width])
    steps = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])[rng.integers(4, size=sides.prod())]
    # A walk that stays where a step would leave the canvas is a free one on a canvas that is mirrored at its borders.
    free = (rng.integers(sides) + np.cumsum(steps, axis=0)) % (2 * sides)
    rows, columns = np.minimum(free, 2 * sides - 1 - free).T
    canvas = np.zeros(sides, np.uint8)
    canvas[rows, columns] = 1
    return canvas.reshape(height, 2, width, 2).sum(axis=(1, 3)) >= 2


def square_mask(
    rng: np.random.Generator, height: int, width: int, fraction: float = SQUARE_FRACTION
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Draws a square hole, placed uniformly.

    Args:
      rng: source of randomness.
      height: of the mask.
      width: of the mask.
      fraction: the square's side as a fraction of the image's shortest side (96 of 256).

    Returns:
      bool [height, width], True = missing; and the square's (top, left, side).
    """
    side = round(fraction * min(height, width))
    top, left = (int(v) for v in rng.integers((height - side + 1, width - side + 1)))
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask, (top, left, side)


def training_mask(rng: np.random.Generator, height: int, width: int) -> Mask:
    """Draws a free-form mask united with a square, and a local crop that holds the whole square.

    The crop's side is half the image's shortest; it is uniform over the positions that contain the square and lie in
    the image.
    """
    free_form = free_form_mask(rng, height, width)
    square, (top, left, side) = square_mask(rng, height, width)
    crop_side = local_crop_side(height, width)
    corner = np.array([top, left])
    first = np.maximum(corner + side - crop_side, 0)
    last = np.minimum(corner, np.array([height, width]) - crop_side)
    return Mask(free_form | square, rng.integers(first, last, endpoint=True).astype(np.int32))


def local_crop_side(height: int, width: int) -> int:
    """Side of the local discriminator's square crop: half the image's shortest side."""
    return int(LOCAL_CROP_FRACTION * min(height, width))


def local_crop_for(rng: np.random.Generator, mask: np.ndarray, side: int) -> np.ndarray:
    """Places a crop around a random hole pixel of any mask, moved into the image where it would stick out.

    Args:
      rng: source of randomness.
      mask: bool [H, W], True = missing; without a hole, any pixel serves.
      side: the crop's side, at most H and W.

    Returns:
      int32 [2]: top and left.
    """
    holes = np.flatnonzero(mask)
    pixel = rng.choice(holes) if holes.size else rng.integers(mask.size)
    centre = np.array(np.unravel_index(pixel, mask.shape))
    return np.clip(centre - side // 2, 0, np.array(mask.shape) - side).astype(np.int32)


def read_mask(file: str | os.PathLike | bytes, missing: Missing = "white", *, name: str | None = None) -> np.ndarray:
    """Reads a mask file of any image format: brighter than 127 (white) = missing.

    Args:
      file: a path, or the bytes of an encoded image.
      missing: which colour means missing, "white" or "black".
      name: what to call the mask in an error; the path unless given.

    Returns:
      bool [H, W].

    Raises:
      UnreadableImage: the file is missing, truncated, or no image.
    """
    return _binarise(read_image(file, name=name), missing)


def _binarise(image: np.ndarray, missing: Missing) -> np.ndarray:
    white = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) > 127
    return white if missing == "white" else ~white


class NumberedMasks(Protocol):
    """Where evaluation gets its masks from: one for each image."""

    @property
    def size(self) -> int:
        """Side of the masks."""
        ...

    def draw(self, rng: np.random.Generator, index: int) -> Mask:
        """Gives the mask that belongs to image `index`."""
        ...


class MaskSource(NumberedMasks, Protocol):
    """Where training gets its masks from, and evaluation may as well."""

    def draw(self, rng: np.random.Generator, index: int | None = None) -> Mask:
        """Gives any mask, or, given an index, the one that belongs to image `index`."""
        ...


@dataclasses.dataclass(frozen=True)
class FreeFormMasks:
    """Masks drawn anew each time. In evaluation they are fixed by rng, which the pipeline derives from the index."""

    size: int

    def draw(self, rng: np.random.Generator, index: int | None = None) -> Mask:
        """Draws a training mask of size x size; `index` makes no difference."""
        return training_mask(rng, self.size, self.size)


@dataclasses.dataclass(frozen=True)
class MixedMasks:
    """Holes of all sizes: with equal chances a training mask of the paper, strokes alone, or strokes of a wanted ratio.

    The wanted ratio is uniform over `MIXED_RATIOS`, reached from above, so that every bin of the tables is trained for.
    """

    size: int

    def draw(self, rng: np.random.Generator, index: int | None = None) -> Mask:
        """Draws a mask of size x size; `index` makes no difference."""
        kind = rng.integers(3)
        if kind == 0:
            return training_mask(rng, self.size, self.size)
        if kind == 1:
            mask = free_form_mask(rng, self.size, self.size)
        else:
            mask = free_form_mask_of_ratio(rng, self.size, self.size, *MIXED_RATIOS)
        return Mask(mask, local_crop_for(rng, mask, local_crop_side(*mask.shape)))


@dataclasses.dataclass(frozen=True)
class DeepFillV2Masks:
    """Holes of DeepFillv2: strokes united with a box of half the side, less up to 1/16 of the side at each edge."""

    size: int

    def draw(self, rng: np.random.Generator, index: int | None = None) -> Mask:
        """Draws a mask of size x size; `index` makes no difference."""
        box, (top, left, side) = square_mask(rng, self.size, self.size, fraction=1 / 2)
        rows, columns = rng.integers(0, self.size // 16, 2, endpoint=True)
        box[:] = False
        box[top + rows : top + side - rows, left + columns : left + side - columns] = True
        mask = box | free_form_mask(rng, self.size, self.size)
        return Mask(mask, local_crop_for(rng, mask, local_crop_side(*mask.shape)))


@dataclasses.dataclass(frozen=True)
class RandomWalkMasks:
    """Holes of the PyTorch version of partial convolutions."""

    size: int

    def draw(self, rng: np.random.Generator, index: int | None = None) -> Mask:
        """Draws a mask of size x size; `index` makes no difference."""
        mask = random_walk_mask(rng, self.size, self.size)
        return Mask(mask, local_crop_for(rng, mask, local_crop_side(*mask.shape)))


@dataclasses.dataclass(frozen=True)
class FolderMasks:
    """Masks from the image files of a folder, brought to size x size by taking nearest pixels."""

    files: ImageSource
    size: int
    missing: Missing = "white"

    def draw(self, rng: np.random.Generator, index: int | None = None) -> Mask:
        """Reads a random file, or, given an index, the file of that number, starting over after the last one.

        Raises:
          UnreadableMask: the file cannot be read. Other than a photo, a mask is not passed over: that would silently
            change which hole an image is tested on.
        """
        number = rng.integers(len(self.files)) if index is None else index % len(self.files)
        try:
            image = self.files[int(number)]
        except UnreadableImage as error:
            raise UnreadableMask(f"Remove or repair the mask file {error.name}: {error.reason}.") from error
        image = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_NEAREST_EXACT)
        mask = _binarise(image, self.missing)
        return Mask(mask, local_crop_for(rng, mask, local_crop_side(*mask.shape)))


def open_masks(spec: str, size: int) -> MaskSource:
    """Opens what `config.data.masks` names: `freeform`, `mixed`, `deepfillv2`, `random_walk`, or `folder:PATH`.

    A folder takes the options `?list=FILE`, as for photos, and `?missing=black` for files in which black marks the
    hole; both are joined by &.

    Raises:
      UserError: an unknown spec or option, or no image file in the folder.
      MissingFile: no such folder.
    """
    drawn = {
        "freeform": FreeFormMasks,
        "mixed": MixedMasks,
        "deepfillv2": DeepFillV2Masks,
        "random_walk": RandomWalkMasks,
    }
    if spec in drawn:
        return drawn[spec](size)
    if spec.startswith("folder:"):
        return open_folder_masks(spec, size)
    raise UserError(f"Masks {spec!r} are unknown; write freeform, mixed, deepfillv2, random_walk or folder:PATH.")


def open_folder_masks(spec: str, size: int) -> FolderMasks:
    """`open_masks` of a `folder:PATH`."""
    folder, mark, options = spec.rpartition("?")
    folder, options = (folder, options.split("&")) if mark else (spec, [])
    missing = next((option.removeprefix("missing=") for option in options if option.startswith("missing=")), "white")
    if missing not in ("white", "black"):
        raise UserError(f"Masks {spec!r}: missing is white or black, not {missing!r}.")
    others = "&".join(option for option in options if not option.startswith("missing="))
    return FolderMasks(open_source(f"{folder}?{others}" if others else folder), size, missing)
