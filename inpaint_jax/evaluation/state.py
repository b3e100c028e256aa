"""What an evaluation has computed so far, and the file that a stopped one continues from."""

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from inpaint_jax.errors import UserError
from inpaint_jax.evaluation import output
from inpaint_jax.evaluation.fid import FEATURES
from inpaint_jax.evaluation.scores import Scores
from inpaint_jax.metrics import GaussianStatistics

_log = logging.getLogger("inpaint_jax")


@dataclasses.dataclass
class RunState:
    """The state of an evaluation: the results so far, and which batch is next.

    Attributes:
        path: Path of the file that holds the saved state.
        identity: What the saved state and the run must agree about.
        bin: Number of the current bin.
        batches: How many of its batches are done.
        scores: Scores of the images so far.
        statistics: (method, label) -> statistics of the completed images' features, for the current bin and for all.
        distances: (method, label) -> FID of the bins that are done.
        truth: Statistics of the true images' features, once they are known.
    """

    path: Path
    identity: dict[str, Any]
    bin: int = 0
    batches: int = 0
    scores: Scores = dataclasses.field(default_factory=Scores)
    statistics: dict[tuple[str, str], GaussianStatistics] = dataclasses.field(default_factory=dict)
    distances: dict[tuple[str, str], dict[str, Any]] = dataclasses.field(default_factory=dict)
    truth: GaussianStatistics | None = None
    _saved_at: float = dataclasses.field(default_factory=time.monotonic)

    @classmethod
    def open(cls, path: Path, identity: dict[str, Any], resume: bool) -> "RunState":
        """Continues from the file, or starts afresh if there is none.

        Raises:
            UserError: The file is damaged, is of another evaluation, or exists without `resume`.
        """
        if not path.exists():
            return cls(path, identity)
        if not resume:
            raise UserError(
                f"{path.parent} holds an unfinished evaluation; go on with it by --resume, or delete {path} to start "
                "again."
            )
        try:
            state = cls._read(path)
        except Exception as error:  # whatever numpy, zlib and csv say of a file that is cut off or is no such file
            raise UserError(f"{path} is damaged ({error}); delete it to start again.") from error
        if differing := output.differences(state.identity, identity):
            raise UserError(
                f"{path.parent} holds an unfinished evaluation with other settings ({'; '.join(differing)}); give "
                "another --output, or the old settings to go on with it."
            )
        _log.info("Going on in bin %d, behind batch %d.", state.bin + 1, state.batches)
        return dataclasses.replace(state, identity=identity)

    @classmethod
    def _read(cls, path: Path) -> "RunState":
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        document = json.loads(str(arrays.pop("document")))
        scores = Scores.from_csv(arrays.pop("scores").tobytes().decode())
        state = cls(path, dict(document["identity"]), int(document["bin"]), int(document["batches"]), scores)
        state.distances = {(method, label): found for method, label, found in document["distances"]}

        def statistics(prefix: str) -> GaussianStatistics:
            parts = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
            return GaussianStatistics.from_arrays(parts)

        for number, (method, label) in enumerate(document["statistics"]):
            state.statistics[method, label] = statistics(f"statistics_{number}/")
        state.truth = statistics("truth/") if document["truth"] else None
        return state

    def statistics_of(self, method: str, label: str) -> GaussianStatistics:
        """The statistics of a method and label, created at the first use."""
        return self.statistics.setdefault((method, label), GaussianStatistics(FEATURES))

    def save(self) -> None:
        """Writes the file."""
        document = {
            "identity": self.identity,
            "bin": self.bin,
            "batches": self.batches,
            "distances": [[*key, found] for key, found in self.distances.items()],
            "statistics": [list(key) for key in self.statistics],
            "truth": self.truth is not None,
        }
        scores = np.frombuffer(self.scores.to_csv().encode(), np.uint8)
        arrays = {"document": np.array(json.dumps(document)), "scores": scores}
        groups = {f"statistics_{number}": each for number, each in enumerate(self.statistics.values())}
        if self.truth:
            groups["truth"] = self.truth
        for group, statistics in groups.items():
            arrays |= {f"{group}/{name}": array for name, array in statistics.to_arrays().items()}
        output.write_arrays(self.path, arrays)
        self._saved_at = time.monotonic()

    def save_now_and_then(self, seconds: float) -> None:
        """Saves if the last save was at least `seconds` ago."""
        if time.monotonic() - self._saved_at >= seconds:
            self.save()

    def forget(self) -> None:
        """Removes the file of a finished run."""
        self.path.unlink(missing_ok=True)
