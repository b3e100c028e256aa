"""What every worker process does first, whether it reads photos or runs a classical method."""

import multiprocessing
import os
import signal
import threading

import cv2


def prepare_worker() -> None:
    """Prepares this process: no threads of OpenCV's, deaf to Ctrl-C, and gone when the main process is."""
    cv2.setNumThreads(0)
    # Ctrl-C reaches the whole group; the main process decides, and may want more of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Without this, workers of a killed main process wait forever for work, or for room in the queue.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)
