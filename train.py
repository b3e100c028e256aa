"""Trains a model: python train.py --config=configs/quickstart.py [--workdir=runs/quickstart] [--config.field=value]."""

import logging
import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train; a file of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; runs/<name of the config> by default.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, to train on several hosts.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes take part.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Hands over to the library."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags are written --name=value; what is {argv[1]!r}?")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("inpaint_jax").setLevel(logging.INFO)
    # Imported here because the processes that read photos import this file again, and need none of it.
    from inpaint_jax.compilation import keep_programs
    from inpaint_jax.errors import UserError
    from inpaint_jax.training import loop

    keep_programs()
    hosts = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    workdir = _WORKDIR.value or f"runs/{_CONFIG.value.name}"
    try:
        loop.train(_CONFIG.value, workdir, None if hosts == (None, None, None) else hosts)
    except UserError as error:
        sys.exit(f"train.py: {error}")


if __name__ == "__main__":
    app.run(main)
