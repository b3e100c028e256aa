"""One file to publish: the generator's parameters with the config inside, as safetensors.

inpaint-jax export --checkpoint=runs/places2 --output=places2.safetensors [--step=1000]

The file reads without executing anything that it holds. Its metadata (strings, as safetensors has it) are `format`,
`format_version`, `inpaint_jax` (our version), `step` and `config` (config.json as it stands, the paths of its data
included). A tensor is named by its path: "coarse/GatedConv_0/conv/kernel".
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from absl import app, flags
from flax.traverse_util import flatten_dict, unflatten_dict

from inpaint_jax import __version__, checkpoints
from inpaint_jax.errors import UserError
from inpaint_jax.files import write_file
from inpaint_jax.runs import read_config

logger = logging.getLogger("inpaint_jax")

FORMAT = "inpaint_jax generator"
FORMAT_VERSION = "1"


class UnusableModel(UserError):
    """A file that is no exported model of ours; the message says what to give instead."""


def write_model(path: str | Path, params: Any, config: Mapping[str, Any], step: int) -> None:
    """Writes the file, in one piece or not at all.

    Args:
        path: of the file; its folder is made.
        params: nested dict of arrays.
        config: nested dict, as JSON can hold.
        step: of the run, that the parameters are of.
    """
    path = Path(path)
    # Contiguous and in row-major order: safetensors writes the memory of an array as it lies.
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "inpaint_jax": __version__,
        "step": str(step),
        "config": json.dumps(config),
    }
    write_file(path, safetensors.numpy.save(tensors, metadata))


def read_model(path: str | Path) -> tuple[Any, dict[str, Any], int]:
    """Reads such a file.

    Args:
        path: of the file.

    Returns:
        parameters (nested dict of numpy arrays), config and step.

    Raises:
        UnusableModel: the file is of another kind, damaged, or of a later format than this version knows.
        FileNotFoundError: there is no such file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator of its own)
    except safetensors.SafetensorError as error:
        raise UnusableModel(
            f"{path} is no exported model ({error}); give the workdir of a run, or a file that "
            "inpaint-jax export wrote."
        ) from error
    if metadata.get("format") != FORMAT:
        raise UnusableModel(f"{path} holds tensors, but not those of a generator that inpaint-jax export wrote.")
    if metadata["format_version"] != FORMAT_VERSION:
        raise UnusableModel(
            f"{path} has format {metadata['format_version']}, written by inpaint_jax {metadata['inpaint_jax']}; "
            f"inpaint_jax {__version__} reads format {FORMAT_VERSION}: update inpaint_jax."
        )
    return unflatten_dict(tensors, sep="/"), json.loads(metadata["config"]), int(metadata["step"])


def export(workdir: str | Path, output: str | Path, step: int | None = None) -> int:
    """Writes the generator of a run into one file.

    Args:
        workdir: the folder of the run.
        output: the file to write.
        step: which checkpoint; the best one by default (the latest, if none was validated).

    Returns:
        the step.

    Raises:
        UserError: there is no such run or checkpoint.
    """
    config = read_config(workdir).to_dict()
    params, step = checkpoints.load_generator(workdir, step)
    write_model(output, params, config, step)
    return step


def _define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "The workdir of a training run.", required=True)
    flags.DEFINE_string("output", None, "The file to write, NAME.safetensors.", required=True)
    flags.DEFINE_integer("step", None, "Which checkpoint; the best one by default.")


def main(argv: list[str]) -> None:
    """Hands over to `export`."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags are written --name=value; what is {argv[1]!r}?")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    logger.setLevel(logging.INFO)
    arguments = flags.FLAGS
    try:
        step = export(arguments.checkpoint, arguments.output, arguments.step)
    except (UserError, OSError) as error:
        raise SystemExit(f"{error}") from error
    size = Path(arguments.output).stat().st_size / 2**20
    logger.info("Wrote the generator of step %d to %s (%.1f MiB).", step, arguments.output, size)


if __name__ == "__main__":
    _define_flags()
    app.run(main)
