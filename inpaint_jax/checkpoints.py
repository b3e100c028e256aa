"""What is saved and how it comes back. Knows orbax; knows nothing of training.

A checkpoint is a step folder with three items that can be restored apart:

    generator   the generator's parameters, all that inference needs
    rest        whatever else the next step depends on
    progress    a few Python numbers, as JSON

The latest checkpoint is kept to go on from, the best one to use. A save runs in the background into a temporary
folder that is renamed at the end, so a killed run leaves a whole checkpoint or none.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

_FOLDER = "checkpoints"
_METRIC = "score"
_FORMER_METRIC = "validation_loss"  # of runs that knew no other

# Orbax logs every stage of every save, and warns whenever a save has no metrics, as most of ours, and of what
# read_only changes.
_NOISE = ("tracked_metric", "read_only", "is read only", "Metadata file does not exist")
logging.getLogger("absl").addFilter(
    lambda record: (
        "orbax" not in record.pathname
        or (record.levelno >= logging.WARNING and not any(words in record.getMessage() for words in _NOISE))
    )
)


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
            ValueError: the trees differ from the saved ones.
        """
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                generator=ocp.args.StandardRestore(generator),
                rest=ocp.args.StandardRestore(rest),
                progress=ocp.args.JsonRestore(),
            ),
        )
        return restored["generator"], restored["rest"], restored["progress"]

    def wait(self) -> None:
        """Waits for the save under way."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the save under way, and lets go of the folder."""
        self.wait()
        self._manager.close()


def load_config(workdir: str | Path) -> dict[str, Any]:
    """Reads the config of a run, as a nested dict.

    Args:
        workdir: the folder of a run.

    Returns:
        what config.json holds.

    Raises:
        FileNotFoundError: there is no such folder, or it is no workdir.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        what = "holds no config.json" if Path(workdir).is_dir() else "does not exist"
        raise FileNotFoundError(f"{workdir} {what}; give the workdir of a training run.")
    return json.loads(path.read_text())


def load_generator(workdir: str | Path, step: int | None = None) -> tuple[Any, int]:
    """Reads the generator's parameters alone, onto the default device.

    Args:
        workdir: the folder of a run.
        step: which checkpoint; the best one by default (the latest, if none was validated).

    Returns:
        parameters and the step they are of.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    folder = Path(workdir).absolute() / _FOLDER
    if not folder.is_dir():
        raise FileNotFoundError(f"{workdir} holds no checkpoints; give the workdir of a training run.")
    options = ocp.CheckpointManagerOptions(best_fn=_score, best_mode="min", read_only=True)
    with ocp.CheckpointManager(folder, options=options) as manager:
        steps = manager.all_steps()
        if step is None:
            best = manager.best_step()
            step = manager.latest_step() if best is None else best
    if step is None or step not in steps:
        raise FileNotFoundError(f"{folder} has no checkpoint of step {step}; it has {sorted(steps) or 'none'}.")
    item = folder / str(step) / "generator"
    with ocp.StandardCheckpointer() as checkpointer:
        # The saved tree knows the shapes; the devices it was saved from may not exist here.
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = checkpointer.metadata(item).item_metadata
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), saved)
        return checkpointer.restore(item, like), step


def _score(metrics: Mapping[str, float]) -> float:
    return metrics[_METRIC] if _METRIC in metrics else metrics[_FORMER_METRIC]
