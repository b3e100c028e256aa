"""Reads the metrics of step n after step n + 1 was dispatched, so that the device never waits for the host."""

import math
import time
from collections.abc import Callable, Mapping

import jax

from inpaint_jax.errors import UserError


class TrainingDivergedError(UserError):
    """A loss or a gradient is not finite any more."""


class Meter:
    """Means of a step's metrics between two log lines, and the check that they are finite.

    Args:
        log_every: steps between two log lines.
        images_per_step: the global batch size.
        emit: called with (step, means) for every log line.
    """

    def __init__(self, log_every: int, images_per_step: int, emit: Callable[[int, dict[str, float]], None]):
        self._log_every = log_every
        self._images_per_step = images_per_step
        self._emit = emit
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._seconds = 0.0
        self._since: float | None = None

    def push(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes the metrics of a step that was just dispatched, and reads those of the one before.

        Args:
            step: its number.
            metrics: name -> scalar, still on the device.

        Raises:
            TrainingDivergedError: a metric of the step before is not finite; the message names step and metric.
        """
        self._read()
        self._pending = (step, metrics)
        if self._since is None:
            self._since = time.perf_counter()

    def flush(self) -> None:
        """Reads the last step's metrics, and stops the clock: validating and saving do not count as training.

        Raises:
            TrainingDivergedError: a metric is not finite.
        """
        self._read()
        self._since = None

    def _read(self) -> None:
        if self._pending is None or self._since is None:  # either both or none
            return
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDivergedError(f"{name} is {value} at step {step}")
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        now = time.perf_counter()
        self._seconds += now - self._since
        self._since = now
        if step % self._log_every == 0:
            means = {name: total / self._steps for name, total in self._sums.items()}
            means["images_per_second"] = self._steps * self._images_per_step / self._seconds
            self._sums, self._steps, self._seconds = {}, 0, 0.0
            self._emit(step, means)
