"""What is saved and how it comes back. Knows orbax; knows nothing of training.

A checkpoint is a step folder with three items that can be restored apart:

    generator   the generator's parameters, all that inference needs
    rest        whatever else the next step depends on
    progress    a few Python numbers, as JSON

The latest checkpoint is kept to go on from, the best one to use. A save runs in the background into a temporary
folder that is renamed at the end, so a killed run leaves a whole checkpoint or none. One that a disk or a person has
damaged is moved aside, and the one before is gone on from.
"""

import contextlib
import errno
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from inpaint_jax import devices
from inpaint_jax.errors import MissingFile, UserError
from inpaint_jax.files import write_file

_FOLDER = "checkpoints"
_METRIC = "score"
_LONGEST_REASON = 200  # characters
_log = logging.getLogger("inpaint_jax")

# Orbax logs every stage of every save, and warns whenever a save has no metrics, as most of ours, and of what
# read_only changes.
_NOISE = ("tracked_metric", "read_only", "is read only", "Metadata file does not exist")
logging.getLogger("absl").addFilter(
    lambda record: (
        "orbax" not in record.pathname
        or (record.levelno >= logging.WARNING and not any(words in record.getMessage() for words in _NOISE))
    )
)
# Of a damaged checkpoint, the first array that cannot be read is an error of ours; tasks of other arrays die unheard.
logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())


class Checkpoints:
    """The checkpoints of one workdir. Close it, or use it in a `with`: an unfinished save is lost otherwise.

    Args:
        workdir: the folder of the run.
    """

    def __init__(self, workdir: str | Path):
        self.folder = Path(workdir).absolute() / _FOLDER
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(
                [
                    LatestN(1),
                    # reverse: BestN keeps the largest, and here the smallest score is the best.
                    BestN(get_metric_fn=_score, reverse=True, n=1, keep_checkpoints_without_metrics=False),
                ]
            ),
            # Without best_fn the metrics are not written down, and a restarted run would not know its best.
            best_fn=_score,
            best_mode="min",
            cleanup_tmp_directories=True,
        )
        # The manager reads all scores, and would see no checkpoint at all because of one.
        steps = [int(path.name) for path in self.folder.glob("*") if path.name.isdecimal()]
        damaged = [step for step in steps if not _has_sound_score(self.folder / str(step))]
        if 0 < len(damaged) < len(steps):
            self._move_aside(damaged, "its score is damaged")
        with _sentence_for_damage(self.folder):
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """The step to go on from, None in a fresh workdir."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        *,
        generator: Any,
        rest: Any,
        progress: Mapping[str, Any],
        score: float | None = None,
    ) -> None:
        """Starts to save a checkpoint in the background; arrays are copied first, so the caller may donate them.

        Args:
            step: its name.
            generator: parameters.
            rest: any tree of arrays.
            progress: what JSON can hold.
            score: of a validation, lower is better; None if the step was not validated.

        Raises:
            RuntimeError: a checkpoint of this step exists already.
        """
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                generator=ocp.args.StandardSave(generator),
                rest=ocp.args.StandardSave(rest),
                progress=ocp.args.JsonSave(dict(progress)),
            ),
            metrics=None if score is None else {_METRIC: float(score)},
            force=True,
        )
        if not saved:
            raise RuntimeError(f"Step {step} was not saved into {self.folder}: there is a checkpoint of it already.")

    def restore(self, step: int, *, generator: Any, rest: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Brings a checkpoint back.

        Args:
            step: its name.
            generator: a tree like the saved one, of arrays or of ShapeDtypeStructs with shardings.
            rest: likewise.

        Returns:
            generator, rest and progress.

        Raises:
            UserError: a file of it is damaged, or the trees differ from the saved ones.
        """
        with _sentence_for_damage(self.folder / str(step)):
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    generator=ocp.args.StandardRestore(generator),
                    rest=ocp.args.StandardRestore(rest),
                    progress=ocp.args.JsonRestore(),
                ),
            )
        return restored["generator"], restored["rest"], restored["progress"]

    def restore_latest(self, *, generator: Any, rest: Any) -> tuple[int, Any, Any, dict[str, Any]] | None:
        """Brings back the newest checkpoint that is whole, and moves aside those that are newer.

        Args:
            generator: as for `restore`.
            rest: likewise.

        Returns:
            its step, generator, rest and progress; None in a fresh workdir.

        Raises:
            UserError: none is whole; says what is wrong with the newest.
        """
        faults: dict[int, UserError] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self.restore(step, generator=generator, rest=rest)
            except UserError as error:
                if not self._is_damage(error.__cause__):
                    raise
                faults[step] = error
                continue
            if faults:
                self._move_aside(faults, str(next(iter(faults.values())).__cause__))
                self._manager.reload()
            return step, *restored
        if faults:
            raise next(iter(faults.values()))
        return None

    @staticmethod
    def _is_damage(cause: BaseException | None) -> bool:
        """Whether an earlier checkpoint is the cure. Several hosts would have to agree on it, and do not try."""
        alone = jax.process_count() == 1
        passing = isinstance(cause, OSError) and cause.errno not in (None, errno.ENOENT, errno.ENOTDIR)
        return alone and not passing and "PERMISSION_DENIED" not in str(cause)

    def _move_aside(self, steps: Iterable[int], reason: str) -> None:
        """Renames the folders of damaged checkpoints, so that whole ones can take their places."""
        devices.wait_for_all_hosts("damaged checkpoints found")
        for step in steps:
            names = itertools.chain([f"damaged_{step}"], (f"damaged_{step}_{i}" for i in itertools.count(2)))
            aside = next(path for path in map(self.folder.joinpath, names) if not path.exists())
            if jax.process_index() == 0:
                (self.folder / str(step)).rename(aside)
                _log.warning(
                    "The checkpoint of step %d cannot be read and is now %s; an earlier one is used (%s).",
                    step,
                    aside,
                    _shortened(reason),
                )
        devices.wait_for_all_hosts("damaged checkpoints moved")

    def add_score(self, step: int, progress: Mapping[str, Any], score: float) -> None:
        """Writes down the score of a checkpoint that was saved before it was validated.

        The arrays are the same, so only two small files in its folder are replaced, each in one piece: at every moment
        there is one whole checkpoint of the step.

        Args:
            step: of the checkpoint.
            progress: what JSON can hold, instead of what was saved.
            score: of the validation.
        """
        self.wait()
        folder = self.folder / str(step)
        if jax.process_index() == 0:
            write_file(folder / "metrics" / "metrics", json.dumps({_METRIC: float(score)}))
            write_file(folder / "progress" / "metadata", json.dumps(dict(progress)))
        devices.wait_for_all_hosts(f"score of step {step}")
        self._manager.reload()

    def wait(self) -> None:
        """Waits for the save under way."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the save under way, and lets go of the folder."""
        self.wait()
        self._manager.close()


