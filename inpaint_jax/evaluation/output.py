"""The files of an evaluation: what they are called, and how they are written in one piece or not at all."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inpaint_jax.evaluation import tables
from inpaint_jax.evaluation.scores import Scores

_METRICS = "metrics.json"


def write(folder: Path, identity: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], scores: Scores) -> None:
    """Writes the figures: metrics.csv, table.md, images.csv, and at last metrics.json, the sign of a finished run.

    Args:
        folder: of the evaluation.
        identity: what the figures depend on; becomes "settings" in metrics.json.
        rows: the table.
        scores: of every image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps({"settings": identity, "rows": list(rows)}, indent=2) + "\n"
    for name, text in (
        ("metrics.csv", tables.to_csv(rows)),
        ("table.md", tables.to_markdown(rows)),
        ("images.csv", scores.to_csv()),
        (_METRICS, document),
    ):
        fresh = folder / f"{name}.tmp"
        fresh.write_text(text)
        os.replace(fresh, folder / name)


def is_finished(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the folder holds the figures of this very evaluation."""
    path = folder / _METRICS
    return path.exists() and not differences(json.loads(path.read_text())["settings"], identity)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The table of a finished evaluation.

    Raises:
        FileNotFoundError: there is none.
    """
    return json.loads((folder / _METRICS).read_text())["rows"]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two evaluations differ, as "seed: 0 there, 1 now"."""
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
    """Writes images/<method>/<bin>/<number>_<name>.png, besides images/mask/... (white = missing) and images/truth/....

    Args:
        folder: of the evaluation.
        where: bin, image (number) and name.
        truth: uint8 [H, W, 3].
        mask: bool [H, W].
        completed: method -> uint8 [H, W, 3].
    """
    name = f"{where['image']:06d}_{_plain(Path(where['name']).stem)}.png"
    label = _plain(where["bin"])
    pictures = {f"truth/{name}": truth, f"mask/{label}/{name}": np.uint8(255) * mask}
    pictures |= {f"{_plain(method)}/{label}/{name}": image for method, image in completed.items()}
    for path, image in pictures.items():
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "images" / path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz in one piece or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with fresh.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(fresh, path)


def _plain(text: str) -> str:
    """A file name of a label: "(0.0, 0.1]" -> "0.0-0.1"."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")
