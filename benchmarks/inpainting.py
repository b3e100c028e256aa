"""Seconds, operations and peak memory of filling holes in photos of several sizes, each in a process of its own.

    python benchmarks/inpainting.py [--checkpoint=RUN] [--sizes=256x256,256x256x8,512x512,1024x1024,2048x2048]
        [--dtype=float32] [--repeats=3] [--time-limit=120] [--photo=FILE] [--peak=FILE] [--json=FILE] [--plot=FILE.png]

A size is WIDTHxHEIGHT, or WIDTHxHEIGHTxBATCH for several photos at once. Without a checkpoint the generator has the
paper's width and random parameters, which take as long, and computes in --dtype. The photo is resized to each size; the
holes are free-form masks united with squares, as in training. Operations are counted from shapes (see counting.py) for
the attention everywhere: on large photos it leaves out what is far from the hole, so they are the most that can have
been done.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from counting import Work, count
from hardware import describe, describe_devices, device_memory_peak, host_memory_peak
from machine_peak import print_peak, read
from plots import save_inpainting
from processes import MeasurementFailed, run_alone
from timing import Table, format_seconds, format_spread, rates, summarise

from inpaint_jax.config import Config
from inpaint_jax.data.images import read_image
from inpaint_jax.data.masks import training_mask
from inpaint_jax.inference.inpainter import Inpainter, padded_side
from inpaint_jax.systems.mhtma import make_generator

SHARED = Path(os.environ.get("INPAINT_JAX_SHARED", Path(__file__).parents[2] / "shared"))


def main() -> None:
    """Measures every size, prints the table, writes JSON and draws the plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", help="a workdir or an exported file; the paper's width by default")
    parser.add_argument(
        "--sizes", default="256x256,256x256x8,512x512,1024x1024,2048x2048", help="WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="without a checkpoint")
    parser.add_argument("--width", type=int, default=24, help="channels of the first layer, without a checkpoint")
    parser.add_argument("--repeats", type=int, default=3, help="calls timed, after a first one that compiles")
    parser.add_argument("--time-limit", type=float, default=120, help="seconds of a first call that none follows")
    parser.add_argument("--photo", type=Path, help="any image file; one of the shared photos by default")
    parser.add_argument("--peak", type=Path, help="JSON of machine_peak.py; measured by default")
    parser.add_argument("--json", type=Path, help="also write the figures to this file, after every size")
    parser.add_argument("--plot", type=Path, help="also draw time and memory against the number of pixels")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments, arguments.one)))
        return

    peak = read(arguments.peak) if arguments.peak else run_alone("machine_peak.py", [], "peak")
    print_peak(peak)
    widths = {"size": 9, "batch": 5, "first call": 10, "median": 8, "fastest-slowest": 18, "peak GiB": 8}
    table = Table(widths | {"GFLOP at most": 13, "GFLOP/s": 8, "of peak": 7})
    names = ("checkpoint", "dtype", "width", "repeats", "time_limit", "photo")
    flags = [f"--{name.replace('_', '-')}={value}" for name in names if (value := getattr(arguments, name)) is not None]
    rows, result = [], {}
    for text in arguments.sizes.split(","):
        width, height, batch_size = (int(number) for number in f"{text}x1".split("x")[:3])
        setting = {"width": width, "height": height, "batch_size": batch_size}
        try:
            row = run_alone("inpainting.py", flags, setting)
        except MeasurementFailed as error:
            table.row(f"{width}x{height}", str(batch_size), f"failed: {error}")
            continue
        work = Work(row.pop("flops"), row.pop("bytes"))
        row |= rates(work, row["seconds"]["median"], peak, row["dtype"], row["devices_used"])
        rows.append(row)
        table.row(
            row["size"],
            str(batch_size),
            format_seconds(row["first_call"]),
            format_seconds(row["seconds"]["median"]),
            format_spread(row["seconds"]),
            f"{row['device_memory_peak_gib'] or row['host_memory_peak_gib']:.3g}",
            f"{row['gflop']:.4g}",
            f"{row['gflop_per_second']:.3g}",
            f"{row['share_of_matrix_peak']:.1%}",
        )
        result = _result(rows, peak)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if not rows:
        raise SystemExit("no size could be measured")
    if arguments.plot:
        save_inpainting(result, arguments.plot)


