"""VGG-16 up to its third pooling, the features of the losses of partial convolutions, with torchvision's weights.

Liu et al. 2018 weigh perceptual and style losses for features of this scale: torchvision's weights take images less
the mean colour of ImageNet, divided by its standard deviation. Those of Oxford, which `vgg` reads, take 0 to 255.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from inpaint_jax.errors import MissingFile
from inpaint_jax.features import torch_file, weights

VGG16 = weights.WeightsFile(
    name="vgg16-397923af.pth",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    checksum="sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)

# A layer: its number among torchvision's `features`, and its channels.
_BLOCKS = (
    {"conv1_1": (0, 3, 64), "conv1_2": (2, 64, 64)},
    {"conv2_1": (5, 64, 128), "conv2_2": (7, 128, 128)},
    {"conv3_1": (10, 128, 256), "conv3_2": (12, 256, 256), "conv3_3": (14, 256, 256)},
)
_LAYERS = {name: layer for block in _BLOCKS for name, layer in block.items()}
_SHAPES = {name: {"kernel": (3, 3, c, d), "bias": (d,)} for name, (_, c, d) in _LAYERS.items()}
_KINDS = {"kernel": "weight", "bias": "bias"}

Params = dict[str, dict[str, np.ndarray]]


def load(path: str | Path | None = None) -> Params:
    """Loads the seven convolutions of blocks 1 to 3.

    Args:
        path: torchvision's file, which is read without torch; other layers that it may hold are left alone. None takes
            it from the cache, after a download of 528 MiB if it is not there.

    Returns:
        {"conv1_1": {"kernel": [3, 3, 3, 64], "bias": [64]}, ...}, kernels HWIO, float32 numpy arrays.

    Raises:
        MissingFile: there is no file at `path`.
        weights.WeightsUnavailable: no `path`, nothing in the cache and no network.
        weights.WeightsInvalid: the file is damaged, or its arrays have other names or shapes.
    """
    path = VGG16.fetch() if path is None else Path(path)
    if not path.is_file():
        raise MissingFile(f"There is no file {path}: give the path of {VGG16.name} of {VGG16.url}.")
    params = _from_torchvision(torch_file.read(path))
    weights.check_tree(params, _SHAPES, source=path)
    return params


def pools(params: Params, images: jax.Array) -> list[jax.Array]:
    """What comes out of the first three poolings.

    Args:
        params: from `load`.
        images: [B, H, W, 3] RGB less the mean colour of ImageNet, divided by its standard deviation; H and W of 8 or
            more.

    Returns:
        [B, H//2, W//2, 64], [B, H//4, W//4, 128] and [B, H//8, W//8, 256], float32, >= 0, about 1.
    """
    x, found = images.astype(jnp.float32), []
    for block in _BLOCKS:
        for name in block:
            kernel, bias = (jnp.asarray(params[name][kind]) for kind in ("kernel", "bias"))
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x + bias.reshape(1, 1, 1, -1))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        found.append(x)
    return found


def _from_torchvision(state: Any) -> Params:
    """Of a state_dict: those layers that are used, as far as it has them."""
    state = state if isinstance(state, Mapping) else {}
    params: Params = {}
    for name, (number, _, _) in _LAYERS.items():
        arrays = {kind: state.get(f"features.{number}.{theirs}") for kind, theirs in _KINDS.items()}
        params[name] = {
            kind: torch_file.channels_last(array) for kind, array in arrays.items() if isinstance(array, np.ndarray)
        }
    return params
