"""Where numbers and pictures of a run go: metrics.jsonl, environment.jsonl, samples/, and events for TensorBoard.

The only place that knows tensorboardX, which writes events without TensorFlow.
"""

import datetime
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from inpaint_jax.errors import MissingFile, UserError
from inpaint_jax.files import write_file

_log = logging.getLogger("inpaint_jax")

METRICS_FILE = "metrics.jsonl"
ENVIRONMENT_FILE = "environment.jsonl"
SAMPLES_FOLDER = "samples"


class RunWriter:
    """Writes what a run says about itself into its workdir.

    Args:
        workdir: the folder of the run.
        first_step: where the run starts or goes on. What an interrupted run wrote about later steps, and will
            write again, is dropped from metrics.jsonl, and so are lines that a power cut, say, has damaged.
    """

    def __init__(self, workdir: str | Path, first_step: int):
        self._workdir = Path(workdir)
        (self._workdir / SAMPLES_FOLDER).mkdir(parents=True, exist_ok=True)
        path = self._workdir / METRICS_FILE
        if path.exists():
            rows = list(_rows(path))
            if damaged := [str(number) for number, row in rows if not _has_numbers(row)]:
                numbers = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
                _log.warning("Dropped %d damaged line(s) of %s: %s", len(damaged), path, numbers)
            kept = [row for _, row in rows if _has_numbers(row) and row["step"] <= first_step]
            write_file(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a")
        self._events = SummaryWriter(str(self._workdir), purge_step=first_step + 1 if first_step else None)

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Appends one line to metrics.jsonl, {"step": …, "epoch": …, name: value, …}, and tells TensorBoard.

        Args:
            step: steps done.
            epoch: the same in passes over the data.
            values: name -> number. What is not finite is written as null, which JSON can say.
        """
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "epoch": round(epoch, 4), **row}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def write_sheet(self, step: int, sheet: np.ndarray) -> Path:
        """Saves a sample sheet as samples/step_00001234.png.

        Args:
            step: steps done.
            sheet: uint8 [H, W, 3].

        Returns:
            the file.
        """
        path = self._workdir / SAMPLES_FOLDER / f"step_{step:08d}.png"
        Image.fromarray(sheet).save(path)
        self._events.add_image("samples", sheet, step, dataformats="HWC")
        return path

    def write_environment(self, step: int, environment: Mapping[str, Any]) -> None:
        """Appends one line to environment.jsonl, {"step": …, "time": …, name: value, …}.

        Args:
            step: that the run starts or goes on from.
            environment: what it does so with, as JSON can hold it.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with (self._workdir / ENVIRONMENT_FILE).open("a") as file:
            file.write(json.dumps({"step": step, "time": now, **environment}) + "\n")

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._events.close()


def read_metrics(workdir: str | Path) -> list[dict]:
    """The lines of a run's metrics.jsonl; a last line that a killed run left unfinished is passed over.

    Args:
        workdir: the folder of the run.

    Returns:
        one dict a line: step, epoch, and name -> number or None.

    Raises:
        MissingFile: the folder holds no metrics.jsonl.
        UserError: a line of it is damaged.
    """
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        raise MissingFile(f"{workdir} holds no {METRICS_FILE}; give the workdir of a training run.")
    rows = read_lines(path)
    for number, row in enumerate(rows, 1):
        if not _has_numbers(row):
            raise _damaged(path, number)
    return rows


def read_lines(path: str | Path) -> list[dict]:
    """The lines of a log, JSON objects with a step; a last line without an end is passed over.

    Args:
        path: of the file.

    Raises:
        UserError: a line is damaged.
    """
    rows = []
    for number, row in _rows(path):
        if row is None:
            raise _damaged(path, number)
        rows.append(row)
    return rows


def _rows(path: str | Path) -> Iterator[tuple[int, dict | None]]:
    """Number and content of every line but an unfinished last one; None for what is no JSON object with a step."""
    content = Path(path).read_bytes()
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        sound = isinstance(row, dict) and type(row.get("step")) is int and row["step"] >= 0
        yield number, row if sound else None


def _has_numbers(row: dict | None) -> TypeGuard[dict]:
    """Whether a row is one of metrics.jsonl: an epoch, and nothing but numbers and None."""
    return (
        row is not None
        and row.get("epoch") is not None
        and all(value is None or (_is_number(value) and math.isfinite(value)) for value in row.values())
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _damaged(path: str | Path, line: int) -> UserError:
    return UserError(f"{path} is damaged in line {line}; remove that line.")


def best_validation(rows: Iterable[Mapping[str, Any]], select_by: str = "loss") -> Mapping[str, Any] | None:
    """The row of the validation whose checkpoint is the best one; None without a validation.

    Args:
        rows: of `read_metrics`.
        select_by: the run's config.train.select_by.
    """
    if select_by == "last":
        return max((row for row in rows if "validation/loss" in row), key=lambda row: row["step"], default=None)
    name = f"validation/{select_by}"
    return min((row for row in rows if row.get(name) is not None), key=lambda row: row[name], default=None)
