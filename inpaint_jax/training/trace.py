"""A trace of some steps of a run: what the devices and the host do, and when."""

from pathlib import Path

import jax

_STEPS = 5


class StepTrace:
    """Records steps of a run into a folder that TensorBoard's profiler and Perfetto read.

    Args:
        folder: where to; None records nothing.
        step: where the run begins or goes on. The two steps after it are left out: the first one compiles.
    """

    def __init__(self, folder: Path | None, step: int):
        self._folder = folder
        self._first = step + 2
        self._running = False

    def before(self, step: int) -> None:
        """Starts or ends the trace, if it is due before the step after so many."""
        if self._folder and step == self._first:
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif step == self._first + _STEPS:
            self.close()

    def close(self) -> None:
        """Writes what was recorded, also of a run that ends early."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
