"""Curves of runs and evaluations, and distributions of temperatures and mask ratios."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from inpaint_jax.visualize.style import COLOURS, logarithmic


def training_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A run at a glance: losses, hole PSNR on the validation set, and the temperature of every head (Fig. 6).

    Args:
        rows: Lines of metrics.jsonl, see `writers.read_metrics`.

    Returns:
        A figure of four panels. The axis of the temperatures is as in `temperature_curves`.
    """
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    panels = figure.subplots(2, 2)
    _plot(
        panels[0, 0],
        rows,
        {
            "loss/coarse": "coarse, L1",
            "loss/refined": "refined, L1",
            "validation/loss": "validation, without the adversarial term",
        },
        title="Reconstruction",
        ylabel="loss",
    )
    _plot(
        panels[0, 1],
        rows,
        {
            "loss/discriminator": "discriminator's loss",
            "loss/feature_matching": "feature matching",
            "logit/real": "D(photo)",
            "logit/fake": "D(completed)",
            "loss/gradient_penalty": "gradient penalty, before its weight",
        },
        title="Discriminator",
        ylabel="loss, logit",
    )
    if not panels[0, 1].lines:
        panels[0, 1].set(title="No discriminator")
        panels[0, 1].set_axis_off()
    _plot(
        panels[1, 0],
        rows,
        {
            "validation/hole_psnr": "refined",
            "validation/hole_psnr_coarse": "coarse",
            "validation/hole_psnr_mean_fill": "mean colour of the known pixels",
            "validation/hole_psnr_fill": "the fill that the model starts from",
            "validation/hole_psnr_unguided": "refined, without sketches",
        },
        title="Validation: PSNR inside the hole",
        ylabel="dB",
    )
    labels = _heads(rows)
    _plot(panels[1, 1], rows, labels, title="Learned temperatures (mean over the batch)", ylabel="t")
    if panels[1, 1].lines:
        logarithmic(panels[1, 1].yaxis, _lowest(rows, labels))
    else:
        panels[1, 1].set(title="No temperatures")
        panels[1, 1].set_axis_off()
    return figure


def temperature_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The temperatures of several runs over training (Fig. 6), with a panel for each run on common axes.

    Args:
        runs: name -> lines of metrics.jsonl, see `writers.read_metrics`.

    Returns:
        A figure. The axis is logarithmic, with a linear band around zero if temperatures fall below it.
    """
    columns = min(3, max(1, len(runs)))
    rows = -(-max(1, len(runs)) // columns)
    figure = Figure(figsize=(4.3 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for (run, lines), axes in zip(runs.items(), panels):
        _plot(axes, lines, _heads(lines), title=run, ylabel="t")
    for axes in list(panels):
        axes.set_visible(False)  # unused panels of the last row
    lowest = min((_lowest(lines, _heads(lines)) for lines in runs.values()), default=1.0)
    logarithmic(figure.axes[0].yaxis, lowest)
    return figure


def metrics_by_ratio(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Each metric against the mask ratio, with a line for each method.

    Args:
        rows: Rows of an evaluation, with method, bin, mae, psnr, ssim, fid. The row "all" is left out.

    Returns:
        A figure with a panel for each metric that was computed.
    """
    shown = {"mae": "MAE (%)", "psnr": "PSNR (dB)", "ssim": "SSIM", "fid": "FID"}
    shown = {name: label for name, label in shown.items() if any(row.get(name) is not None for row in rows)}
    rows = [row for row in rows if row["bin"].startswith("(")]
    bins = sorted({row["bin"] for row in rows})
    figure = Figure(figsize=(4.6 * max(1, len(shown)), 4.2), layout="constrained")
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axes, (name, label) in zip(panels, shown.items()):
        for method, colour, marker in zip(
            dict.fromkeys(row["method"] for row in rows), itertools.cycle(COLOURS), itertools.cycle("osD^vP*")
        ):
            points = [
                (bins.index(row["bin"]), row[name]) for row in rows if row["method"] == method and row[name] is not None
            ]
            if points:
                axes.plot(*zip(*points), color=colour, marker=marker, markersize=5, linewidth=1.5, label=method)
        better = "higher is better" if name in ("psnr", "ssim") else "lower is better"
        axes.set(title=f"{label}, {better}", xlabel="mask ratio", xticks=range(len(bins)))
        axes.set_xticklabels(bins, rotation=30)
        axes.grid(alpha=0.3)
    if len(panels) and panels[0].lines:
        panels[0].legend(frameon=False)
    return figure


