"""What the heads of a trained model do with one photo: their weights, and what other temperatures would give."""

import dataclasses
from functools import partial

import cv2
import jax
import numpy as np

from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inspection import rows
from inpaint_jax.inspection.inputs import Samples

CELL = 4
"""Pixels of a photo, by either side, that a pixel of the attention's map stands for."""


@dataclasses.dataclass(frozen=True)
class HeadInputs:
    """What the heads are given for one photo, and how much of the map is photo.

    Attributes:
        embedded: a float32 [H, W, C'] for each head, F_e, with the padding behind the photo, which can be attended to.
        mask: float32 [H, W], 1 = missing.
        temperatures: float32 [K], the learned ones.
        patch_size: s.
        height: of the photo on the map.
        width: the same.
    """

    embedded: tuple[np.ndarray, ...]
    mask: np.ndarray
    temperatures: np.ndarray
    patch_size: int
    height: int
    width: int

    @property
    def hole(self) -> np.ndarray:
        """bool [height, width], True = missing: the hole on the map, without the padding."""
        return self.mask[: self.height, : self.width] > 0.5


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The way of one query's patch through rising temperatures (Fig. 1c); patches are rows of s*s*C' numbers.

    Attributes:
        temperatures: [T].
        refined: [T, D] the refined patch at each of them.
        known: [N, D] the valid key patches.
        best: number of the one among them that is most similar to the query.
        learned: [D] the refined patch at the learned temperature.
        learned_temperature: of the head and photo.
    """

    temperatures: np.ndarray
    refined: np.ndarray
    known: np.ndarray
    best: int
    learned: np.ndarray
    learned_temperature: float


def look_into(inpainter: Inpainter, samples: Samples, number: int = 0) -> HeadInputs:
    """Runs a generator up to its attention.

    Args:
        inpainter: the model.
        samples: photos with holes.
        number: of the photo among them.

    Returns:
        HeadInputs.

    Raises:
        ValueError: as in `Inpainter.attention_inputs`.
    """
    sketch = None if samples.sketches is None else samples.sketches[number]
    inputs = inpainter.attention_inputs(samples.images[number], samples.masks[number], sketch)
    height, width = (-(-side // CELL) for side in samples.images.shape[1:3])
    embedded = tuple(head[0] for head in inputs.embedded)
    return HeadInputs(embedded, inputs.mask[0], inputs.temperatures[0], inputs.patch_size, height, width)


def hole_centre(inputs: HeadInputs) -> tuple[int, int]:
    """Row and column, on the map, of the missing pixel that lies deepest in the hole, a query to begin with.

    Raises:
        ValueError: there is no hole.
    """
    hole = inputs.hole
    if not hole.any():
        raise ValueError("The mask has no hole, so that there is no query in it; give another mask.")
    framed = np.pad(hole.astype(np.uint8), 1)  # the border of the photo is a border of the hole, too
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(np.argmax(depth), depth.shape)
    return int(row), int(column)


def attended(inputs: HeadInputs, query: tuple[int, int], *, head: int, temperature: float | None = None) -> np.ndarray:
    """How much each place of the photo counts for a query: the query's row of W, eq. (10).

    Args:
        inputs: of the photo.
        query: row and column on the map.
        head: from 0.
        temperature: None takes the learned one.

    Returns:
        float32 [height, width], each weight at the centre of its key patch, 0 where none is centred. The sum is one,
        less what goes to the padding behind the photo.

    Raises:
        ValueError: the query lies outside the photo.
    """
    _check_query(inputs, query)
    temperature = inputs.temperatures[head] if temperature is None else temperature
    weights = _weights(
        inputs.embedded[head][None],
        inputs.mask[None],
        np.float32([temperature]),
        np.array([[query]], np.int32),
        patch_size=inputs.patch_size,
    )[0, 0]
    placed = np.zeros(inputs.mask.shape, np.float32)
    centre = rows.key_centre(inputs.patch_size)
    placed[centre : centre + weights.shape[0], centre : centre + weights.shape[1]] = weights
    return placed[: inputs.height, : inputs.width]


def sweep(inputs: HeadInputs, query: tuple[int, int], *, head: int, temperatures: np.ndarray | None = None) -> Sweep:
    """Takes the patch of a query through a sweep of temperatures (Fig. 1c).

    Args:
        inputs: of the photo.
        query: row and column on the map.
        head: from 0.
        temperatures: [T], rising; from 0.001 to 10 by default.

    Returns:
        Sweep.

    Raises:
        ValueError: the query lies outside the photo, or the hole leaves no whole patch known.
    """
    _check_query(inputs, query)
    temperatures = np.geomspace(1e-3, 10, 41) if temperatures is None else np.asarray(temperatures, np.float64)
    learned = inputs.temperatures[head]
    features, mask = inputs.embedded[head][None], inputs.mask[None]
    patches, valid = rows.known_patches(features, mask, patch_size=inputs.patch_size)
    valid = np.asarray(valid[0])
    if not valid.any():
        raise ValueError("The hole leaves no whole patch of the photo known; give a smaller one.")
    queries = np.array([[query]], np.int32)
    every = np.float32([*temperatures, learned])
    refined = np.asarray(_patches(features, mask, every, queries, patch_size=inputs.patch_size))[:, 0, 0]
    warm = np.ones(1, np.float32)  # which one is largest does not depend on it, and none rounds to 0
    weights = _weights(features, mask, warm, queries, patch_size=inputs.patch_size)
    best = int(np.argmax(np.ravel(weights)[valid]))
    known = np.asarray(patches[0])[valid]
    return Sweep(temperatures, refined[:-1], known, best, refined[-1], float(learned))


def refined_maps(inputs: HeadInputs, temperatures: np.ndarray) -> list[np.ndarray]:
    """The refined map of each head at each temperature (Fig. 1d), without the padding behind the photo.

    Args:
        inputs: of the photo.
        temperatures: [T].

    Returns:
        float32 [T, height, width, C'] for each head.
    """
    maps = [
        _maps(head[None], inputs.mask[None], np.float32(temperatures), patch_size=inputs.patch_size)[:, 0]
        for head in inputs.embedded
    ]
    return [np.asarray(each)[:, : inputs.height, : inputs.width] for each in maps]


def _check_query(inputs: HeadInputs, query: tuple[int, int]) -> None:
    if not (0 <= query[0] < inputs.height and 0 <= query[1] < inputs.width):
        raise ValueError(
            f"The query {tuple(query)} lies outside the map of {inputs.height} x {inputs.width}; it is row and column "
            f"there, a {CELL}th of the photo's."
        )


# Compiled once for every size of map, so that a slider is answered at once.
_weights = partial(jax.jit, static_argnames="patch_size")(rows.attention_weights)
_patches = partial(jax.jit, static_argnames="patch_size")(rows.refined_patches)
_maps = partial(jax.jit, static_argnames="patch_size")(rows.refined_maps)
