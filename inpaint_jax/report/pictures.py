"""Pictures as data URIs, so that a page can hold them."""

import base64
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

_PANEL_INCHES = (4.9, 3.3)  # letters are still large enough on a phone
# Plots follow the dark mode of the browser; a viewer that does not know the rule shows them on white.
_SVG_COLOURS = """
:root { --ink: #1c1c1e; --paper: #ffffff; --grid: #b0b0b0; fill: var(--ink) }
@media (prefers-color-scheme: dark) { :root { --ink: #d8d8dc; --paper: #1b1c20; --grid: #6a6a70 } }
"""

_KEPT_BYTES = 64 * 1024  # smaller files are kept as they are
_LARGEST = (1100, 4400)  # pixels; eight samples of 256 x 256 fit
_QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture in a page.

    Attributes:
        uri: The picture as a data URI.
        alt: What it shows, for readers who do not see it.
        width: Width in CSS pixels.
        height: Height in CSS pixels.
    """

    uri: str
    alt: str
    width: int
    height: int


def panels(figure: Figure) -> list[Picture]:
    """Makes every panel of a figure a picture of its own, so that they fit below each other on a phone.

    Args:
        figure: A figure of `visualize`, a grid of panels. It is changed.

    Returns:
        SVGs that follow the colour scheme of the reader; panels without a line are left out.
    """
    every = figure.axes
    grid = every[0].get_gridspec()
    assert grid is not None  # none were placed by hand
    figure.set_size_inches(_PANEL_INCHES[0] * grid.ncols, _PANEL_INCHES[1] * grid.nrows)
    figure.draw_without_rendering()  # lays it out
    figure.set_layout_engine("none")
    return [_panel(figure, axes) for axes in every if axes.lines]


def _panel(figure: Figure, axes: Axes) -> Picture:
    for other in figure.axes:
        other.set_visible(other is axes)
    if legend := axes.get_legend():
        legend.remove()
    # The legend goes below the axes, where it covers no line.
    box = axes.get_tightbbox()
    assert box is not None  # the axes are visible
    bottom = box.transformed(axes.transAxes.inverted()).y0
    columns = 2 if max(len(str(line.get_label())) for line in axes.lines) < 24 else 1
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, bottom), ncols=columns, frameon=False)
    file = io.StringIO()
    # With a salt, the names inside are the same every time.
    with matplotlib.rc_context({"svg.hashsalt": "inpaint_jax"}):
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, name in (("#ffffff", "paper"), ("#000000", "ink"), ("#b0b0b0", "grid")):
        svg = svg.replace(colour, f"var(--{name})")
    svg = svg.replace("<defs>", f"<defs><style>{_SVG_COLOURS}</style>", 1)
    sides = (re.findall(rf'{side}="([\d.]+)pt"', svg)[0] for side in ("width", "height"))
    width, height = (round(float(side) * 96 / 72) for side in sides)
    return Picture(_uri("image/svg+xml", svg.encode()), ". ".join(_in_words(axes)), width, height)


def _in_words(axes: Axes) -> Iterator[str]:
    yield f"{axes.get_title()}, against {axes.get_xlabel()}"
    for line in axes.lines:
        values = [value for value in np.ravel(line.get_ydata()) if value is not None]
        yield f"{line.get_label()}: from {values[0]:.3g} to {values[-1]:.3g}"


def photo_sheet(path: Path, alt: str) -> Picture | None:
    """Reads a sheet of photos; a large one is shrunk and encoded as WebP.

    Args:
        path: Path of the file.
        alt: What it shows.

    Returns:
        The picture, or None if the file cannot be read: a run may be writing it, or was killed while writing it.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            assert image.format is not None  # it comes from a file
            kind = Image.MIME[image.format]
            sheet = image.convert("RGB")
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged PNGs
        return None
    if len(content) > _KEPT_BYTES:
        sheet.thumbnail(_LARGEST, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        sheet.save(file, "WEBP", quality=_QUALITY, method=4)
        kind, content = "image/webp", file.getvalue()
    return Picture(_uri(kind, content), alt, *sheet.size)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