def temperature_distribution(ratios: np.ndarray, temperatures: np.ndarray) -> Figure:
    """The temperatures of many images: against the mask ratio, and their distribution.

    Args:
        ratios: [N], share of missing pixels.
        temperatures: [N, K], one for every head.

    Returns:
        A figure of two panels with a common axis of temperatures, as in `temperature_curves`: a point for each image,
        with the median of every tenth of the ratio, and a histogram.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    scatter, histogram = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    tenths = np.ceil(10 * ratios).astype(int)  # (0, 0.1] is the first, as in evaluations
    edges = _temperature_bins(temperatures)
    for head, colour in zip(range(temperatures.shape[1]), itertools.cycle(COLOURS)):
        values = temperatures[:, head]
        scatter.scatter(ratios, values, s=12, color=colour, alpha=0.45, linewidths=0, label=f"head {head}")
        medians = [(tenth / 10 - 0.05, np.median(values[tenths == tenth])) for tenth in np.unique(tenths)]
        scatter.plot(*zip(*medians), color=colour, marker="osD^vP*"[head % 7], markeredgecolor="black", linewidth=1.5)
        histogram.hist(values, edges, orientation="horizontal", color=colour, alpha=0.6)
    scatter.set(title="Learned temperatures by mask ratio, medians joined", xlabel="mask ratio", ylabel="t")
    histogram.set(title="their distribution", xlabel="images")
    logarithmic(scatter.yaxis, temperatures.min())
    scatter.legend(frameon=False)
    for axes in (scatter, histogram):
        axes.grid(alpha=0.3)
    return figure


def psnr_by_temperature(temperatures: np.ndarray, psnr: np.ndarray, learned: np.ndarray, learned_psnr: float) -> Figure:
    """How good a model is at temperatures set by hand, and at its own.

    Args:
        temperatures: [T], the temperatures that all heads were set to.
        psnr: [T], hole PSNR in dB, mean over the images.
        learned: [K], median of the learned temperature of each head.
        learned_psnr: Hole PSNR in dB, with the learned temperatures.

    Returns:
        a figure of one panel.
    """
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(temperatures, psnr, color=COLOURS[0], marker="o", markersize=4, label="all heads at t")
    axes.axhline(learned_psnr, color=COLOURS[1], linestyle="--", label="each head at its learned temperature")
    for head, temperature in enumerate(learned):
        if temperature > 0:
            label = "the heads' learned temperatures (medians)" if head == 0 else None
            axes.axvline(temperature, color=COLOURS[1], linewidth=1, linestyle=":", label=label)
    axes.set(title="Temperatures set by hand", xlabel="t", ylabel="hole PSNR (dB)")
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    return figure


def ratio_histogram(ratios: Mapping[str, np.ndarray]) -> Figure:
    """How much of the image the masks of each kind cover.

    Args:
        ratios: kind -> [N], share of missing pixels.

    Returns:
        A figure of one panel. The legend has the mean and the range from the 5th to the 95th percentile.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 1, 41).tolist()
    for (kind, values), colour, line in zip(
        ratios.items(), itertools.cycle(COLOURS), itertools.cycle(("-", "--", ":"))
    ):
        low, high = np.percentile(values, (5, 95))
        label = f"{kind}: mean {np.mean(values):.2f}, 5–95 % {low:.2f}–{high:.2f}"
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins, weights=weights, histtype="stepfilled", color=colour, alpha=0.25)
        axes.hist(
            values, bins, weights=weights, histtype="step", color=colour, linestyle=line, label=label, linewidth=1.6
        )
    axes.set(title="Mask ratios", xlabel="share of missing pixels", ylabel="share of the masks", xlim=(0, 0.8))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _temperature_bins(temperatures: np.ndarray) -> np.ndarray:
    """Edges of thirty bins, evenly spaced on the axis of `temperature_distribution`."""
    low, high = temperatures.min(), temperatures.max()
    if low <= 0:
        return np.linspace(low, high + 1e-12, 31)
    return np.geomspace(low / 1.05, high * 1.05, 31)


def _heads(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name of each temperature in metrics.jsonl -> its label."""
    names = sorted({name for row in rows for name in row if name.startswith("temperature/")})
    return {name: name.removeprefix("temperature/").replace("_", " ") for name in names}


def _lowest(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> float:
    """The lowest temperature that was logged as a number, or 1 if there is none."""
    return min((row[name] for row in rows for name in names if row.get(name) is not None), default=1.0)


def _plot(axes, rows, labels: Mapping[str, str], *, title: str, ylabel: str) -> None:
    for colour, (name, label) in zip(COLOURS, labels.items()):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        marker = "." if len(points) < 40 else None
        axes.plot(*zip(*points), color=colour, label=label, linewidth=1.2, marker=marker) if points else None
    axes.set(title=title, xlabel="step", ylabel=ylabel)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
