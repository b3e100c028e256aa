"""The rows of an evaluation as JSON, as CSV and as a Markdown table in the form of the paper's Table IV."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

_ROW_FIELDS = (
    *("method", "bin", "count", "mae", "mae_relative", "psnr", "psnr_infinite", "ssim", "fid"),
    "fid_note",
)
# Field -> heading, format, and which of two values is better.
_BLOCKS = {
    "mae": ("MAE ↓", "{:.3f} %", min),
    "psnr": ("PSNR (dB) ↑", "{:.2f}", max),
    "ssim": ("SSIM ↑", "{:.4f}", max),
    "fid": ("FID ↓", "{:.2f}", min),
    "mae_relative": ("relative MAE ↓", "{:.4f}", min),
}

Rows = Sequence[Mapping[str, Any]]


def to_csv(rows: Rows) -> str:
    """CSV with all digits; a figure that could not be computed is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _ROW_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table: one metric in one bin.

    Attributes:
        heading: The metric, with an arrow to its good end.
        bin: Label of the bin.
        count: Number of images.
        cells: method -> the figure as text, None if there is none.
        best: The text of the best figure of the line, None if there is none.
    """

    heading: str
    bin: str
    count: int
    cells: Mapping[str, str | None]
    best: str | None


def lines(rows: Rows) -> list[Line]:
    """The table in the form of Table IV: a block of bins for each metric that was computed, a cell for each method.

    Args:
        rows: Rows of the evaluation, see `scores.summarise`.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    labels = list(dict.fromkeys(row["bin"] for row in rows))
    found = {(row["method"], row["bin"]): row for row in rows}
    made = []
    for field, (heading, form, best_of) in _BLOCKS.items():
        if all(row[field] is None for row in rows):
            continue
        for label in labels:
            values = {method: found[method, label][field] for method in methods}
            known = [value for value in values.values() if value is not None]
            cells = {method: None if value is None else form.format(value) for method, value in values.items()}
            best = form.format(best_of(known)) if known else None
            made.append(Line(heading, label, found[methods[0], label]["count"], cells, best))
    return made


def notes(rows: Rows) -> list[str]:
    """Why figures are missing, and which images have an infinite PSNR; one sentence each.

    Args:
        rows: Rows of the evaluation, see `scores.summarise`.
    """
    found = list(dict.fromkeys(f"FID: {row['fid_note']}" for row in rows if row["fid_note"]))
    perfect = [row for row in rows if row["psnr_infinite"]]
    found += [
        f"PSNR: {row['psnr_infinite']} of {row['count']} images of {row['method']}, {row['bin']}, are perfect "
        "(infinite) and left out of the mean."
        for row in perfect
    ]
    return found


def to_markdown(rows: Rows) -> str:
    """`lines` as a Markdown table, with the best of each line in bold and `notes` below.

    Args:
        rows: Rows of the evaluation, see `scores.summarise`.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    written = [
        "| | mask ratio | images | " + " | ".join(_escape(method) for method in methods) + " |",
        "|---|---|--:|" + "--:|" * len(methods),
    ]
    above = None
    for line in lines(rows):
        heading = "" if line.heading == above else line.heading
        above = line.heading
        cells = ["–" if text is None else f"**{text}**" if text == line.best else text for text in line.cells.values()]
        written.append(f"| {heading} | {line.bin} | {line.count} | " + " | ".join(cells) + " |")
    return "\n".join(written) + "\n" + "".join(f"\n{note}\n" for note in notes(rows))


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
