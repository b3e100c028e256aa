"""Scores of every completed image, and their exact means by method and mask-ratio bin."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

METRICS = ("mae", "mae_relative", "psnr", "ssim")
ALL = "all"
_COLUMNS: tuple[str, ...] = ("method", "bin", "image", "name", "mask_ratio", *METRICS)


@dataclasses.dataclass
class Scores:
    """One row for each completed image, in the order of evaluation.

    Attributes:
        rows: Dicts with the fields method, bin, image (its number), name, mask_ratio, and METRICS.
    """

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, **row: Any) -> None:
        """Appends a row."""
        self.rows.append({name: row[name] for name in _COLUMNS})

    def mean(self, method: str, label: str) -> dict[str, float | int | None]:
        """Means over the images of a bin, or over all, in float64.

        A perfectly restored image has an infinite PSNR: it is counted, and left out of that mean.

        Args:
            method: Name of the method, as added.
            label: Label of a bin, or ALL.

        Returns:
            The count, psnr_infinite (how many are infinite), and the mean of each metric, None if nothing counts.
        """
        chosen = [row for row in self.rows if row["method"] == method and label in (ALL, row["bin"])]
        psnr = np.array([row["psnr"] for row in chosen], np.float64)
        values = {metric: np.array([row[metric] for row in chosen], np.float64) for metric in METRICS}
        values["psnr"] = psnr[np.isfinite(psnr)]
        means = {name: float(found.mean()) if found.size else None for name, found in values.items()}
        return {"count": len(chosen), **means, "psnr_infinite": int(np.isinf(psnr).sum())}

    def to_csv(self) -> str:
        """All rows, with all digits."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> "Scores":
        """The inverse of `to_csv`, bit for bit."""
        types = {"image": int, "mask_ratio": float} | dict.fromkeys(METRICS, float)
        return cls(
            [{name: types.get(name, str)(row[name]) for name in _COLUMNS} for row in csv.DictReader(io.StringIO(text))]
        )


def summarise(
    scores: Scores, methods: Sequence[str], labels: Sequence[str], fid: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The table: one row for each method and bin, and one for all.

    Args:
        scores: Scores of the images.
        methods: Names of the methods, in the order of the table.
        labels: Labels of the bins.
        fid: (method, label) -> {"fid": number or None, "fid_note": text or None}.

    Returns:
        Rows with method, bin, count, mae, mae_relative, psnr, psnr_infinite, ssim, fid, fid_note.
    """
    return [
        {"method": method, "bin": label, **scores.mean(method, label), **fid[method, label]}
        for method in methods
        for label in (*labels, ALL)
    ]
