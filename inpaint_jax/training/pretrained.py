"""Fine-tuning: the networks of a trained model, for a run of any image size and data to start from."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from inpaint_jax import checkpoints
from inpaint_jax.errors import UserError
from inpaint_jax.features.weights import tree_faults
from inpaint_jax.models import find_model, load_model
from inpaint_jax.systems.state import TrainState

_log = logging.getLogger("inpaint_jax")


def load_pretrained(source: str | Path, shapes: TrainState) -> dict[str, Any]:
    """Loads the generator of a model, and the discriminator where there is one that fits.

    A model guided by sketches may start from one that is not: it then fills as that one does until it has learned to
    read the lines.

    Args:
        source: workdir of a run, whose best checkpoint is taken; an exported file or the name of a model that comes
            with the package, which have no discriminator.
        shapes: of the state that is to start from it.

    Returns:
        Fields of the state and their new values, numpy arrays.

    Raises:
        UserError: there is no such model, or its generator has other parameters; names those.
    """
    where = find_model(source)
    _, params, step = load_model(where)
    params = _with_lines(params, shapes.generator)
    if faults := _faults(params, shapes.generator):
        raise UserError(f"{source} has another generator than this config ({faults}); take its config.model fields.")
    found = {"generator": _cast(params, shapes.generator)}
    if shapes.average:
        found["average"] = found["generator"]
    _log.info("Starting from the generator of step %d of %s.", step, source)
    if where.is_dir():
        rest = checkpoints.load_item(where, step, "rest")
        critic = {name: rest[name] for name in ("discriminator", "spectral") if name in rest}
        wanted = {name: getattr(shapes, name) for name in critic}
        if faults := _faults(critic, wanted):
            _log.info("Its discriminator does not fit and starts anew (%s).", faults)
        else:
            found |= _cast(critic, wanted)
    return found


def _with_lines(params: Any, like: Any) -> Any:
    """Gives kernels that lack only their last input channel, the lines, one of zeros."""

    def pad(path: Any, leaf: np.ndarray) -> np.ndarray:
        wanted = wanted_shapes.get(path, leaf.shape)
        if leaf.ndim == 4 and wanted == (*leaf.shape[:2], leaf.shape[2] + 1, leaf.shape[3]):
            return np.pad(leaf, ((0, 0), (0, 0), (0, 1), (0, 0)))
        return leaf

    wanted_shapes = {path: leaf.shape for path, leaf in jax.tree.leaves_with_path(like)}
    return jax.tree.map_with_path(pad, params)


def _faults(params: Any, like: Any) -> str:
    return tree_faults(params, jax.tree.map(lambda leaf: leaf.shape, like))


def _cast(params: Any, like: Any) -> Any:
    """The same numbers in the dtypes of another tree: exported files may be of half precision."""
    return jax.tree.map(lambda leaf, other: np.asarray(leaf, other.dtype), params, like)
