"""How many photos a second the input pipeline delivers, alone.

    python benchmarks/data_pipeline.py [--folder=DIR] [--json=FILE]

Times decoding, resizing and masking of single photos in one process on one core, then whole training batches with
0, 1 and 2 worker processes. Prints a table of medians with their quartiles.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from hardware import describe

from inpaint_jax.data.images import read_image, resize_and_crop
from inpaint_jax.data.masks import open_masks
from inpaint_jax.data.pipeline import training_batches
from inpaint_jax.data.sources import open_source

SHARED = Path(os.environ.get("INPAINT_JAX_SHARED", Path(__file__).parents[2] / "shared"))
LIBRARIES = ("numpy", "grain", "opencv-python-headless", "pillow")


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles, rounded for reading."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": round(median, 3), "q25": round(low, 3), "q75": round(high, 3)}


def milliseconds(function: Callable[[int], object], count: int) -> dict[str, float]:
    """Time of function(i) for i below count, in ms."""
    times = []
    for index in range(count):
        start = time.perf_counter()
        function(index)
        times.append(1000 * (time.perf_counter() - start))
    return quartiles(times)


def stages(folder: str, size: int, count: int) -> dict[str, dict[str, float]]:
    """Times of the parts of a sample on one core, in ms."""
    cv2.setNumThreads(0)
    source, masks = open_source(f"folder:{folder}"), open_masks("freeform", size)
    paths = [os.path.join(source.root, name) for name in source.names]
    images = [read_image(path) for path in paths[:count]]
    rng = np.random.default_rng(0)

    def resize(index: int) -> np.ndarray:
        return resize_and_crop(images[index % len(images)], size, crop="random", rng=rng)

    def sample(index: int) -> None:
        resize_and_crop(source[index % len(source)], size, crop="random", rng=rng)
        masks.draw(rng)

    return {
        "decode": milliseconds(lambda index: read_image(paths[index % len(paths)]), count),
        "resize and crop": milliseconds(resize, count),
        "mask": milliseconds(lambda index: masks.draw(rng), count),
        "whole sample": milliseconds(sample, count),
    }


def throughput(folder: str, size: int, batch_size: int, workers: int, seconds: float) -> dict[str, float]:
    """Photos a second of training batches: median and quartiles over stretches of ten batches."""
    source, masks = open_source(f"folder:{folder}"), open_masks("freeform", size)
    batches = training_batches(source, masks, size=size, batch_size=batch_size, seed=0, workers=workers)
    for _ in range(4 + 4 * workers):  # workers start, and their buffers fill
        next(batches)
    rates = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(10):
            next(batches)
        rates.append(10 * batch_size / (time.perf_counter() - start))
    batches.close()
    return quartiles(rates)


def main() -> None:
    """Measures, prints the table, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", default=str(SHARED / "data/street/train"), help="photos to read")
    parser.add_argument("--size", type=int, default=256, help="side of the samples")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--count", type=int, default=300, help="photos timed for each stage")
    parser.add_argument("--seconds", type=float, default=10, help="length of each throughput run")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()

    parts = stages(arguments.folder, arguments.size, arguments.count)
    print(f"one core, {arguments.size} px   ms a photo (quartiles)")
    for name, value in parts.items():
        print(f"{name:18} {value['median']:8.2f}  ({value['q25']:.2f}-{value['q75']:.2f})")
    per_core = round(1000 / parts["whole sample"]["median"], 1)
    print(f"photos a second and core: {per_core}")

    rates = {}
    print(f"\nbatches of {arguments.batch_size}    photos a second (quartiles)")
    for workers in (0, 1, 2):
        rates[workers] = value = throughput(
            arguments.folder, arguments.size, arguments.batch_size, workers, arguments.seconds
        )
        print(f"{workers} workers          {value['median']:8.1f}  ({value['q25']:.1f}-{value['q75']:.1f})", flush=True)

    if arguments.json:
        result = {
            **describe(LIBRARIES),
            "size": arguments.size,
            "batch_size": arguments.batch_size,
            "ms_per_photo_one_core": parts,
            "photos_per_second_per_core": per_core,
            "photos_per_second_by_workers": rates,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
