"""Times of functions that take turns, and how they are summarised and printed."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from counting import Work


def alternate(
    functions: Mapping[str, Callable[[], Any]], repeats: int, *, seconds: float = math.inf
) -> dict[str, list[float]]:
    """Calls all functions in turn, round after round, so that what else the machine does falls on all of them.

    Call each once before: the first call compiles.

    Args:
        functions: name -> a call, whose result is waited for.
        repeats: rounds.
        seconds: after which no further round begins; two are made in any case, if so many are asked for.

    Returns:
        name -> seconds of every call.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    begin = time.perf_counter()
    for done in range(repeats):
        if done >= 2 and time.perf_counter() - begin > seconds:
            break
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - start)
    return times


def summarise(times: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes, rounded for reading, and how many there were."""
    low, median, high = np.percentile(times, [25, 50, 75])
    values = {"median": median, "q25": low, "q75": high, "fastest": min(times), "slowest": max(times)}
    return {name: significant(value) for name, value in values.items()} | {"calls": len(times)}


def significant(value: float, digits: int = 4) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def rates(work: Work, seconds: float, peak: Mapping[str, Any], dtype: str, devices: int = 1) -> dict[str, float]:
    """How fast counted work was done, beside what this machine was measured to do.

    Args:
        work: that was done.
        seconds: that it took.
        peak: of one device, see `machine_peak.measure`.
        dtype: of the products, whose peak is taken.
        devices: that shared the work, each with a peak of its own.

    Returns:
        counts in 1e9, rates per second, and shares of the peaks.
    """
    gflops, gbytes = work.flops / 1e9, work.bytes / 1e9
    return {
        "gflop": significant(gflops),
        "gflop_per_second": significant(gflops / seconds),
        "share_of_matrix_peak": significant(gflops / seconds / peak["gflop_per_second"][dtype] / devices, 3),
        "gbyte": significant(gbytes),
        "gbyte_per_second": significant(gbytes / seconds),
        "share_of_copy_peak": significant(gbytes / seconds / peak["copy_gbyte_per_second"] / devices, 3),
    }


class Table:
    """Prints rows as they come, in columns that are aligned to the right.

    Args:
        columns: heading -> least width; a heading needs at least its own length.
    """

    def __init__(self, columns: Mapping[str, int]):
        self._widths = [max(width, len(heading)) for heading, width in columns.items()]
        self.row(*columns)

    def row(self, *cells: str) -> None:
        """Prints one row; the last cell may be longer than its column."""
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, self._widths)), flush=True)


def format_seconds(value: float) -> str:
    """In the unit that reads best."""
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def format_spread(times: Mapping[str, float]) -> str:
    """Fastest and slowest call of a `summarise`."""
    return f"{format_seconds(times['fastest'])}-{format_seconds(times['slowest'])}"