def has_checkpoint(workdir: str | Path) -> bool:
    """Whether a run has saved anything to go on from."""
    return any((Path(workdir) / _FOLDER).glob("[0-9]*"))


def load_generator(workdir: str | Path, step: int | None = None) -> tuple[Any, int]:
    """Reads the generator's parameters alone, onto the default device.

    Args:
        workdir: the folder of a run.
        step: which checkpoint; the best one by default (the latest, if none was validated).

    Returns:
        parameters and the step they are of.

    Raises:
        MissingFile: there is no such checkpoint.
        UserError: it is damaged.
    """
    folder = Path(workdir).absolute() / _FOLDER
    if not folder.is_dir():
        raise MissingFile(f"{workdir} holds no checkpoints; give the workdir of a training run.")
    options = ocp.CheckpointManagerOptions(best_fn=_score, best_mode="min", read_only=True)
    with _sentence_for_damage(folder), ocp.CheckpointManager(folder, options=options) as manager:
        steps = manager.all_steps()
        if step is None:
            best = manager.best_step()
            step = manager.latest_step() if best is None else best
    if step is None or step not in steps:
        raise MissingFile(f"{folder} has no checkpoint of step {step}; it has {sorted(steps) or 'none'}.")
    return load_item(workdir, step, "generator"), step


def load_item(workdir: str | Path, step: int, item: str) -> Any:
    """Reads one item of a checkpoint as it was saved, onto the default device.

    Args:
        workdir: the folder of a run.
        step: which checkpoint.
        item: "generator" or "rest".

    Raises:
        UserError: it is damaged.
    """
    path = Path(workdir).absolute() / _FOLDER / str(step) / item
    with _sentence_for_damage(path), ocp.StandardCheckpointer() as checkpointer:
        # The saved tree knows the shapes; the devices it was saved from may not exist here.
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = checkpointer.metadata(path).item_metadata
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), saved)
        return checkpointer.restore(path, like)


@contextlib.contextmanager
def _sentence_for_damage(where: Path) -> Iterator[None]:
    """One sentence for whatever orbax and tensorstore say, in many classes and lines, of damaged files."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError | MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"The checkpoint {where} cannot be read ({_shortened(reason)}); put back its files, or move its folder "
            "away to use an earlier one."
        ) from error


def _shortened(reason: str) -> str:
    reason = " ".join(reason.split())
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "…"


def _has_sound_score(folder: Path) -> bool:
    """Whether a checkpoint has a score that can be read, or none."""
    file = folder / "metrics" / "metrics"
    try:
        return not file.exists() or _METRIC in json.loads(file.read_text())
    except (ValueError, TypeError):
        return False


def _score(metrics: Mapping[str, float]) -> float:
    return metrics[_METRIC]
