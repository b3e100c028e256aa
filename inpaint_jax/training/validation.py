"""Validation: means over a data set with fixed masks, and a few samples to look at."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from inpaint_jax import devices
from inpaint_jax.nets.fill import HOLE_COLOUR
from inpaint_jax.visualize import image_sheet, network_input


def validate(
    step: Callable[..., dict[str, tuple[jax.Array, jax.Array]]],
    params: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    frozen: Any,
    mesh: Mesh,
    *,
    unguided: bool = False,
) -> dict[str, float]:
    """Runs the validation step over a data set.

    Args:
        step: jitted `System.validation_step`.
        params: published parameters.
        batches: this process's batches with image, mask, weight and, for a generator guided by them, sketch.
        frozen: parameters that are never trained.
        mesh: of all devices.
        unguided: also run every batch without the lines of its sketches, for "hole_psnr_unguided".

    Returns:
        name -> exact mean over the images; the padding of the last batch does not count, nor do images without a
        hole for PSNR.
    """
    totals: dict[str, float] = {}
    counts: dict[str, int] = {}
    for batch in batches:
        needed = {name: batch[name] for name in ("image", "mask", "sketch", "weight") if name in batch}
        sums = jax.device_get(step(params, devices.put_batch(needed, mesh), frozen))
        if unguided:  # by the same program, which costs a little more than it needs to, but compiles nothing
            blank = needed | {"sketch": np.zeros_like(needed["sketch"])}
            without = step(params, devices.put_batch(blank, mesh), frozen)
            sums["hole_psnr_unguided"] = jax.device_get(without["hole_psnr"])
        for name, (total, count) in sums.items():
            totals[name] = totals.get(name, 0.0) + float(total)
            counts[name] = counts.get(name, 0) + int(count)
    return {name: total / counts[name] for name, total in totals.items() if counts[name]}


def sample_sheet(
    complete: Callable[..., dict[str, jax.Array]], params: Any, samples: Mapping[str, np.ndarray], mesh: Mesh
) -> np.ndarray:
    """Input, what the system makes of it, and truth of a few samples; lines of a sketch are white in the input.

    Args:
        complete: jitted `System.complete`.
        params: published parameters.
        samples: image uint8 [N, H, W, 3], mask [N, H, W] and maybe sketch [N, H, W], the same on every process.
        mesh: of all devices.

    Returns:
        uint8 [height, width, 3].
    """
    image = samples["image"].astype(np.float32) / 255
    mask, sketch = samples["mask"], samples.get("sketch")
    shown = jax.device_get(complete(params, *devices.put_everywhere((image, mask, sketch), mesh)))
    first = {"input": network_input(image, mask, np.array(HOLE_COLOUR, np.float32), sketch)}
    return image_sheet(first | shown | {"truth": image})
