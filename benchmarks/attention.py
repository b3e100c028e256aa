"""Attention alone: the paper's loop over the batch with convolutions (Algorithm 2, Fig. 7) against our methods.

    python benchmarks/attention.py [--sizes=32,64,128,256] [--batches=1,4,16,32] [--methods=loop,batched,unrolled,...]
        [--directions=...] [--repeats=5] [--time-limit=2] [--memory-limit=GIB] [--peak=FILE] [--json=FILE]
        [--plot=FILE.png]

"loop" and "batched" are contextual attention (`nets/contextual.py`), by convolutions for one sample after the other as
printed, or all samples at once. The others are the methods of `masked_patch_attention`.

In every setting all methods take turns. What would need more memory or time than the limits is left out, with the
reason: memory is what XLA says of the compiled program, time is taken to grow with (H W)^2 B from the last setting
that was measured, and to be no less than the matrix products need at this machine's peak. No round begins after ten
times the time limit, but for the second.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import machine_peak
import numpy as np
from counting import count
from hardware import describe, describe_devices, memory_size, program_memory
from plots import save_attention
from timing import Table, alternate, format_seconds, format_spread, rates, significant, summarise

from inpaint_jax.data.masks import square_mask
from inpaint_jax.nets.attention import masked_patch_attention
from inpaint_jax.nets.contextual import contextual_attention

METHODS: dict[str, Callable[..., jax.Array]] = {
    "loop": partial(contextual_attention, method="loop"),
    "batched": partial(contextual_attention, method="batched"),
    **{name: partial(masked_patch_attention, method=name) for name in ("unrolled", "gram", "blocked", "auto")},
}
DIRECTIONS = ("forward", "forward+backward")

# Missing part of a map; a square, so that it is the same for maps of all sizes.
HOLE = 0.27
TEMPERATURE = 0.1


def main() -> None:
    """Measures all settings, prints the table, writes JSON and draws the plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="32,64,128,256", help="sides of the feature maps")
    parser.add_argument("--batches", default="1,4,16,32")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--directions", default=",".join(DIRECTIONS))
    parser.add_argument("--channels", type=int, default=48, help="C', of one head")
    parser.add_argument("--patch-size", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=5, help="rounds in which the methods take turns")
    parser.add_argument("--time-limit", type=float, default=2, help="seconds that a call may be expected to take")
    parser.add_argument("--memory-limit", type=float, help="GiB that a program may need; half of all by default")
    parser.add_argument("--peak", type=Path, help="JSON of machine_peak.py; measured by default")
    parser.add_argument("--json", type=Path, help="also write the figures to this file, after every setting")
    parser.add_argument("--plot", type=Path, help="also draw time against batch size, as in Fig. 7")
    arguments = parser.parse_args()
    sizes, batches = ([int(n) for n in text.split(",")] for text in (arguments.sizes, arguments.batches))
    methods, directions = arguments.methods.split(","), arguments.directions.split(",")
    if unknown := set(methods) - set(METHODS) | set(directions) - set(DIRECTIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")

    peak = machine_peak.read(arguments.peak) if arguments.peak else machine_peak.measure()
    machine_peak.print_peak(peak)
    limits = Limits(arguments.time_limit, arguments.memory_limit or memory_size() / 2, peak, arguments.dtype)
    table = Table(
        {
            "map": 7,
            "batch": 5,
            "direction": 16,
            "method": 8,
            "median": 8,
            "fastest-slowest": 18,
            "memory GiB": 10,
            "GFLOP": 8,
            "GFLOP/s": 8,
            "of peak": 7,
            "of copy": 7,
            "vs loop": 7,
        }
    )
    rows: list[dict[str, Any]] = []
    result = {
        **describe_devices(),
        **describe(("jax", "jaxlib", "numpy")),
        "peak": peak,
        **{name: getattr(arguments, name) for name in ("channels", "patch_size", "dtype", "repeats", "time_limit")},
        "memory_limit_gib": significant(limits.gib),
        "hole": HOLE,
        "rows": rows,
    }
    for size in sizes:
        for batch in batches:
            for direction in directions:
                setting = Setting(size, batch, direction, arguments.channels, arguments.patch_size, arguments.dtype)
                for row in measure(setting, methods, limits, arguments.repeats):
                    rows.append(row)
                    table.row(*cells(row))
                if arguments.json:
                    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.plot:
        save_attention(result, arguments.plot)


class Setting:
    """Inputs of one comparison, and its methods as functions of them.

    Args:
        size: side of the maps.
        batch: how many.
        direction: one of DIRECTIONS.
        channels: C'.
        patch_size: s.
        dtype: of the features.
    """

    def __init__(self, size: int, batch: int, direction: str, channels: int, patch_size: int, dtype: str):
        self.size, self.batch, self.direction, self.patch_size = size, batch, direction, patch_size
        self.shape = (batch, size, size, channels)
        self.dtype = jnp.dtype(dtype)

    @property
    def name(self) -> dict[str, Any]:
        """What the setting is, for a row."""
        return {"size": self.size, "batch_size": self.batch, "direction": self.direction}

    def inputs(self) -> list[jax.Array]:
        """Features, masks, temperatures, and for the backward pass the gradient of the result."""
        rng = np.random.default_rng(0)
        masks = [square_mask(rng, self.size, self.size, math.sqrt(HOLE))[0] for _ in range(self.batch)]
        key = jax.random.key(0)
        features, gradient = (jax.random.normal(k, self.shape, self.dtype) for k in jax.random.split(key))
        made = [features, jnp.asarray(np.stack(masks), jnp.float32), jnp.full(self.batch, TEMPERATURE)]
        return made if self.direction == "forward" else [*made, gradient]

    def function(self, method: str) -> Callable[..., Any]:
        """Of the inputs; the backward pass gives the gradients by features and temperatures beside the result."""
        attend = partial(METHODS[method], patch_size=self.patch_size)
        if self.direction == "forward":
            return attend

        def both(features: jax.Array, mask: jax.Array, temperature: jax.Array, gradient: jax.Array) -> Any:
            result, pull_back = jax.vjp(lambda f, t: attend(f, mask, t), features, temperature)
            return result, pull_back(gradient)

        return both


class Limits:
    """Decides what is measured, and remembers what was.

    Args:
        seconds: of a call.
        gib: of a program.
        peak: of the machine.
        dtype: of the products.
    """

    def __init__(self, seconds: float, gib: float, peak: dict[str, Any], dtype: str):
        self.seconds, self.gib, self.peak = seconds, gib, peak
        # The products of the attention are in full precision, where there is a choice.
        self.dtype = f"{dtype} highest" if f"{dtype} highest" in peak["gflop_per_second"] else dtype
        self._last: dict[tuple[str, str], float] = {}  # seconds per (H W)^2 B

    def expected(self, setting: Setting, method: str, flops: int) -> float:
        """Seconds of a call, at a guess."""
        least = flops / self.peak["gflop_per_second"][self.dtype] / 1e9
        per_score = self._last.get((method, setting.direction), 0.0)
        return max(least, per_score * setting.size**4 * setting.batch)

    def remember(self, setting: Setting, method: str, seconds: float) -> None:
        """What the next guess is made from."""
        self._last[method, setting.direction] = seconds / (setting.size**4 * setting.batch)


def measure(setting: Setting, methods: Sequence[str], limits: Limits, repeats: int) -> list[dict[str, Any]]:
    """One row for every method: figures, or "skipped" with the reason."""
    inputs = setting.inputs()
    calls, facts, rows = {}, {}, {}
    for method in methods:
        function = setting.function(method)
        work = count(function, *inputs)
        if (expected := limits.expected(setting, method, work.flops)) > limits.seconds:
            rows[method] = {"skipped": f"would take about {format_seconds(expected)}"}
            continue
        try:
            compiled = jax.jit(function).lower(*inputs).compile()
            if (gib := program_memory(compiled)) > limits.gib:
                rows[method] = {"skipped": f"needs {gib:.1f} GiB"}
                continue
            jax.block_until_ready(compiled(*inputs))
        except jax.errors.JaxRuntimeError as error:  # a GPU may run out of memory even while it compiles
            rows[method] = {"skipped": str(error).partition("\n")[0]}
            continue
        calls[method], facts[method] = partial(compiled, *inputs), (work, gib)

    for method, times in alternate(calls, repeats, seconds=10 * limits.seconds).items():
        summary, (work, gib) = summarise(times), facts[method]
        limits.remember(setting, method, summary["fastest"])
        rows[method] = {
            "seconds": summary,
            "memory_gib": significant(gib),
            **rates(work, summary["median"], limits.peak, limits.dtype),
        }
    if "seconds" in rows.get("loop", {}):
        for method in calls:
            ratio = rows["loop"]["seconds"]["median"] / rows[method]["seconds"]["median"]
            rows[method]["times_as_fast_as_loop"] = significant(ratio, 3)
    return [{**setting.name, "method": method, **rows[method]} for method in methods]


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    size = row["size"]
    setting = [f"{size}x{size}", str(row["batch_size"]), row["direction"], row["method"]]
    if "skipped" in row:
        return [*setting, f"skipped: {row['skipped']}"]
    return [
        *setting,
        format_seconds(row["seconds"]["median"]),
        format_spread(row["seconds"]),
        f"{row['memory_gib']:.3g}",
        f"{row['gflop']:.3g}",
        f"{row['gflop_per_second']:.3g}",
        f"{row['share_of_matrix_peak']:.1%}",
        f"{row['share_of_copy_peak']:.1%}",
        f"{row['times_as_fast_as_loop']:.3g}x" if "times_as_fast_as_loop" in row else "",
    ]


if __name__ == "__main__":
    main()
