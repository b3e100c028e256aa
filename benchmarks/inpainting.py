"""Seconds and peak memory of filling a hole in photos of several sizes, each size in a process of its own.

    python benchmarks/inpainting.py [--checkpoint=RUN] [--sizes=256x256,512x512,1000x667,2048x2048] [--repeats=3]
        [--photo=FILE] [--json=FILE]

Without a checkpoint the generator has the paper's width and random parameters, which take as long. The photo is
resized to each size; the hole is a free-form mask united with a square, as in training.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from hardware import describe

from inpaint_jax.data.images import read_image
from inpaint_jax.data.masks import training_mask
from inpaint_jax.inference import Inpainter
from inpaint_jax.nets.generator import Generator

SHARED = Path(os.environ.get("INPAINT_JAX_SHARED", Path(__file__).parents[2] / "shared"))
PAPER = {
    "name": "paper",
    "dtype": "float32",
    "data": {"image_size": 256},
    "model": {"width": 24, "heads": 2, "patch_size": 3},
}


def main() -> None:
    """Measures every size, prints the table, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", help="a workdir or an exported file; the paper's width by default")
    parser.add_argument("--sizes", default="256x256,512x512,1000x667,2048x2048", help="WIDTHxHEIGHT, ...")
    parser.add_argument("--repeats", type=int, default=3, help="calls timed, after a first one that compiles")
    parser.add_argument("--photo", type=Path, help="any image file; one of the shared photos by default")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments, arguments.one)))
        return

    print(f"{'size':>12} {'compiled in':>12} {'median':>10} {'fastest':>10} {'slowest':>10} {'peak memory':>12}")
    rows = []
    for size in arguments.sizes.split(","):
        child = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], f"--one={size}"], stdout=subprocess.PIPE, text=True
        )
        if child.returncode:
            print(f"{size:>12} failed with exit status {child.returncode}", flush=True)
            continue
        row = json.loads(child.stdout.splitlines()[-1])
        rows.append(row)
        times = " ".join(f"{row[name]:8.2f} s" for name in ("median", "fastest", "slowest"))
        print(f"{size:>12} {row['first_call']:10.1f} s {times} {row['host_memory_peak_gib']:8.2f} GiB", flush=True)
    if arguments.json and rows:
        result = {
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            **describe(("jax", "jaxlib", "flax", "numpy")),
            "width": rows[0]["width"],
            "sizes": [{name: value for name, value in row.items() if name != "width"} for row in rows],
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(arguments: argparse.Namespace, size: str) -> dict[str, Any]:
    """One size: seconds of the first call (with compilation) and of the following, and the memory of this process."""
    width, height = (int(side) for side in size.split("x"))
    photo = read_image(arguments.photo or next(iter(sorted((SHARED / "data/street/val").iterdir()))))
    image = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
    mask = training_mask(np.random.default_rng(0), height, width).mask
    inpainter = Inpainter.load(arguments.checkpoint) if arguments.checkpoint else _untrained()

    seconds = []
    for _ in range(arguments.repeats + 1):
        start = time.perf_counter()
        completed = inpainter(image, mask)
        seconds.append(time.perf_counter() - start)
    if not np.array_equal(completed[~mask], image[~mask]):
        raise RuntimeError("a given pixel was changed")
    first, *others = seconds
    others = others or [first]
    return {
        "size": size,
        "width": inpainter.generator.width,
        "first_call": round(first, 2),
        "median": round(float(np.median(others)), 3),
        "fastest": round(min(others), 3),
        "slowest": round(max(others), 3),
        "device_memory_peak_gib": _device_peak(),
        "host_memory_peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "hole": round(float(mask.mean()), 3),
    }


def _device_peak() -> float | None:
    """Peak of the first device's own memory, None where it uses the host's."""
    statistics = jax.local_devices()[0].memory_stats()
    return round(statistics["peak_bytes_in_use"] / 2**30, 2) if statistics else None


def _untrained() -> Inpainter:
    model = PAPER["model"]
    image, mask = np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 64, 64), np.float32)
    params = Generator(**model).init(jax.random.key(0, impl="rbg"), image, mask)["params"]
    return Inpainter(PAPER, params, 0)


if __name__ == "__main__":
    main()
