"""The rows of an evaluation as JSON, as CSV and as a Markdown table in the form of the paper's Table IV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

_ROW_FIELDS = (
    *("method", "bin", "count", "mae", "mae_relative", "psnr", "psnr_infinite", "ssim", "fid"),
    "fid_note",
)
# Field -> heading, digits, and which end is the good one.
_BLOCKS = {
    "mae": ("MAE ↓", "{:.3f} %", min),
    "psnr": ("PSNR (dB) ↑", "{:.2f}", max),
    "ssim": ("SSIM ↑", "{:.4f}", max),
    "fid": ("FID ↓", "{:.2f}", min),
    "mae_relative": ("relative MAE ↓", "{:.4f}", min),
}

Rows = Sequence[Mapping[str, Any]]


def to_csv(rows: Rows) -> str:
    """One line a row, with all digits; what could not be computed is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _ROW_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: Rows) -> str:
    """Table IV's form: a block of bins for each metric, a column for each method, the best of a line in bold.

    Below the table stand the reasons for what is missing, and images whose PSNR is infinite.

    Args:
        rows: see `scores.summarise`.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    labels = list(dict.fromkeys(row["bin"] for row in rows))
    found = {(row["method"], row["bin"]): row for row in rows}
    counts = {label: found[methods[0], label]["count"] for label in labels}

    lines = [
        "| | mask ratio | images | " + " | ".join(_escape(method) for method in methods) + " |",
        "|---|---|--:|" + "--:|" * len(methods),
    ]
    for field, (heading, form, best_of) in _BLOCKS.items():
        if all(row[field] is None for row in rows):
            continue
        for label in labels:
            values = [found[method, label][field] for method in methods]
            shown = [None if value is None else form.format(value) for value in values]
            best = form.format(best_of(value for value in values if value is not None)) if any(shown) else None
            cells = ["–" if text is None else f"**{text}**" if text == best else text for text in shown]
            lines.append(f"| {heading} | {label} | {counts[label]} | " + " | ".join(cells) + " |")
            heading = ""
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in _notes(rows))


def _notes(rows: Rows) -> list[str]:
    notes = list(dict.fromkeys(f"FID: {row['fid_note']}" for row in rows if row["fid_note"]))
    perfect = [row for row in rows if row["psnr_infinite"]]
    notes += [
        f"PSNR: {row['psnr_infinite']} of {row['count']} images of {row['method']}, {row['bin']}, are perfect "
        "(infinite) and left out of the mean."
        for row in perfect
    ]
    return notes


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