def _result(rows: list[dict[str, Any]], peak: dict[str, Any]) -> dict[str, Any]:
    """What is written: what all rows share stands once."""
    shared = ("device", "width", "dtype")
    return {
        **{name: rows[0][name] for name in shared},
        **describe(("jax", "jaxlib", "flax", "numpy")),
        "peak": peak,
        "sizes": [{name: value for name, value in row.items() if name not in shared} for row in rows],
    }


def measure(arguments: argparse.Namespace, setting: dict[str, int]) -> dict[str, Any]:
    """One size: seconds of the first call (with compilation) and of the following, and the memory of this process."""
    width, height, batch_size = (setting[name] for name in ("width", "height", "batch_size"))
    photo = read_image(arguments.photo or next(iter(sorted((SHARED / "data/street/val").iterdir()))))
    image = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(0)
    masks = np.stack([training_mask(rng, height, width).mask for _ in range(batch_size)])
    images = np.repeat(image[None], batch_size, axis=0)
    inpainter = (
        Inpainter.load(arguments.checkpoint) if arguments.checkpoint else _untrained(arguments.dtype, arguments.width)
    )

    seconds: list[float] = []
    while len(seconds) <= arguments.repeats:
        start = time.perf_counter()
        completed = inpainter(images, masks)
        seconds.append(time.perf_counter() - start)
        if seconds[0] > arguments.time_limit:
            break
    if not np.array_equal(completed[~masks], images[~masks]):
        raise RuntimeError("a given pixel was changed")
    first, *others = seconds
    work = _count_work(inpainter, width, height, batch_size)
    # A single photo runs on one device, a batch on all; those that a CPU is split into share its cores.
    alone = batch_size == 1 or jax.default_backend() == "cpu"
    return {
        **describe_devices(),
        "width": inpainter.generator.width,
        "dtype": str(inpainter.generator.dtype),
        "size": f"{width}x{height}",
        "batch_size": batch_size,
        "devices_used": 1 if alone else jax.local_device_count(),
        "first_call": round(first, 2),
        "seconds": summarise(others or [first]),
        "compilation_included": not others,
        "device_memory_peak_gib": device_memory_peak(),
        "host_memory_peak_gib": host_memory_peak(),
        "hole": round(float(masks.mean()), 3),
        "flops": work.flops,
        "bytes": work.bytes,
    }


def _count_work(inpainter: Inpainter, width: int, height: int, batch_size: int) -> Work:
    """Of the generator as `Inpainter` calls it, on padded photos."""
    height, width = (padded_side(side, inpainter.image_size) for side in (height, width))
    image = jax.ShapeDtypeStruct((batch_size, height, width, 3), np.float32)
    mask = jax.ShapeDtypeStruct((batch_size, height, width), bool)
    sketch = mask if inpainter.guided else None

    def run(params: Any, image: jax.Array, mask: jax.Array, sketch: jax.Array | None) -> Any:
        return inpainter.generator.apply({"params": params}, image, mask, sketch, 0)

    return count(run, inpainter.params, image, mask, sketch)


def _untrained(dtype: str, width: int) -> Inpainter:
    """The paper's generator, whose other settings are the defaults."""
    config = Config.read({**Config().to_dict(), "dtype": dtype, "model": {"width": width}})
    image, mask = np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 64, 64), np.float32)
    params = make_generator(config).init(jax.random.key(0, impl="rbg"), image, mask)["params"]
    return Inpainter(config, params, 0)


if __name__ == "__main__":
    main()
