"""Weights that were published for partial convolutions in PyTorch, as parameters of `nets.parconv.ParConvUNet`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from inpaint_jax.config import Config, Model
from inpaint_jax.features import torch_file
from inpaint_jax.features.weights import WeightsInvalid, check_tree
from inpaint_jax.nets.parconv import ParConvUNet

TERMS = (
    "Imported weights. The repository that published such weights is under the MIT licence, (c) 2018 Naoto Inoue; they "
    "were trained on Places2, which has terms of its own."
)

_WIDTH = 64

# The last parts of names: ours and theirs.
_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

# What their state_dict holds besides: kernels of ones, which count what is valid, and numbers that nothing depends on.
_IDLE = ("mask_conv.weight", "num_batches_tracked")


def read(path: str | Path) -> tuple[Config, Any, int]:
    """Reads a generator; nothing in the file is executed.

    Args:
        path: a file of torch.save: a checkpoint, whose entry "model" is the generator, or the generator's state_dict.

    Returns:
        a config, of which `system` and `model` describe the generator and the rest are defaults; its parameters; and
        the number of iterations, 0 if the file does not say.

    Raises:
        MissingFile: there is no such file.
        WeightsInvalid: it is damaged, holds other things than a state_dict does, or lacks keys or has others.
    """
    saved = torch_file.read(path)
    state = saved.get("model", saved) if isinstance(saved, Mapping) else saved
    if not isinstance(state, Mapping):
        raise WeightsInvalid(f"{path} holds no state_dict; give a checkpoint of partial convolutions.")
    state = {name: tensor for name, tensor in state.items() if not str(name).endswith(_IDLE)}
    names = _names()
    check_tree(state, {theirs: shape for _, theirs, shape in names}, path)
    model = dataclasses.replace(Model(), width=_WIDTH)
    config = dataclasses.replace(Config(), name=Path(path).stem, system="parconv", model=model)
    steps = saved.get("n_iter")
    return config, to_params(state), steps if isinstance(steps, int) else 0


def to_params(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The parameters of a generator's state_dict, float32."""
    return unflatten_dict({ours: _ours(state[theirs]) for ours, theirs, _ in _names()}, sep="/")


def _names() -> list[tuple[str, str, tuple[int, ...]]]:
    """Of every array: its name in our tree, its name in the files, and its shape there."""
    image = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 128, 128), jnp.float32)
    params = jax.eval_shape(ParConvUNet(_WIDTH).init, jax.eval_shape(jax.random.key, 0), image, mask)["params"]
    shapes: dict[str, Any] = flatten_dict(jax.tree.map(np.shape, params), sep="/")
    names = []
    for ours, shape in shapes.items():
        layer, *module, leaf = ours.split("/")
        theirs = layer.replace("encoder", "enc").replace("decoder", "dec")
        theirs += f".bn.{_LEAVES[leaf]}" if module == ["norm"] else ".conv.input_conv."
        if module != ["norm"]:
            theirs += {"kernel": "weight", "bias": "bias"}[leaf]
        names.append((ours, theirs, (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape))
    return names


def _ours(tensor: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO, float32; a kernel divided by its window's size, see `nets.parconv.PartialConv`."""
    if tensor.ndim != 4:
        return np.asarray(tensor, np.float32)
    return np.asarray(tensor.transpose(2, 3, 1, 0), np.float32) / np.float32(np.prod(tensor.shape[1:]))
