"""What is common to the generators that others published as files of PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from inpaint_jax.features import torch_file
from inpaint_jax.features.weights import WeightsInvalid


def read_state(path: str | Path, entry: str, system: str) -> tuple[dict[str, np.ndarray], int]:
    """Reads the state_dict of a generator; nothing in the file is executed.

    Args:
        path: a file of torch.save: a checkpoint that has the generator as an entry, or its state_dict alone.
        entry: of a checkpoint.
        system: for messages.

    Returns:
        name -> array, and the number of iterations, 0 if the file does not say.

    Raises:
        MissingFile: there is no such file.
        WeightsInvalid: it is damaged, or holds other things than a state_dict does.
    """
    saved = torch_file.read(path)
    state = saved.get(entry, saved) if isinstance(saved, Mapping) else saved
    if not isinstance(state, Mapping):
        raise WeightsInvalid(f"{path} holds no state_dict; give a checkpoint of {system}.")
    steps = saved.get("n_iter")
    return {str(name): tensor for name, tensor in state.items()}, steps if isinstance(steps, int) else 0


def torch_shapes(generator: nn.Module, side: int) -> dict[str, tuple[int, ...]]:
    """Name of every parameter, "layer/kernel" -> its shape in PyTorch, whose kernels are OIHW.

    Args:
        generator: is called as `Generator` is.
        side: of images that it can be called with.
    """
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, side, side), jnp.float32)
    params = jax.eval_shape(generator.init, jax.eval_shape(jax.random.key, 0), image, mask)["params"]
    shapes: dict[str, Any] = flatten_dict(jax.tree.map(np.shape, params), sep="/")
    return {name: (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape for name, shape in shapes.items()}
