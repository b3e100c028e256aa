"""A web page to fill holes on: inpaint-jax demo --checkpoint=runs/places2, then open the address it prints.

Choose a photo or an example, brush over what should go, draw lines into the hole if the model is guided by sketches,
and fill it. --checkpoint is a workdir or a file of `inpaint-jax export`. Only this machine can open the page
unless --host says otherwise; photos are neither stored nor sent anywhere else.
"""

import contextlib
import logging
import socket
import sys
import threading
import warnings
import webbrowser

from absl import app, flags
from PIL import Image

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The workdir of a training run, or an exported file.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint in a workdir; the best one by default.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 lets the whole network in.")
_PORT = flags.DEFINE_integer("port", 7860, "Port to listen at; 0 for any free one.", lower_bound=0, upper_bound=65535)
_OPEN = flags.DEFINE_bool("open", False, "Open the page in the browser of this machine.")
_PIDINET_WEIGHTS = flags.DEFINE_string(
    "pidinet_weights", None, "File of PiDiNet's weights, to suggest sketches; otherwise from the cache, if it is there."
)
_LARGEST_SIDE = flags.DEFINE_integer(
    "largest_side", 2048, "Longest side, in pixels, at which visitors may let the model work.", lower_bound=64
)
_MEGABYTES = flags.DEFINE_float("max_megabytes", 30, "Larger uploads are refused.", lower_bound=0.1)
_MEGAPIXELS = flags.DEFINE_float("max_megapixels", 60, "Photos of more pixels are refused.", lower_bound=0.1)
flags.mark_flags_as_required(["checkpoint"])


def main(argv: list[str]) -> None:
    """Loads the model and serves the page until Ctrl-C."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags are written --name=value; what is {argv[1]!r}?")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logger = logging.getLogger("inpaint_jax")
    logger.setLevel(logging.INFO)
    try:
        import uvicorn

        from inpaint_jax.demo import server
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("inpaint_jax"):
            raise
        sys.exit(f"demo: the page needs {error.name}; install it by: pip install 'inpaint-jax[demo]'")
    from inpaint_jax.compilation import keep_programs
    from inpaint_jax.demo.studio import Studio, StudioError

    keep_programs()
    # The limit on uploads is lower. Set once here, because a filter set for a while would hold in all threads.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    limits = server.Limits(_MEGABYTES.value, _MEGAPIXELS.value, _LARGEST_SIDE.value)
    try:
        listener = _listen(_HOST.value, _PORT.value)  # first, since the model takes seconds to load
        studio = Studio.open(_CHECKPOINT.value, _STEP.value, _PIDINET_WEIGHTS.value)
    except (StudioError, OSError) as error:
        sys.exit(f"demo: {error}")
    host = f"[{_HOST.value}]" if ":" in _HOST.value else _HOST.value
    address = f"http://{host}:{listener.getsockname()[1]}"
    logger.info("Model %s of step %d. The page is at %s - Ctrl-C ends it.", studio.name, studio.step, address)
    if _OPEN.value:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    application = server.make_app(studio, limits, _HOST.value)
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=5)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after an orderly end
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # visitors who come before the server is up wait
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}; give another --port."
        ) from error
    return listener


if __name__ == "__main__":
    app.run(main)
