"""Plots of the benchmarks' figures."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from timing import format_seconds

from inpaint_jax.visualize import COLOURS

_MARKERS = "osD^vP*X"


def save_attention(result: Mapping[str, Any], file: Path) -> None:
    """Time against batch size, a line for each method: a column for each map size, a row for each direction.

    Args:
        result: of attention.py; what was skipped is absent.
        file: to write, a PNG.
    """
    rows = result["rows"]
    sizes, directions, methods = (
        [*dict.fromkeys(row[name] for row in rows)] for name in ("size", "direction", "method")
    )
    measured = [row for row in rows if "seconds" in row]
    figure = Figure(figsize=(3.6 * len(sizes) + 1.4, 3.2 * len(directions) + 0.6), layout="constrained")
    panels = figure.subplots(len(directions), len(sizes), squeeze=False, sharex=True)
    for axes_of_direction, direction in zip(panels, directions):
        for axes, size in zip(axes_of_direction, sizes):
            here = [row for row in measured if (row["size"], row["direction"]) == (size, direction)]
            lines = {name: [row for row in here if row["method"] == name] for name in methods}
            _lines(axes, lines, x="batch_size", y=lambda row: row["seconds"], order=methods)
            axes.set(title=f"{size} × {size}, {direction}")
            _batch_axis(axes, [row["batch_size"] for row in rows])
            if here:
                _seconds_axis(axes)
            else:
                axes.set_yticks([])
                axes.text(0.5, 0.5, "beyond the limits", ha="center", transform=axes.transAxes)
        axes_of_direction[0].set_ylabel("time of a call")
    for axes in panels[-1]:
        axes.set_xlabel("batch size")
    handles = {line.get_label(): line for axes in panels.flat for line in axes.containers}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    figure.suptitle(f"Attention alone, {result['channels']} channels, {result['dtype']}, {result['device']}")
    figure.savefig(file, dpi=120, format="png")


def save_inpainting(result: Mapping[str, Any], file: Path) -> None:
    """Seconds and memory of filling a hole, against the number of pixels.

    Args:
        result: of inpainting.py.
        file: to write, a PNG.
    """
    rows = [{**row, "pixels": _pixels(row["size"])} for row in result["sizes"]]
    batches = sorted({row["batch_size"] for row in rows})
    lines = {f"batch {n}": [row for row in rows if row["batch_size"] == n] for n in batches}
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    time, memory = figure.subplots(1, 2)
    _lines(time, lines, x="pixels", y=lambda row: row["seconds"])
    on_device = all(row["device_memory_peak_gib"] is not None for row in rows)
    kind = "device" if on_device else "host"
    _lines(memory, lines, x="pixels", y=lambda row: _exactly(row[f"{kind}_memory_peak_gib"]))
    _seconds_axis(time)
    time.set(ylabel="time of a call", title="Time")
    memory.set(ylabel="GiB", title=f"Peak memory of the process ({kind})", ylim=(0, None))
    ticks = {row["pixels"]: row["size"].replace("x", " × ") for row in rows}
    for axes in (time, memory):
        axes.set(xscale="log", xlabel="pixels")
        axes.set_xticks([*ticks], [*ticks.values()], rotation=30)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(frameon=False)
    figure.suptitle(f"Filling a hole, w = {result['width']}, {result['device']}")
    figure.savefig(file, dpi=120, format="png")


def save_train_step(result: Mapping[str, Any], file: Path) -> None:
    """Images a second against batch size, and batches a minute, a line for each dtype, device count and loss.

    Args:
        result: of train_step.py.
        file: to write, a PNG.
    """
    rows = result["rows"]
    names = ("dtype", "devices", "adversarial")
    lines: dict[str, list] = {}
    for row in rows:
        label = f"{row['dtype']}, {row['devices']} device{'s' * (row['devices'] > 1)}, {row['adversarial']}"
        lines.setdefault(label, []).append(row)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    images, batches = figure.subplots(1, 2)
    _lines(images, lines, x="batch_size", y=lambda row: _rate(row["seconds_per_step"], row["batch_size"]))
    _lines(batches, lines, x="batch_size", y=lambda row: _rate(row["seconds_per_step"], 60))
    images.set(title="Images a second", ylabel="images/s")
    batches.set(title="Batches a minute", ylabel="batches/min")
    for axes in (images, batches):
        axes.set(xlabel="batch size", ylim=(0, None))
        _batch_axis(axes, [row["batch_size"] for row in rows])
    images.legend(frameon=False, title=", ".join(names))
    figure.suptitle(f"Training step, {result['size']} × {result['size']}, w = {result['width']}, {rows[0]['device']}")
    figure.savefig(file, dpi=120, format="png")


def _lines(axes: Axes, lines: Mapping[str, Sequence[Mapping]], *, x: str, y, order: Iterable[str] = ()) -> None:
    """Medians, with bars from the fastest to the slowest call; the same colour for the same name in every panel."""
    for name, colour, marker in zip(order or lines, itertools.cycle(COLOURS), itertools.cycle(_MARKERS)):
        rows = sorted(lines[name], key=lambda row: row[x])
        if not rows:
            continue
        values = [y(row) for row in rows]
        middle = [value["median"] for value in values]
        below = [value["median"] - value["fastest"] for value in values]
        above = [value["slowest"] - value["median"] for value in values]
        style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.4, "capsize": 2}
        axes.errorbar([row[x] for row in rows], middle, yerr=[below, above], label=name, **style)
    axes.grid(alpha=0.3)


def _batch_axis(axes: Axes, batches: Iterable[int]) -> None:
    ticks = sorted(set(batches))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def _seconds_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda seconds, _: format_seconds(seconds))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _rate(seconds: Mapping[str, float], times: float) -> dict[str, float]:
    """Of a summary of seconds; the slowest call has the smallest rate."""
    return {
        "median": times / seconds["median"],
        "fastest": times / seconds["slowest"],
        "slowest": times / seconds["fastest"],
    }


def _exactly(value: float) -> dict[str, float]:
    return {"median": value, "fastest": value, "slowest": value}


def _pixels(size: str) -> int:
    width, height = size.split("x")
    return int(width) * int(height)
