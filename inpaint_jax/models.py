"""Trained models: a generator's parameters with the config that describes them, by workdir, file, name or address.

The file to publish is safetensors, which is read without executing anything. Its metadata (strings) are `format`,
`format_version`, `inpaint_jax` (our version), `step`, `config` (config.json as it stands, the paths of its data
included) and, if they were given, `terms` of use and a model `card`. A tensor is named by its path:
"coarse/GatedConv_0/conv/kernel".
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from inpaint_jax import __version__, checkpoints, hub
from inpaint_jax.config import Config
from inpaint_jax.errors import MissingFile, UserError
from inpaint_jax.files import write_file
from inpaint_jax.runs import read_config
from inpaint_jax.systems import check_params, published_systems, read_published

logger = logging.getLogger("inpaint_jax")

FORMAT = "inpaint_jax generator"
FORMAT_VERSION = "1"

_SHIPPED = Path(__file__).with_name("shipped")


def shipped_models() -> dict[str, Path]:
    """The models that come with the package: name -> file; docs/NAME.md is the model card."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.safetensors"), key=lambda path: path.stem)}


def find_model(path: str | Path) -> Path:
    """The file or folder of a model.

    Args:
        path: of it, or as a string the name of a model that comes with the package (a folder of the same name is meant
            by ./NAME), or an address of `hub.fetch`, which may take a download.

    Raises:
        UserError: see `hub.fetch`.
    """
    if isinstance(path, str) and path.startswith(hub.PREFIX):
        return hub.fetch(path)
    shipped = shipped_models().get(path) if isinstance(path, str) else None
    return shipped or Path(path).expanduser()


def model_name(path: str | Path) -> str:
    """What tables call a model of `find_model`: the name of its file, folder or repository."""
    if isinstance(path, str) and path.startswith(hub.PREFIX):
        return path.removeprefix(hub.PREFIX).partition("/")[2]
    found = find_model(path)
    return found.stem if found.is_file() else found.resolve().name


def load_model(path: str | Path, step: int | None = None) -> tuple[Config, Any, int]:
    """Loads a trained generator.

    Args:
        path: the workdir of a run, a file that `inpaint-jax export` wrote, or a name or address, see `find_model`.
        step: which checkpoint of a workdir; the best one by default (the latest, if none was validated).

    Returns:
        config, parameters, and the step that they are of.

    Raises:
        MissingFile: there is no such path, or no such checkpoint in it.
        UserError: the path is something else, damaged, or a file of another step than `step`.
    """
    name, path = model_name(path), find_model(path)
    if path.is_file():
        if terms := read_metadata(path).get("terms"):
            logger.info("The model %s: %s", name, terms)
        params, fields, saved_step = read_model(path)
        if step not in (None, saved_step):
            raise UserError(
                f"{path} holds the generator of step {saved_step} alone, not of step {step}; leave out --step."
            )
        config = Config.read(fields, source=str(path))
    else:
        config = read_config(path)
        params, saved_step = checkpoints.load_generator(path, step)
    check_params(config, params, path)
    return config, params, saved_step


def write_model(
    path: str | Path,
    params: Any,
    config: Mapping[str, Any],
    step: int,
    *,
    terms: str = "",
    card: str = "",
    dtype: str | None = None,
) -> None:
    """Writes the file, in one piece or not at all.

    Args:
        path: of the file; its folder is made.
        params: nested dict of arrays.
        config: nested dict, as JSON can hold.
        step: of the run, that the parameters are of.
        terms: of use, a sentence that is shown to whoever loads the model.
        card: what the model was trained on, what it can do and what not; Markdown, its first paragraph a summary.
        dtype: of the parameters in the file, their own by default; "float16" halves it, and is read as float32.
    """
    path = Path(path)
    # Contiguous and in row-major order: safetensors writes the memory of an array as it lies.
    tensors = {name: np.ascontiguousarray(leaf, dtype) for name, leaf in flatten_dict(params, sep="/").items()}
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "inpaint_jax": __version__,
        "step": str(step),
        "config": json.dumps(config),
        **{name: text for name, text in {"terms": terms, "card": card}.items() if text},
    }
    write_file(path, safetensors.numpy.save(tensors, metadata))


def read_model(path: str | Path) -> tuple[Any, dict[str, Any], int]:
    """Reads such a file.

    Args:
        path: of the file.

    Returns:
        parameters (nested dict of numpy arrays), config and step.

    Raises:
        MissingFile: there is no such file.
        UserError: the file is of another kind, damaged, or of a later format than this version knows.
    """
    metadata = read_metadata(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: _widened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no iterator of its own)
    try:
        return unflatten_dict(tensors, sep="/"), json.loads(metadata["config"]), int(metadata["step"])
    except (KeyError, ValueError, TypeError) as error:  # TypeError: of tensors "a" and "a/b"
        raise UserError(f"The metadata of {path} is damaged ({error}); export the model once more.") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """Reads what such a file says of itself, see the top; no tensor is read.

    Args:
        path: of the file.

    Raises:
        UserError: see `read_model`.
    """
    if not Path(path).is_file():
        raise MissingFile(
            f"There is no file {path}; give the workdir of a run, or a file that inpaint-jax export wrote."
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} is no exported model ({error}); give the workdir of a run, or a file that "
            "inpaint-jax export wrote."
        ) from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} holds tensors, but not those of a generator that inpaint-jax export wrote.")
    if (version := metadata.get("format_version")) != FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, written by inpaint_jax {metadata.get('inpaint_jax')}; "
            f"inpaint_jax {__version__} reads format {FORMAT_VERSION}: update inpaint_jax."
        )
    return metadata


def summary(card: str) -> str:
    """The first paragraph of a model card, in one line."""
    return next((" ".join(text.split()) for text in card.split("\n\n") if not text.startswith("#")), "")


def export(
    workdir: str | Path,
    output: str | Path,
    step: int | None = None,
    *,
    terms: str = "",
    card: str = "",
    dtype: str | None = None,
) -> int:
    """Writes the generator of a run into one file.

    Args:
        workdir: the folder of the run.
        output: the file to write.
        step: which checkpoint; the best one by default (the latest, if none was validated).
        terms: see `write_model`.
        card: likewise.
        dtype: likewise.

    Returns:
        the step.

    Raises:
        UserError: there is no such run or checkpoint, or it is damaged.
        OSError: the file cannot be written.
    """
    config = read_config(workdir)
    params, step = checkpoints.load_generator(workdir, step)
    check_params(config, params, workdir)
    write_model(output, params, config.to_dict(), step, terms=terms, card=card, dtype=dtype)
    size = Path(output).stat().st_size / 2**20
    logger.info("Wrote the generator of step %d to %s (%.1f MiB).", step, output, size)
    return step


def importable_weights() -> dict[str, str]:
    """Systems whose published weights `import_weights` reads, each with the terms of those."""
    return published_systems()


def import_weights(system: str, weights: str | Path, output: str | Path) -> None:
    """Writes the generator of another project's file into one of ours.

    Args:
        system: see `systems.read_published`.
        weights: the file.
        output: the file to write.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
        OSError: the file cannot be written.
    """
    config, params, step, terms = read_published(system, weights)
    write_model(output, params, config.to_dict(), step, terms=terms)
    size = Path(output).stat().st_size / 2**20
    logger.info("Wrote the generator of %s to %s (%.1f MiB). %s", weights, output, size, terms)


def _widened(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor
