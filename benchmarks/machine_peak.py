"""What this machine can do at best: a matrix product in float32 and bfloat16, and a copy of memory.

    python benchmarks/machine_peak.py [--side=N] [--mebibytes=N] [--repeats=5] [--json=FILE]

The other benchmarks print their rates as shares of these; `--peak=FILE` of theirs reads that JSON instead. The fastest
call counts, on the first device. "float32" is what JAX does by default, TF32 on many GPUs; there, "float32 highest" is
full precision.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from hardware import describe, describe_devices
from timing import alternate, significant

_KINDS = {
    "float32": (jnp.float32, "default"),
    "float32 highest": (jnp.float32, "highest"),
    "bfloat16": (jnp.bfloat16, "default"),
}


def measure(side: int | None = None, mebibytes: int | None = None, repeats: int = 5) -> dict[str, Any]:
    """Best rates of the first device.

    Args:
        side: of the square matrices; 2048 on a CPU, 8192 elsewhere by default.
        mebibytes: that are copied; 256 on a CPU, 2048 elsewhere by default, so that the start of a call counts little.
        repeats: of each; they take turns.

    Returns:
        gflop_per_second: kind -> rate, and copy_gbyte_per_second, where a copied byte counts twice: read and written.
    """
    on_cpu = jax.default_backend() == "cpu"
    side, mebibytes = side or (2048 if on_cpu else 8192), mebibytes or (256 if on_cpu else 2048)
    kinds = {name: kind for name, kind in _KINDS.items() if "highest" not in name or not on_cpu}
    calls = {}
    for name, (dtype, precision) in kinds.items():
        a, b = jax.random.normal(jax.random.key(0), (2, side, side), dtype)
        calls[name] = partial(jax.jit(partial(jnp.matmul, precision=precision)), a, b)
    copy = _Copy(mebibytes * 2**20 // 4)
    calls["copy"] = copy
    for call in calls.values():
        jax.block_until_ready(call())
    fastest = {name: min(times) for name, times in alternate(calls, repeats).items()}
    return {
        "gflop_per_second": {name: significant(2 * side**3 / fastest[name] / 1e9) for name in kinds},
        "copy_gbyte_per_second": significant(8 * copy.count / fastest["copy"] / 1e9),
    }


class _Copy:
    """Copies an array of float32 into the memory of the last copy: fresh memory is slower, and another matter."""

    def __init__(self, count: int):
        self.count = count
        self._source, self._target = jnp.ones(count), jnp.zeros(count)
        self._add_one = jax.jit(lambda source, _: source + 1, donate_argnums=1, keep_unused=True)

    def __call__(self) -> jax.Array:
        self._target = self._add_one(self._source, self._target)
        return self._target


def read(file: Path) -> dict[str, Any]:
    """What `measure` gave, from the JSON of this benchmark."""
    return json.loads(file.read_text())["peak"]


def print_peak(peak: dict[str, Any]) -> None:
    """One line."""
    products = ", ".join(f"{name} {rate:.4g}" for name, rate in peak["gflop_per_second"].items())
    copy = peak["copy_gbyte_per_second"]
    print(f"measured peak of a device: matrix product {products} GFLOP/s; copy {copy:.4g} GB/s\n", flush=True)


def main() -> None:
    """Measures, prints, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, help="of the matrices; 2048 on a CPU, 8192 elsewhere by default")
    parser.add_argument("--mebibytes", type=int, help="that are copied; 256 on a CPU, 2048 elsewhere by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    peak = measure(arguments.side, arguments.mebibytes, arguments.repeats)
    if arguments.one:
        print(json.dumps(peak))
        return
    print_peak(peak)
    if arguments.json:
        result = {**describe_devices(), **describe(("jax", "jaxlib", "numpy")), "peak": peak}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
