"""Sketches: thin lines made of an edge map (§IV-F), and how they follow their photo into a sample.

Those of a whole data set are kept by `sketching.store`.
"""

import math
from typing import Protocol

import cv2
import numpy as np

from inpaint_jax.data.images import cut_square
from inpaint_jax.errors import UserError

THRESHOLD = 0.65
"""The paper's, for Paris StreetView."""

MIN_SIZE = 100
"""The paper's, in pixels at 256 x 256."""

_REFERENCE_SIDE = 256


class UnusableSketches(UserError):
    """Sketches that are unfinished, damaged, or of other photos or settings."""


class MissingSketch(LookupError):
    """There is no sketch of this photo, because the photo could not be read."""


def sketch_from_edges(
    edge_map: np.ndarray, threshold: float = THRESHOLD, min_size: float = MIN_SIZE, *, scaled: bool = False
) -> np.ndarray:
    """Makes thin lines of an edge map: threshold, area opening, skeleton (§IV-F).

    Args:
      edge_map: float [H, W] in [0, 1], see features.pidinet.
      threshold: what lies above is an edge.
      min_size: components (8-connected) of fewer pixels are dropped.
      scaled: `min_size` is meant for a shortest side of 256, and is scaled by the area of the square over the actual
        one; otherwise it is the number of pixels whatever the size of the map.

    Returns:
      bool [H, W], True = line, one pixel wide.

    Raises:
      ValueError: the map is not [H, W], or holds NaN.
      TypeError: the map is of integers or bool, so most likely not in [0, 1].
    """
    if edge_map.ndim != 2:
        raise ValueError(f"Give an edge map as [H, W], not {edge_map.shape}.")
    if edge_map.dtype.kind != "f":
        raise TypeError(f"Give an edge map as floats in [0, 1], not {edge_map.dtype}.")
    if np.isnan(edge_map).any():
        raise ValueError("The edge map holds NaN.")
    from skimage import morphology  # takes half a second; who only reads sketches does without

    return morphology.skeletonize(large_components(edge_map, threshold, min_size, scaled=scaled))


def large_components(
    edge_map: np.ndarray, threshold: float = THRESHOLD, min_size: float = MIN_SIZE, *, scaled: bool = False
) -> np.ndarray:
    """The step before the skeleton of `sketch_from_edges`: threshold and area opening; same arguments.

    Returns:
      bool [H, W], True = edge.
    """
    from skimage import morphology

    if scaled:
        min_size = min_size * (min(edge_map.shape) / _REFERENCE_SIDE) ** 2
    # scikit-image drops what has at most max_size pixels; its older min_size is on the way out.
    max_size = max(0, math.ceil(min_size) - 1)
    return morphology.remove_small_objects(edge_map > threshold, max_size=max_size, connectivity=2)


class Sketches(Protocol):
    """Where the pipeline gets sketches from: a `sketching.store.SketchStore`, or some of one in another order."""

    def __getitem__(self, index: int) -> np.ndarray:
        """Sketch of photo `index`, bool [h, w], of the photo's size after the resize; raises MissingSketch."""
        ...


def sketch_square(
    sketches: Sketches, index: int, shape: tuple[int, int], size: int, corner: tuple[int, int]
) -> np.ndarray:
    """The part of a sketch that belongs to a square cut out of its photo.

    Args:
      sketches: of all photos.
      index: number of the photo.
      shape: of the photo after the resize, [h, w].
      size: side of the square.
      corner: its top and left.

    Returns:
      bool [size, size], True = line. No line at all where a photo can be read that could not be when the sketches
      were made: one such photo should not stop a training.

    Raises:
      UnusableSketches: the sketch is of another size than its photo, or its file is damaged.
    """
    try:
        sketch = sketches[index]
    except MissingSketch:
        return np.zeros((size, size), bool)
    if sketch.shape != tuple(shape):
        height, width = shape
        raise UnusableSketches(
            f"The sketch of photo number {index} is {sketch.shape[1]} x {sketch.shape[0]} pixels, but the photo after "
            f"the resize {width} x {height}: the photos have changed since, so delete their sketches and make them "
            "anew."
        )
    return cut_square(sketch, size, corner)


def drop_lines(sketch: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Leaves out all lines, or some, of a share of the sketches, so that a model learns to do with few and none.

    Half of the share has no line left. In the other half each connected line (8-connectivity) stays with a
    probability of 1/2, as if a user had drawn some of them.

    Args:
      sketch: bool [H, W].
      rng: source of randomness; how much is drawn depends on the sketch.
      share: of the sketches that lose lines, 0 .. 1.

    Returns:
      bool [H, W].
    """
    chance = rng.random()
    if chance >= share:
        return sketch
    if chance < share / 2:
        return np.zeros_like(sketch)
    count, labels = cv2.connectedComponents(sketch.astype(np.uint8), connectivity=8)
    stays = rng.random(count) < 0.5
    return sketch & stays[labels.astype(np.intp)]
