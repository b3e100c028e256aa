"""What the files of a workdir say about its run. Only reads them, so a run in progress is not disturbed."""

import dataclasses
import json
import math
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inpaint_jax import writers
from inpaint_jax.errors import UserError
from inpaint_jax.evaluation import tables
from inpaint_jax.runs import read_config

_EVALUATION_FILE = "metrics.json"
_UNFINISHED_FILE = "unfinished.npz"
# The settings of an evaluation that a reader asks for first.
_SETTINGS = {
    "images": "{} images",
    "data": "{}",
    "limit": "of these the first {}",
    "size": "{0} × {0}",
    "masks": "masks: {}",
    "seed": "seed {}",
}
# These folders hold thousands of files and no evaluation.
_NOT_SEARCHED = ("checkpoints", "samples", "sketches", "images")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        name: Path of its folder, relative to the workdir if it lies below it.
        folder: The folder itself, to open files in.
        about: Images, masks and models, in one line.
        rows: The table, as in metrics.json.
        lines: The table as text, see `tables.lines`.
        notes: Notes to print below the table.
    """

    name: str
    folder: Path
    about: str
    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[tables.Line]
    notes: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, as far as it has come, from its files.

    Attributes:
        name: Name of the config.
        folder: Name of the workdir.
        config: section -> field -> value. The section "" holds the fields outside of sections.
        parameters: network -> number of parameters; empty if the run has not written them yet.
        rows: Lines of metrics.jsonl.
        sheets: (step, file) of the validation sheets, by rising step.
        environments: Lines of environment.jsonl.
        evaluations: Finished evaluations.
        remarks: What was found but is not shown, one sentence each.
    """

    name: str
    folder: str
    config: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, int]
    rows: Sequence[Mapping[str, Any]]
    sheets: Sequence[tuple[int, Path]]
    environments: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Evaluation]
    remarks: Sequence[str]

    @property
    def validations(self) -> list[Mapping[str, Any]]:
        """The rows that hold a validation."""
        return [row for row in self.rows if row.get("validation/loss") is not None]

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The row of the validation whose checkpoint is the best one."""
        return writers.best_validation(self.rows, self.select_by)

    @property
    def select_by(self) -> str:
        """The figure of the validation that chooses the best checkpoint."""
        return self.config.get("train", {}).get("select_by", "loss")

    def state(self) -> str:
        """How far the run has come, in a sentence or two. No file says whether it is running now."""
        if not self.rows:
            return "Nothing is logged yet."
        schedule = self.config.get("train", {})
        step, epoch = self.rows[-1]["step"], self.rows[-1]["epoch"]
        limit = schedule.get("max_steps")
        validated = self.validations[-1] if self.validations else None
        if validated and limit and validated["step"] >= limit:
            return f"Finished: the limit of {limit:,} steps is reached."
        if validated and (best := self.best):
            stale_epochs, stale_steps = (validated[unit] - best[unit] for unit in ("epoch", "step"))
            # Epochs are rounded in the log.
            patient = stale_epochs < schedule.get("patience_epochs", math.inf) - 1e-3
            if not patient or stale_steps >= (schedule.get("patience_steps") or math.inf):
                return f"Finished: the validation's {self.select_by} has not fallen for {stale_epochs:.1f} epochs."
        to_go = f" of at most {limit:,}" if limit else ""
        return f"Not finished: step {step:,}{to_go} is logged, epoch {epoch:.1f}. The same inpaint-jax train goes on."

    def training_seconds(self) -> float | None:
        """Time of the training steps by their logged speed, without validating, saving and compiling."""
        batch_size = self.config.get("", {}).get("batch_size")
        rows = [row for row in self.rows if row.get("images_per_second")]
        if not rows or not batch_size:
            return None
        steps = [b["step"] - a["step"] for a, b in zip([{"step": 0}, *rows], rows)]
        return sum(count * batch_size / row["images_per_second"] for count, row in zip(steps, rows))

    def speed(self) -> float | None:
        """Images per second, the median of the log."""
        speeds = [row["images_per_second"] for row in self.rows if row.get("images_per_second")]
        return statistics.median(speeds) if speeds else None

    def memory_peak(self) -> float | None:
        """Peak host memory of the main process, in GiB."""
        return max((row["host_memory_peak_gib"] for row in self.rows if row.get("host_memory_peak_gib")), default=None)


def gather(workdir: str | Path, evaluations: Sequence[str | Path] = ()) -> Run:
    """Reads a workdir.

    Args:
        workdir: Workdir of a training run, however far it has come.
        evaluations: Folders written by `inpaint-jax evaluate`; those below the workdir by default.

    Raises:
        UserError: There is no such run, one of its files is damaged, or a named folder holds no evaluation.
    """
    workdir = Path(workdir)
    config = _config(workdir)
    remarks: list[str] = []
    if evaluations:
        found = [_evaluation(Path(folder), str(folder)) for folder in evaluations]
    else:
        found = list(_evaluations_below(workdir, remarks))
    flat = {name: value for name, value in config.items() if not isinstance(value, Mapping)}
    return Run(
        name=str(config.get("name", "run")),
        folder=workdir.resolve().name,
        config={"": flat} | {name: value for name, value in config.items() if isinstance(value, Mapping)},
        parameters=_parameters(workdir),
        # Neither is there where the run has just begun.
        rows=writers.read_metrics(workdir) if (workdir / writers.METRICS_FILE).exists() else [],
        sheets=_sheets(workdir),
        environments=writers.read_lines(started) if (started := workdir / writers.ENVIRONMENT_FILE).exists() else [],
        evaluations=found,
        remarks=remarks,
    )


def thin_out(count: int, limit: int, always: Sequence[int] = ()) -> list[int]:
    """Chooses from things in a row: the first, the last, and more at the start, where a run changes fastest.

    Args:
        count: Number of things.
        limit: How many to choose, 2 or more.
        always: Positions to choose in any case, in place of their neighbours.

    Returns:
        Rising positions from 0: at most `limit`, and those of `always`.
    """
    if count <= limit:
        return list(range(count))
    # Squares; max() keeps positions apart where these lie closer together than one.
    chosen = [max(number, int((count - 1) * (number / (limit - 1)) ** 2 + 0.5)) for number in range(limit)]
    for position in always:
        if position not in chosen:
            nearest = min(chosen[1:-1], key=lambda other: abs(other - position), default=None)
            chosen = sorted({position, *chosen} - {nearest})
    return chosen


def _config(workdir: Path) -> dict[str, Any]:
    if workdir.is_file():
        raise UserError(
            f"{workdir} is a file, and an exported model has no history; give the workdir of its training run."
        )
    return read_config(workdir).to_dict()


def _parameters(workdir: Path) -> dict[str, int]:
    path = workdir / "parameters.txt"
    if not path.is_file():
        return {}
    text = path.read_text(errors="replace")
    found = re.findall(r"^(\w+)\n\+-.*?^Total: ([\d,]+)", text, re.MULTILINE | re.DOTALL)
    return {name: int(count.replace(",", "")) for name, count in found}


def _sheets(workdir: Path) -> list[tuple[int, Path]]:
    files = (workdir / writers.SAMPLES_FOLDER).glob("step_*.png")
    return sorted((int(match[1]), path) for path in files if (match := re.fullmatch(r"step_(\d+)", path.stem)))


def _evaluations_below(workdir: Path, remarks: list[str]) -> Iterator[Evaluation]:
    for folder, inner, files in os.walk(workdir):
        inner[:] = sorted(name for name in inner if name not in _NOT_SEARCHED)
        name = os.path.relpath(folder, workdir)
        if _UNFINISHED_FILE in files:
            remarks.append(f"The evaluation in {name} is not finished: inpaint-jax evaluate --resume goes on.")
        elif _EVALUATION_FILE in files:
            try:
                yield _evaluation(Path(folder), name)
            except UserError as error:
                remarks.append(str(error))


def _evaluation(folder: Path, name: str) -> Evaluation:
    path = folder / _EVALUATION_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} holds no finished evaluation; give the --output of an inpaint-jax evaluate that has ended."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows, settings = document["rows"], document["settings"]
        about = [form.format(settings[key]) for key, form in _SETTINGS.items() if settings.get(key) is not None]
        about += [f"{model} at step {found['step']}" for model, found in settings.get("models", {}).items()]
        return Evaluation(name, folder, ", ".join(about), rows, tables.lines(rows), tables.notes(rows))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"The evaluation in {name} is damaged; run its inpaint-jax evaluate again.") from error
