"""The Inception network of the Fréchet distance (FID), as pytorch-fid has it.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", arXiv 1706.08500,
took an Inception-v3 of 2015 (Szegedy et al., arXiv 1512.00567); pytorch-fid (Apache-2.0) converted it. It differs from
later Inception-v3s in its weights, in average pooling that leaves the padding out of the count, and in its last block,
which pools by the maximum. Other weights or another resize give numbers that compare with nobody's.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from inpaint_jax.errors import MissingFile
from inpaint_jax.features import torch_file, weights

FID_INCEPTION = weights.WeightsFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    checksum="sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)

INPUT_SIZE = 299
"""Side of the square that every image is resized to, whatever its aspect ratio."""

_SMALLEST = 75  # side at which the last blocks still see 1 x 1
_BATCH_NORM_EPSILON = 0.001
_CLASSIFIER = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}  # in the file; nothing here needs it


def _shapes_a(channels: int, pooled: int) -> dict[str, tuple[int, int, int, int]]:
    return {
        "branch1x1": (1, 1, channels, 64),
        "branch5x5_1": (1, 1, channels, 48),
        "branch5x5_2": (5, 5, 48, 64),
        "branch3x3dbl_1": (1, 1, channels, 64),
        "branch3x3dbl_2": (3, 3, 64, 96),
        "branch3x3dbl_3": (3, 3, 96, 96),
        "branch_pool": (1, 1, channels, pooled),
    }


def _shapes_c(inner: int) -> dict[str, tuple[int, int, int, int]]:
    return {
        "branch1x1": (1, 1, 768, 192),
        "branch7x7_1": (1, 1, 768, inner),
        "branch7x7_2": (1, 7, inner, inner),
        "branch7x7_3": (7, 1, inner, 192),
        "branch7x7dbl_1": (1, 1, 768, inner),
        "branch7x7dbl_2": (7, 1, inner, inner),
        "branch7x7dbl_3": (1, 7, inner, inner),
        "branch7x7dbl_4": (7, 1, inner, inner),
        "branch7x7dbl_5": (1, 7, inner, 192),
        "branch_pool": (1, 1, 768, 192),
    }


def _shapes_e(channels: int) -> dict[str, tuple[int, int, int, int]]:
    return {
        "branch1x1": (1, 1, channels, 320),
        "branch3x3_1": (1, 1, channels, 384),
        "branch3x3_2a": (1, 3, 384, 384),
        "branch3x3_2b": (3, 1, 384, 384),
        "branch3x3dbl_1": (1, 1, channels, 448),
        "branch3x3dbl_2": (3, 3, 448, 384),
        "branch3x3dbl_3a": (1, 3, 384, 384),
        "branch3x3dbl_3b": (3, 1, 384, 384),
        "branch_pool": (1, 1, channels, 192),
    }


_KERNELS = {
    "Conv2d_1a_3x3": (3, 3, 3, 32),
    "Conv2d_2a_3x3": (3, 3, 32, 32),
    "Conv2d_2b_3x3": (3, 3, 32, 64),
    "Conv2d_3b_1x1": (1, 1, 64, 80),
    "Conv2d_4a_3x3": (3, 3, 80, 192),
    "Mixed_5b": _shapes_a(192, 32),
    "Mixed_5c": _shapes_a(256, 64),
    "Mixed_5d": _shapes_a(288, 64),
    "Mixed_6a": {
        "branch3x3": (3, 3, 288, 384),
        "branch3x3dbl_1": (1, 1, 288, 64),
        "branch3x3dbl_2": (3, 3, 64, 96),
        "branch3x3dbl_3": (3, 3, 96, 96),
    },
    "Mixed_6b": _shapes_c(128),
    "Mixed_6c": _shapes_c(160),
    "Mixed_6d": _shapes_c(160),
    "Mixed_6e": _shapes_c(192),
    "Mixed_7a": {
        "branch3x3_1": (1, 1, 768, 192),
        "branch3x3_2": (3, 3, 192, 320),
        "branch7x7x3_1": (1, 1, 768, 192),
        "branch7x7x3_2": (1, 7, 192, 192),
        "branch7x7x3_3": (7, 1, 192, 192),
        "branch7x7x3_4": (3, 3, 192, 192),
    },
    "Mixed_7b": _shapes_e(1280),
    "Mixed_7c": _shapes_e(2048),
}
"""Shapes HWIO of the 94 convolutions, under the names of the published file."""

Params = dict[str, Any]


def load(path: str | Path | None = None) -> Params:
    """Loads the published weights, and no others: a distance from other weights would compare with nobody's.

    Args:
        path: a copy of the published file. None takes it from the cache, after a download if it is not there (see
            `weights.WeightsFile`).

    Returns:
        See `from_state_dict`.

    Raises:
        MissingFile: there is no file at `path`.
        weights.WeightsUnavailable: no `path`, nothing in the cache and no network.
        weights.WeightsInvalid: the file does not have the published checksum.
    """
    if path is None:
        path = FID_INCEPTION.fetch()  # verified
    elif not Path(path).is_file():
        raise MissingFile(f"There is no file {path}: give the path of {FID_INCEPTION.name}.")
    elif not FID_INCEPTION.matches(path):
        raise weights.WeightsInvalid(
            f"{path} does not have the checksum {FID_INCEPTION.checksum}, so its distances would compare with no "
            f"published ones: get {FID_INCEPTION.url} (again). To compute with other weights knowingly, use "
            "inception.from_state_dict(torch_file.read(path))."
        )
    return from_state_dict(torch_file.read(path), source=path)


def from_state_dict(state: dict[str, np.ndarray], source: str | Path = "the state_dict") -> Params:
    """Turns pytorch-fid's state_dict into the parameters that `pool3` takes.

    The batch norm, whose statistics are fixed, is folded into kernel and bias: half the arrays and one operation less a
    layer. It is folded in float64, so each weight is rounded to float32 once, as it would be unfolded.

    Args:
        state: NAME.conv.weight (OIHW), NAME.bn.{weight, bias, running_mean, running_var}, and fc. `num_batches_tracked`
            may be there too.
        source: what error messages call it, usually the path of the file.

    Returns:
        {"Conv2d_1a_3x3": {"kernel": [3, 3, 3, 32], "bias": [32]}, …, "Mixed_5b": {"branch1x1": {"kernel", "bias"}, …},
        …}, kernels HWIO, float32 numpy arrays (87 MB): give them to a jitted function as an argument.

    Raises:
        weights.WeightsInvalid: names the missing, the extra and the wrongly shaped arrays.
    """
    if not isinstance(state, dict):
        raise weights.WeightsInvalid(f"{source} holds a {type(state).__name__} where a state_dict belongs.")
    state = {name: array for name, array in state.items() if not str(name).endswith(".num_batches_tracked")}
    weights.check_tree(state, _state_shapes(_KERNELS) | _CLASSIFIER, source=source)
    return {name: _fold(state, name, shapes) for name, shapes in _KERNELS.items()}


def pool3(params: Params, images: jax.Array, *, resize: bool = True) -> jax.Array:
    """The features that the Fréchet distance is taken of: the average-pooled last block.

    Args:
        params: from `load`.
        images: [B, H, W, 3] RGB in [0, 1], any float type, any size. Published figures are of 8-bit pictures: round
            as a file would (`round(255 x) / 255`) to compare with them.
        resize: False leaves out the resize to 299 x 299, for inputs that need none; at least 75 x 75.

    Returns:
        [B, 2048] float32, >= 0, about 0.3 on average for photos.

    Raises:
        ValueError: images are not [B, H, W, 3], or too small without a resize.
        TypeError: images are integers, so most likely in [0, 255].
    """
    return features(params, images, resize=resize)["pool3"]


def features(params: Params, images: jax.Array, *, resize: bool = True) -> dict[str, jax.Array]:
    """All four outputs of pytorch-fid's network; those that a jitted caller leaves unused are not kept.

    Args:
        params: from `load`.
        images: as in `pool3`.
        resize: as in `pool3`.

    Returns:
        "block0" [B, 73, 73, 64], "block1" [B, 35, 35, 192], "block2" [B, 17, 17, 768] (for 299 x 299) and "pool3"
        [B, 2048], all float32. Their means over height and width are the features of 64, 192 and 768 dimensions.

    Raises:
        ValueError: as in `pool3`.
        TypeError: as in `pool3`.
    """
    x = resized(images) if resize else _checked(images)
    if min(x.shape[1:3]) < _SMALLEST:
        raise ValueError(f"Give images of at least {_SMALLEST} x {_SMALLEST} to go without a resize, not {x.shape}.")
    x = 2 * x - 1
    outputs = {}
    x = _conv(params["Conv2d_1a_3x3"], x, stride=2, padding="VALID")
    x = _conv(params["Conv2d_2a_3x3"], x, padding="VALID")
    x = _conv(params["Conv2d_2b_3x3"], x)
    x = outputs["block0"] = _max_pool(x)
    x = _conv(params["Conv2d_3b_1x1"], x)
    x = _conv(params["Conv2d_4a_3x3"], x, padding="VALID")
    x = outputs["block1"] = _max_pool(x)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _mixed_a(params[name], x)
    x = _mixed_6a(params["Mixed_6a"], x)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = _mixed_c(params[name], x)
    outputs["block2"] = x
    x = _mixed_7a(params["Mixed_7a"], x)
    x = _mixed_e(params["Mixed_7b"], x, _average_pool(x))
    x = _mixed_e(params["Mixed_7c"], x, _max_pool(x, stride=1, padding="SAME"))
    outputs["pool3"] = jnp.mean(x, axis=(1, 2))
    return outputs


def resized(images: jax.Array) -> jax.Array:
    """Images at 299 x 299, bilinear between pixel centres, without smoothing when it shrinks, as pytorch-fid does it.

    Args:
        images: [B, H, W, 3], float, any size.

    Returns:
        [B, 299, 299, 3] float32.

    Raises:
        ValueError: images are not [B, H, W, 3].
        TypeError: images are integers.
    """
    images = _checked(images)
    shape = (images.shape[0], INPUT_SIZE, INPUT_SIZE, 3)
    return jax.image.resize(images, shape, "bilinear", antialias=False, precision=jax.lax.Precision.HIGHEST)


def _checked(images: jax.Array) -> jax.Array:
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Give images as [B, H, W, 3], not {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"Give images as floats in [0, 1], not {images.dtype}.")
    return jnp.asarray(images, jnp.float32)


def _conv(layer: dict[str, jax.Array], x: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """Convolution, folded batch norm and ReLU. HIGHEST, or a GPU would round to TF32 and the distance would drift."""
    x = jax.lax.conv_general_dilated(
        x,
        layer["kernel"],
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jax.nn.relu(x + jnp.reshape(layer["bias"], (1, 1, 1, -1)))


def _chain(block: dict[str, Any], x: jax.Array, *names: str) -> jax.Array:
    for name in names:
        x = _conv(block[name], x)
    return x


def _max_pool(x: jax.Array, stride: int = 2, padding: str = "VALID") -> jax.Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _average_pool(x: jax.Array) -> jax.Array:
    """3 x 3 means of the pixels inside the image: the padding is not counted."""
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    rows, columns = (np.minimum(np.arange(n) + 1, n - 1) - np.maximum(np.arange(n) - 1, 0) + 1 for n in x.shape[1:3])
    return total / np.outer(rows, columns).astype(np.float32)[None, :, :, None]


def _mixed_a(block: dict[str, Any], x: jax.Array) -> jax.Array:
    branches = [
        _chain(block, x, "branch1x1"),
        _chain(block, x, "branch5x5_1", "branch5x5_2"),
        _chain(block, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        _chain(block, _average_pool(x), "branch_pool"),
    ]
    return jnp.concatenate(branches, axis=-1)


def _mixed_6a(block: dict[str, Any], x: jax.Array) -> jax.Array:
    double = _chain(block, x, "branch3x3dbl_1", "branch3x3dbl_2")
    branches = [
        _conv(block["branch3x3"], x, stride=2, padding="VALID"),
        _conv(block["branch3x3dbl_3"], double, stride=2, padding="VALID"),
        _max_pool(x),
    ]
    return jnp.concatenate(branches, axis=-1)


def _mixed_c(block: dict[str, Any], x: jax.Array) -> jax.Array:
    branches = [
        _chain(block, x, "branch1x1"),
        _chain(block, x, *(f"branch7x7_{i}" for i in (1, 2, 3))),
        _chain(block, x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
        _chain(block, _average_pool(x), "branch_pool"),
    ]
    return jnp.concatenate(branches, axis=-1)


def _mixed_7a(block: dict[str, Any], x: jax.Array) -> jax.Array:
    single = _chain(block, x, "branch3x3_1")
    seven = _chain(block, x, "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3")
    branches = [
        _conv(block["branch3x3_2"], single, stride=2, padding="VALID"),
        _conv(block["branch7x7x3_4"], seven, stride=2, padding="VALID"),
        _max_pool(x),
    ]
    return jnp.concatenate(branches, axis=-1)


def _mixed_e(block: dict[str, Any], x: jax.Array, pooled: jax.Array) -> jax.Array:
    """The two blocks of this kind differ in how they pool."""
    single = _chain(block, x, "branch3x3_1")
    double = _chain(block, x, "branch3x3dbl_1", "branch3x3dbl_2")
    branches = [
        _chain(block, x, "branch1x1"),
        _chain(block, single, "branch3x3_2a"),
        _chain(block, single, "branch3x3_2b"),
        _chain(block, double, "branch3x3dbl_3a"),
        _chain(block, double, "branch3x3dbl_3b"),
        _chain(block, pooled, "branch_pool"),
    ]
    return jnp.concatenate(branches, axis=-1)


def _state_shapes(kernels: dict[str, Any], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Names and shapes of what the file must hold for these convolutions."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, kernel in kernels.items():
        if isinstance(kernel, dict):
            shapes |= _state_shapes(kernel, f"{prefix}{name}.")
            continue
        height, width, inputs, outputs = kernel
        shapes[f"{prefix}{name}.conv.weight"] = (outputs, inputs, height, width)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}{name}.bn.{part}"] = (outputs,)
    return shapes


def _fold(state: dict[str, np.ndarray], name: str, shapes: Any) -> Params:
    """Kernel and bias of a convolution and its batch norm, or of all those in a block."""
    if isinstance(shapes, dict):
        return {inner: _fold(state, f"{name}.{inner}", shape) for inner, shape in shapes.items()}
    gamma, beta, mean, variance = (
        state[f"{name}.bn.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
    kernel = state[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
    return {"kernel": kernel.astype(np.float32), "bias": (beta - mean * scale).astype(np.float32)}
