"""Serves the page of a model until Ctrl-C."""

import contextlib
import logging
import os
import socket
import threading
import warnings
import webbrowser
from pathlib import Path
from types import FrameType

import uvicorn
from PIL import Image

from inpaint_jax.demo.server import Limits, make_app
from inpaint_jax.demo.studio import Studio
from inpaint_jax.errors import UserError

__all__ = ["Limits", "serve"]

logger = logging.getLogger("inpaint_jax")

_LAST_WINDOW = 60  # seconds that it may take, after which its visitor gets no answer


def serve(
    checkpoint: str | Path,
    *,
    step: int | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    open_page: bool = False,
    pidinet_weights: str | None = None,
    limits: Limits | None = None,
) -> None:
    """Loads a model and serves the page.

    Args:
        checkpoint: The workdir of a run, or an exported file.
        step: Step of the checkpoint in a workdir; the best one by default.
        host: Address to listen at.
        port: Port to listen at; 0 for any free one.
        open_page: Whether to open the page in the browser of this machine.
        pidinet_weights: File of PiDiNet's weights, see `Studio.open`.
        limits: Limits on what visitors send.

    Raises:
        UserError: Nothing can listen there, there is no such model, or the file of weights cannot be used.
    """
    # The limit on uploads is lower. Set once here, because a filter set for a while would hold in all threads.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    listener = _listen(host, port)  # first, since the model takes seconds to load
    try:
        studio = Studio.open(checkpoint, step, pidinet_weights)
    except BaseException:
        listener.close()
        raise
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    logger.info("Model %s of step %d. The page is at %s - Ctrl-C ends it.", studio.name, studio.step, address)
    if open_page:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    ending = threading.Event()
    application = make_app(studio, limits or Limits(), host, ending)
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=_LAST_WINDOW)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after an orderly end
        _Server(config, ending).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends what is being filled as well, after the window that is worked on; at once if it is told so twice."""

    def __init__(self, config: uvicorn.Config, ending: threading.Event):
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._ending.is_set():
            os._exit(128 + sig)  # nothing is kept that could be lost, and threads cannot be ended otherwise
        self._ending.set()
        super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # visitors who come before the server is up wait
    except (OSError, UnicodeError) as error:  # UnicodeError: for a host that is no valid name
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"Nothing can listen at {host}, port {port} ({reason}); give another --port or --host."
        ) from error
    return listener
