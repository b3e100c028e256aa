"""The files of an evaluation: their names, and how they are written."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inpaint_jax import visualize
from inpaint_jax.errors import UserError
from inpaint_jax.evaluation import tables
from inpaint_jax.evaluation.scores import Scores
from inpaint_jax.files import write_file

_METRICS = "metrics.json"
_SHEET = "sheet.png"
_PLOT = "metrics_by_ratio.png"
RESERVED = ("truth", "mask", "input")  # columns of the sheet, and folders of images/, that are not methods
_TABLES = ("metrics.csv", "table.md", "images.csv")


def write(
    folder: Path,
    identity: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    scores: Scores,
    sheet: np.ndarray | None,
) -> None:
    """Writes pictures and tables, and last metrics.json, which marks a finished run.

    Args:
        folder: Folder of the evaluation.
        identity: What the figures depend on; becomes "settings" in metrics.json.
        rows: The table.
        scores: Scores of every image.
        sheet: uint8 [height, width, 3], or None.
    """
    if sheet is not None:
        Image.fromarray(sheet).save(folder / _SHEET)
    visualize.metrics_by_ratio(rows).savefig(folder / _PLOT, dpi=100)
    document = json.dumps({"settings": identity, "rows": list(rows)}, indent=2) + "\n"
    texts = (tables.to_csv(rows), tables.to_markdown(rows), scores.to_csv(), document)
    for name, text in zip((*_TABLES, _METRICS), texts):
        write_file(folder / name, text)


def check_not_of_another(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuses a folder in which tables and pictures of two evaluations would mix.

    Raises:
        UserError: The folder holds an evaluation with other settings.
    """
    path = folder / _METRICS
    if path.exists() and (differing := differences(_settings(path), identity)):
        raise UserError(
            f"{folder} holds an evaluation with other settings ({'; '.join(differing)}); give another --output, or "
            "delete it."
        )


def withdraw(folder: Path) -> None:
    """Removes the results of an earlier evaluation with the same settings, before new ones are written."""
    for name in (_METRICS, *_TABLES, _SHEET, _PLOT):
        (folder / name).unlink(missing_ok=True)


def is_finished(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the folder holds the results of this evaluation."""
    path = folder / _METRICS
    return path.exists() and not differences(_settings(path), identity)


def _settings(path: Path) -> dict[str, Any]:
    return _document(path)["settings"]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The table of a finished evaluation.

    Raises:
        FileNotFoundError: There is no finished evaluation.
        UserError: The evaluation is damaged.
    """
    return _document(folder / _METRICS)["rows"]


def _document(path: Path) -> dict[str, Any]:
    """What metrics.json holds: "settings" and "rows"."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document["settings"], dict) or not isinstance(document["rows"], list):
            raise ValueError("no settings or no rows")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it, or give another --output.") from error
    return document


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences between two evaluations, as "seed: 0 there, 1 now"."""
    new = json.loads(json.dumps(new))
    return [
        f"{name}: {old.get(name)!r} there, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def save_images(
    folder: Path,
    where: Mapping[str, Any],
    truth: np.ndarray,
    mask: np.ndarray,
    completed: Mapping[str, np.ndarray],
) -> None:
    """Writes images/<method>/<bin>/<number>_<name>.png, and images/mask/... (white = missing), images/truth/....

    Args:
        folder: Folder of the evaluation.
        where: The bin, image (number) and name.
        truth: uint8 [H, W, 3].
        mask: bool [H, W].
        completed: method -> uint8 [H, W, 3].
    """
    name = f"{where['image']:06d}_{plain(Path(where['name']).stem)}.png"
    label = plain(where["bin"])
    pictures = {f"truth/{name}": truth, f"mask/{label}/{name}": np.uint8(255) * mask}
    pictures |= {f"{plain(method)}/{label}/{name}": image for method, image in completed.items()}
    for path, image in pictures.items():
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "images" / path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz in one piece or not at all."""
    write_file(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def plain(text: str) -> str:
    """A label as a file name: "(0.0, 0.1]" -> "0.0-0.1"."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")
