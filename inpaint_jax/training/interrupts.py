"""Ctrl-C and SIGTERM as a polite request: finish the step, save, leave."""

import logging
import signal
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

_log = logging.getLogger("inpaint_jax")


class StopRequest:
    """Notes SIGINT and SIGTERM while its `with` block runs; a second Ctrl-C interrupts at once.

    Schedulers like to send SIGTERM more than once, so that one never interrupts.
    Outside the main thread, where Python allows no signal handlers, it never asks to stop.
    """

    def __enter__(self) -> "StopRequest":
        self._requested = False
        self._former = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(number, self._former[number])
        if not self._requested:
            _log.info("Stopping after this step. A second Ctrl-C stops at once, without saving.")
        self._requested = True

    def granted(self, *, at_meeting_point: bool) -> bool:
        """Whether to stop now.

        Args:
            at_meeting_point: whether all processes ask at this step. Several processes only stop where they all
                ask, and then all together, for a step cannot run on some of them.

        Returns:
            True if this process, or at a meeting point any process, was asked to stop.
        """
        if jax.process_count() == 1:
            return self._requested
        if not at_meeting_point:
            return False
        return bool(np.any(multihost_utils.process_allgather(np.array(self._requested))))
