"""What the heads of a trained model do with one photo: their weights, and the effect of other temperatures."""

import dataclasses
from functools import partial

import cv2
import jax
import numpy as np

from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inspection import rows
from inpaint_jax.inspection.inputs import Samples

CELL = 4
"""Side, in pixels of the photo, of one pixel of the attention's map."""


@dataclasses.dataclass(frozen=True)
class HeadInputs:
    """The inputs of the heads for one photo, and how much of the map is photo.

    Attributes:
        embedded: F_e, a float32 [H, W, C'] for each head, with the padding behind the photo, which can be attended to.
        mask: float32 [H, W], 1 = missing.
        temperatures: float32 [K], the learned temperatures.
        patch_size: s.
        height: Height of the photo on the map.
        width: Width of the photo on the map.
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
    """The path of one query's patch through rising temperatures (Fig. 1c); a patch is a row of s*s*C' numbers.

    Attributes:
        temperatures: [T].
        refined: [T, D], the refined patch at each temperature.
        known: [N, D], the valid key patches.
        best: Number of the key patch that is most similar to the query.
        learned: [D], the refined patch at the learned temperature.
        learned_temperature: The learned temperature of this head and photo.
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
        number: Number of the photo among them.

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
    """Row and column, on the map, of the missing pixel deepest in the hole: a query to begin with.

    Raises:
        ValueError: there is no hole.
    """
    hole = inputs.hole
    if not hole.any():
        raise ValueError("The mask has no hole, so that there is no query in it; give another mask.")
    framed = np.pad(hole.astype(np.uint8), 1)  # the border of the photo is also a border of the hole
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(np.argmax(depth), depth.shape)
    return int(row), int(column)


def attended(inputs: HeadInputs, query: tuple[int, int], *, head: int, temperature: float | None = None) -> np.ndarray:
    """How much each part of the photo counts for a query: the query's row of W, eq. (10).

    Args:
        inputs: Inputs of the heads, see `look_into`.
        query: row and column on the map.
        head: Number of the head, from 0.
        temperature: None takes the learned one.

    Returns:
        float32 [height, width], with each weight at the centre of its key patch and 0 elsewhere. The sum is one, minus
        the weight of the padding behind the photo.

    Raises:
        ValueError: the query lies outside the photo.
    """
    _check_query(inputs, query)
    temperature = inputs.temperatures[head] if temperature is None else temperature
    weights = _weights(
        inputs.embedded[head][None],
        inputs.mask[None],
        np.array([temperature], np.float32),
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
        inputs: Inputs of the heads, see `look_into`.
        query: row and column on the map.
        head: Number of the head, from 0.
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
    every = np.array([*temperatures, learned], np.float32)
    refined = np.asarray(_patches(features, mask, every, queries, patch_size=inputs.patch_size))[:, 0, 0]
    warm = np.ones(1, np.float32)  # the order of the weights does not depend on it, and none rounds to 0
    weights = _weights(features, mask, warm, queries, patch_size=inputs.patch_size)
    best = int(np.argmax(np.ravel(weights)[valid]))
    known = np.asarray(patches[0])[valid]
    return Sweep(temperatures, refined[:-1], known, best, refined[-1], float(learned))


def refined_maps(inputs: HeadInputs, temperatures: np.ndarray) -> list[np.ndarray]:
    """The refined map of each head at each temperature (Fig. 1d), without the padding behind the photo.

    Args:
        inputs: Inputs of the heads, see `look_into`.
        temperatures: [T].

    Returns:
        float32 [T, height, width, C'] for each head.
    """
    maps = [
        _maps(head[None], inputs.mask[None], np.asarray(temperatures, np.float32), patch_size=inputs.patch_size)[:, 0]
        for head in inputs.embedded
    ]
    return [np.asarray(each)[:, : inputs.height, : inputs.width] for each in maps]


def _check_query(inputs: HeadInputs, query: tuple[int, int]) -> None:
    if not (0 <= query[0] < inputs.height and 0 <= query[1] < inputs.width):
        raise ValueError(
            f"The query {tuple(query)} lies outside the map of {inputs.height} x {inputs.width}; it is row and column "
            f"there, a {CELL}th of the photo's."
        )


# Compiled once for every size of map, so that a slider responds at once.
_weights = partial(jax.jit, static_argnames="patch_size")(rows.attention_weights)
_patches = partial(jax.jit, static_argnames="patch_size")(rows.refined_patches)
_maps = partial(jax.jit, static_argnames="patch_size")(rows.refined_maps)
