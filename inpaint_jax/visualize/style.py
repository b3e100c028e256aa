"""What all figures share: colours that colour-blind readers can tell apart, and panels that show a picture."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette."""

SEQUENTIAL = "viridis"
"""Colour map of temperatures and weights: uniform in lightness, so that it also reads in grey."""


def picture_panels(rows: int, columns: int, side: float = 2.2) -> tuple[Figure, np.ndarray]:
    """Makes a figure for pictures, without ticks.

    Args:
        rows: Number of rows of panels.
        columns: Number of columns of panels.
        side: Side of a panel, in inches.

    Returns:
        The figure, and its axes as an array [rows, columns].
    """
    figure = Figure(figsize=(side * columns, (side + 0.3) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    return figure, panels


def show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """Draws a picture pixel by pixel: [H, W] or [H, W, 3 or 4], uint8 or float in [0, 1]."""
    height, width = image.shape[:2]
    white = 255 if image.dtype == np.uint8 else 1
    axes.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="nearest", extent=(0, width, height, 0))
    if title:
        axes.set_title(title, fontsize=9)


def outline(axes: Axes, mask: np.ndarray, cell: int = 1) -> None:
    """Draws the border of a hole along its pixels, white on black to show on any photo.

    Args:
        axes: Axes that show a picture.
        mask: bool [H, W], True = missing.
        cell: Side, in pixels of the picture, of one pixel of the mask.
    """
    padded = np.pad(mask.astype(np.int8), 1)
    rows, columns = (np.argwhere(np.diff(padded, axis=axis)) for axis in (0, 1))
    edges = [[(x - 1, y), (x, y)] for y, x in rows] + [[(x, y - 1), (x, y)] for y, x in columns]
    segments = [*(cell * np.array(edges, float).reshape(-1, 2, 2))]
    for colour, width in (("black", 2.2), ("white", 1.0)):
        axes.add_collection(LineCollection(segments, colors=colour, linewidths=width, capstyle="projecting"))


def logarithmic(axis: XAxis | YAxis, lowest: float) -> None:
    """Makes an axis of temperatures logarithmic, with ticks written out: 0.01, 0.02, 0.05.

    Args:
        axis: Axis of a panel.
        lowest: The lowest temperature. If it is not above zero, a band around zero is linear.
    """
    if lowest <= 0:
        set_scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
        set_scale("symlog", linthresh=1e-3)
        return
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def number(value: float) -> str:
    """Formats a temperature or a weight for a title: 0.0042, 0.31, 12."""
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"
