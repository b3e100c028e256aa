"""What a trained model does on many photos: with its own temperatures, with others, and with parts switched off."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from inpaint_jax import metrics
from inpaint_jax.data.masks import BINS, free_form_mask_of_ratio
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inspection.inputs import Samples

_BATCH = 8


def temperatures_by_ratio(
    inpainter: Inpainter, samples: Samples, *, seed: int = 0, bins: Sequence[tuple[float, float]] = BINS
) -> tuple[np.ndarray, np.ndarray]:
    """The learned temperatures of a model for photos with holes of every size.

    Args:
        inpainter: the model.
        samples: Photos. Their masks are not used: each photo gets a mask of free-form strokes in every bin.
        seed: Seed of the masks.
        bins: Mask-ratio bins, (low, high].

    Returns:
        ratios [N], and temperatures float32 [N, K].

    Raises:
        ValueError: the model has no temperatures.
    """
    if not inpainter.generator.temperature_count:
        raise ValueError(f"The model {inpainter.name!r} has no temperatures to look at.")
    rng = np.random.default_rng(seed)
    height, width = samples.images.shape[1:3]
    masks = [free_form_mask_of_ratio(rng, height, width, *limits) for limits in bins for _ in samples.images]
    sketches = samples.sketches
    every = dataclasses.replace(
        samples,
        images=np.tile(samples.images, (len(bins), 1, 1, 1)),
        masks=np.stack(masks),
        sketches=None if sketches is None else np.tile(sketches, (len(bins), 1, 1)),
    )
    _, temperatures = _run(inpainter, every)
    return every.masks.mean(axis=(1, 2)), temperatures


def psnr_by_temperature(
    inpainter: Inpainter, samples: Samples, temperatures: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """How good a model is with all heads at a temperature set by hand, and with its own temperatures.

    Args:
        inpainter: the model.
        samples: photos with holes.
        temperatures: [T].

    Returns:
        The hole PSNR [T] in dB, mean over the photos; the median of the learned temperature of each head [K]; and the
        hole PSNR with the learned temperatures.
    """
    completed, learned = _run(inpainter, samples)
    by_hand = [
        _hole_psnr(_run(inpainter, samples, temperatures=np.full_like(learned, temperature))[0], samples)
        for temperature in temperatures
    ]
    return np.array(by_hand), np.median(learned, axis=0), _hole_psnr(completed, samples)


def at_temperatures(inpainter: Inpainter, samples: Samples, temperatures: Sequence[float]) -> dict[str, np.ndarray]:
    """Completed photos with all heads at temperatures set by hand, and with the learned ones.

    Args:
        inpainter: the model.
        samples: photos with holes.
        temperatures: [T].

    Returns:
        heading -> uint8 [N, H, W, 3], for `visualize.image_sheet`.
    """
    completed, learned = _run(inpainter, samples)
    by_hand = {
        f"t = {temperature:.2g}": _run(inpainter, samples, temperatures=np.full_like(learned, temperature))[0]
        for temperature in temperatures
    }
    return {"input": samples.shown, **by_hand, "learned": completed, "truth": samples.images}


def with_parts_switched_off(inpainter: Inpainter, samples: Samples) -> dict[str, np.ndarray]:
    """Completed photos with only parts of the second stage, in the order of the paper's Fig. 8.

    A head is named by its mean learned temperature over the photos; two heads are called high and low.

    Args:
        inpainter: the model.
        samples: photos with holes.

    Returns:
        heading -> uint8 [N, H, W, 3], for `visualize.image_sheet`: input, convolution branch alone, attention branch
        alone; then, if there are several heads, the model with each head alone, from high to low temperature; the full
        model, and the truth.
    """
    completed, temperatures = _run(inpainter, samples)
    heads = temperatures.shape[1]
    without = {"convolution": ["attention"], "attention": ["convolution"]}
    if heads > 1:
        means = temperatures.mean(axis=0)
        for rank, head in enumerate(np.argsort(-means)):
            name = ("high t", "low t")[rank] if heads == 2 else f"t = {means[head]:.2g}"
            without[name] = [f"head_{other}" for other in range(heads) if other != head]
    parts = {name: _run(inpainter, samples, without=off)[0] for name, off in without.items()}
    return {"input": samples.shown, **parts, "full": completed, "truth": samples.images}


def hole_psnr(columns: Mapping[str, np.ndarray], samples: Samples) -> dict[str, float]:
    """PSNR inside the holes for some columns of a sheet.

    Args:
        columns: heading -> uint8 [N, H, W, 3]; "input" and "truth" are skipped.
        samples: The photos with their holes.

    Returns:
        heading -> mean in dB over the photos that have a hole, to two digits.
    """
    made = {name: images for name, images in columns.items() if name not in ("input", "truth")}
    return {name: round(_hole_psnr(images, samples), 2) for name, images in made.items()}


def _run(
    inpainter: Inpainter, samples: Samples, *, without: Sequence[str] = (), temperatures: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Completed photos, uint8 [N, H, W, 3], and temperatures [N, K]. All batches are full, so one program is enough."""
    count, made = len(samples.images), []
    for first in range(0, count, _BATCH):
        rows = np.minimum(np.arange(first, first + _BATCH), count - 1)
        sketches = None if samples.sketches is None else samples.sketches[rows]
        given = None if temperatures is None else temperatures[rows]
        made.append(
            inpainter.predict(
                samples.images[rows], samples.masks[rows], sketches, margin=0, without=without, temperatures=given
            )
        )
    completed = np.concatenate([prediction.completed for prediction in made])[:count]
    return completed, np.concatenate([prediction.temperatures for prediction in made])[:count]


def _hole_psnr(completed: np.ndarray, samples: Samples) -> float:
    """Mean in dB over the photos that have a hole."""
    prediction, target = (jnp.asarray(images, jnp.float32) / 255 for images in (completed, samples.images))
    return float(jnp.nanmean(metrics.hole_psnr(prediction, target, jnp.asarray(samples.masks))))
