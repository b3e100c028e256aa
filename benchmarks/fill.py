"""How near to the truth the spline's fill comes by its stiffness, beside the classical methods; and how long it takes.

    python benchmarks/fill.py [--data=folder:PHOTOS] [--limit=40] [--size=128] [--stiffness=0,1,2,4,8,16] [--json=FILE]

Each photo is tested in every bin of mask ratios, with strokes that hit them. Stiffness 0 is the harmonic fill. The time
is that of one image of `--size`, and of a batch of 8, beside a generator that starts from it.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from hardware import describe, describe_devices
from timing import alternate, format_seconds, summarise

from inpaint_jax import classical, metrics
from inpaint_jax.data.images import resize_and_crop
from inpaint_jax.data.masks import BINS, free_form_mask_of_ratio
from inpaint_jax.data.sources import open_source
from inpaint_jax.nets.fill import tension_spline
from inpaint_jax.nets.generator import Generator

CLASSICAL = ("telea", "navier_stokes", "biharmonic")


def main() -> None:
    """Prints the tables, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="skimage:train", help="as in config.data.train")
    parser.add_argument("--limit", type=int, default=40, help="photos, taken evenly from all")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument(
        "--stiffness", type=lambda text: [float(part) for part in text.split(",")], default=[0, 1, 4, 16]
    )
    parser.add_argument("--width", type=int, default=24, help="of the generator in the table of times")
    parser.add_argument("--iterations", type=int, default=12, help="of the quality table; the time is the default's")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    quality, images, masks = measure_quality(arguments)
    print("| | mean PSNR | SSIM | MAE | PSNR by bin |\n|---|--:|--:|--:|---|")
    for name, bins in quality.items():
        psnr, ssim, mae = np.mean(bins, axis=0)
        print(f"| {name} | {psnr:.2f} | {ssim:.4f} | {mae:.3f} % | {' '.join(f'{row[0]:.2f}' for row in bins)} |")
    seconds = measure_time(images, masks, arguments.width)
    for name, times in seconds.items():
        print(f"{name}: {format_seconds(times['median'])}")
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("data", "limit", "size", "iterations")}
        result = {
            **describe(("jax", "numpy")),
            **describe_devices(),
            **settings,
            "quality": quality,
            "seconds": seconds,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measure_quality(arguments: argparse.Namespace) -> tuple[dict[str, list[list[float]]], np.ndarray, np.ndarray]:
    """Method -> a row of PSNR, SSIM and MAE for every bin; and the photos and masks of the last bin."""
    source = open_source(arguments.data)
    numbers = np.linspace(0, len(source) - 1, min(arguments.limit, len(source))).round().astype(int)
    photos = np.stack([resize_and_crop(source[int(number)], arguments.size) for number in numbers])
    fill = jax.jit(lambda x, m, s: tension_spline(x / 255, m, stiffness=s, iterations=arguments.iterations))
    quality: dict[str, list[list[float]]] = {}
    for number, limits in enumerate(BINS):
        rngs = [np.random.default_rng((number, i)) for i in range(len(photos))]
        masks = np.stack([free_form_mask_of_ratio(rng, *photos.shape[1:3], *limits) for rng in rngs])
        images = photos.astype(np.float32)
        made = {f"stiffness {s:g}": np.asarray(fill(images, masks, s)) for s in arguments.stiffness}
        for name in CLASSICAL:
            made[name] = np.stack([classical.complete(name, *each) for each in zip(photos, masks)]) / np.float32(255)
        for name, completed in made.items():
            completed, truth = jnp.round(255 * completed) / 255, images / 255
            scores = metrics.psnr(completed, truth), metrics.ssim(completed, truth)
            scores += (metrics.mean_absolute_error(completed, truth),)
            quality.setdefault(name, []).append([round(float(score.mean()), 4) for score in scores])
    return quality, images / 255, masks


def measure_time(images: np.ndarray, masks: np.ndarray, width: int) -> dict[str, dict[str, float]]:
    """Seconds of the fill, and of a whole generator, in turn."""
    generator = Generator(width, fill="tension_spline", output="residual", skips=True)
    params = jax.jit(generator.init)(jax.random.key(0), images[:1], masks[:1])
    calls = {}
    for count in (1, 8):
        batch = jnp.asarray(images[:count]), jnp.asarray(masks[:count])
        functions = {"fill": jax.jit(tension_spline), "generator": jax.jit(lambda x, m: generator.apply(params, x, m))}
        for name, function in functions.items():
            calls[f"{name}, batch of {count}"] = lambda function=function, batch=batch: function(*batch)
    for call in calls.values():
        jax.block_until_ready(call())
    return {name: summarise(times) for name, times in alternate(calls, repeats=10).items()}


if __name__ == "__main__":
    main()
