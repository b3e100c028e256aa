"""Pictures of results and runs. Functions return arrays or matplotlib figures; they save nothing."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_MARGIN = 4
_HEADING = 22


def image_sheet(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pictures side by side, one row a sample, with a heading over every column; pixels are shown one to one.

    Args:
        columns: heading -> [N, H, W, 3], uint8, or float in [0, 1]; all of the same shape.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: the columns differ in shape.
    """
    shapes = {name: np.shape(images) for name, images in columns.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"All columns of a sheet must have one shape, not {shapes}.")
    count, height, width, _ = next(iter(shapes.values()))
    sheet = Image.new(
        "RGB", (len(columns) * (width + _MARGIN) + _MARGIN, _HEADING + count * (height + _MARGIN)), "white"
    )
    draw, font = ImageDraw.Draw(sheet), _heading_font(columns, width)
    for column, (name, images) in enumerate(columns.items()):
        left = _MARGIN + column * (width + _MARGIN)
        draw.text((left + width / 2, _HEADING / 2), name, fill="black", font=font, anchor="mm")
        for row, image in enumerate(np.asarray(images)):
            sheet.paste(Image.fromarray(_to_bytes(image)), (left, _HEADING + row * (height + _MARGIN)))
    return np.asarray(sheet)


def network_input(
    images: np.ndarray, masks: np.ndarray, colour: np.ndarray, sketches: np.ndarray | None = None
) -> np.ndarray:
    """What a generator is given, as pictures: holes in one colour, and the lines of the sketches in them white.

    Args:
        images: [N, H, W, 3], uint8, or float in [0, 1].
        masks: bool [N, H, W], True = missing.
        colour: [3] of the holes, of the images' type.
        sketches: bool [N, H, W], True = line.

    Returns:
        of the images' shape and type.
    """
    images = np.where(masks[..., None], colour, images)
    if sketches is None:
        return images
    white = images.dtype.type(255 if images.dtype == np.uint8 else 1)
    return np.where((masks & sketches)[..., None], white, images)


def _heading_font(headings: Iterable[str], width: int) -> ImageFont.FreeTypeFont:
    """The largest in which all headings fit over their columns; 8 px can be read, if only just."""
    for size in range(14, 8, -1):
        font = ImageFont.load_default(size=size)
        if max(font.getlength(heading) for heading in headings) <= width:
            return font
    return ImageFont.load_default(size=8)


def training_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A run at one glance: losses, hole PSNR on the validation set, and the temperature of every head (Fig. 6).

    Args:
        rows: the lines of metrics.jsonl, see `writers.read_metrics`.

    Returns:
        a figure of four panels.
    """
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    panels = figure.subplots(2, 2)
    temperatures = sorted({name for row in rows for name in row if name.startswith("temperature/")})
    _plot(
        panels[0, 0],
        rows,
        {
            "loss/coarse": "coarse, L1",
            "loss/refined": "refined, L1",
            "validation/loss": "validation (eq. 6 without its adversarial term)",
        },
        title="Reconstruction",
        ylabel="loss",
    )
    _plot(
        panels[0, 1],
        rows,
        {
            "loss/discriminator": "discriminator's loss",
            "logit/real": "D(photo)",
            "logit/fake": "D(completed)",
            "loss/gradient_penalty": "gradient penalty, before its weight",
        },
        title="Discriminator",
        ylabel="loss, logit",
    )
    _plot(
        panels[1, 0],
        rows,
        {
            "validation/hole_psnr": "refined",
            "validation/hole_psnr_coarse": "coarse",
            "validation/hole_psnr_mean_fill": "mean colour of the known pixels",
            "validation/hole_psnr_imagenet_fill": "ImageNet's mean colour",
        },
        title="Validation: PSNR inside the hole",
        ylabel="dB",
    )
    labels = {name: name.removeprefix("temperature/").replace("_", " ") for name in temperatures}
    _plot(panels[1, 1], rows, labels, title="Learned temperatures (mean over the batch)", ylabel="t")
    if panels[1, 1].lines:
        panels[1, 1].set_yscale("log")
    return figure


def temperature_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The temperatures of several runs over training, a panel for each run on common axes (Fig. 6).

    Args:
        runs: name -> lines of metrics.jsonl, see `writers.read_metrics`.

    Returns:
        a figure; the axis is logarithmic, but for a band around zero where a run's temperatures reach below it.
    """
    columns = min(3, max(1, len(runs)))
    rows = -(-max(1, len(runs)) // columns)
    figure = Figure(figsize=(4.3 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    lowest = 1.0
    for (run, lines), axes in zip(runs.items(), panels):
        names = sorted({name for line in lines for name in line if name.startswith("temperature/")})
        labels = {name: name.removeprefix("temperature/").replace("_", " ") for name in names}
        _plot(axes, lines, labels, title=run, ylabel="t")
        lowest = min([lowest, *(line[name] for line in lines for name in names if name in line)])
    for axes in list(panels):
        axes.set_visible(False)  # what is left over of the last row
    if lowest > 0:
        figure.axes[0].set_yscale("log")
    else:
        figure.axes[0].set_yscale("symlog", linthresh=1e-3)
    return figure


def metrics_by_ratio(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Each metric against the mask ratio, a line for each method.

    Args:
        rows: of an evaluation, with method, bin, mae, psnr, ssim, fid; the row "all" is left out.

    Returns:
        a figure with a panel for each metric that was computed.
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


def _plot(axes, rows, labels: Mapping[str, str], *, title: str, ylabel: str) -> None:
    for colour, (name, label) in zip(COLOURS, labels.items()):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        marker = "." if len(points) < 40 else None
        axes.plot(*zip(*points), color=colour, label=label, linewidth=1.2, marker=marker) if points else None
    axes.set(title=title, xlabel="step", ylabel=ylabel)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
