"""Weights that were published for partial convolutions in PyTorch, as parameters of `nets.parconv.ParConvUNet`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from inpaint_jax.config import Config, Model
from inpaint_jax.features.torch_file import channels_last
from inpaint_jax.features.weights import check_tree
from inpaint_jax.nets.parconv import ParConvUNet
from inpaint_jax.systems import published

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
    state, steps = published.read_state(path, "model", "partial convolutions")
    state = {name: tensor for name, tensor in state.items() if not name.endswith(_IDLE)}
    shapes = published.torch_shapes(ParConvUNet(_WIDTH), 128)
    check_tree(state, {_theirs(ours): shape for ours, shape in shapes.items()}, path)
    model = dataclasses.replace(Model(), width=_WIDTH)
    config = dataclasses.replace(Config(), name=Path(path).stem, system="parconv", model=model)
    return config, to_params(state), steps


def to_params(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The parameters of a generator's state_dict, float32; see `nets.parconv.PartialConv` for the windows."""
    params = {ours: channels_last(state[_theirs(ours)]) for ours in published.torch_shapes(ParConvUNet(_WIDTH), 128)}
    windows = {ours: np.float32(np.prod(array.shape[:3])) if array.ndim == 4 else 1 for ours, array in params.items()}
    return unflatten_dict({ours: array / windows[ours] for ours, array in params.items()}, sep="/")


def _theirs(ours: str) -> str:
    """The name of an array in the files."""
    layer, *module, leaf = ours.split("/")
    layer = layer.replace("encoder", "enc").replace("decoder", "dec")
    if module == ["norm"]:
        return f"{layer}.bn.{_LEAVES[leaf]}"
    return f"{layer}.conv.input_conv.{'weight' if leaf == 'kernel' else leaf}"
