"""PiDiNet, the edge detector whose maps become sketches (§IV-F).

Su et al., "Pixel Difference Networks for Efficient Edge Detection", ICCV 2021, arXiv 2108.07009: the full network
("carv4", with both CDCM and CSAM) in the authors' weights (for research use). A pixel-difference convolution takes
weighted differences of pixels; being linear, it is a plain convolution with other weights, and becomes that at loading.
"""

import functools
import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from inpaint_jax.errors import MissingFile
from inpaint_jax.features import torch_file, weights

PIDINET = weights.WeightsFile(
    name="table5_pidinet.pth",
    url="https://github.com/hellozhuo/pidinet/raw/master/trained_models/table5_pidinet.pth",
    checksum="sha256:80860ac267258b5f27486e0ef152a211d0b08120f62aeb185a050acc30da486c",
)

SMALLEST = 8
"""Side of an image of which the last stage, behind three poolings, still sees a pixel."""

_MEAN = np.array([[[[0.485, 0.456, 0.406]]]], np.float32)
_STD = np.array([[[[0.229, 0.224, 0.225]]]], np.float32)

# The stages of the backbone: how many blocks, of which width. The operations of the first convolution and then of the
# blocks take turns: central, angular, radial difference, plain.
_DEPTHS = (3, 4, 4, 4)
_WIDTHS = (60, 120, 240, 240)
_OPERATIONS = ("cd", "ad", "rd", "cv")
_REDUCED = 24  # channels of a side branch
_DILATIONS = (5, 7, 9, 11)

# Rows and columns, from the pixel itself, where an operation's plain kernel is not zero.
_SQUARE = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
_RING = tuple(offset for offset in _SQUARE if offset != (0, 0))
_TAPS = {
    "cv": _SQUARE,
    "cd": _SQUARE,
    "ad": _RING,
    "rd": (*_RING, *((2 * row, 2 * column) for row, column in _RING)),
}
_NEIGHBOUR = (3, 0, 1, 6, 4, 2, 7, 8, 5)  # position in the 3 x 3 kernel whose weight "ad" takes off 0's, 1's, …

_MULTIPLE = 64  # of the sides of padded photos

Params = dict[str, Any]


def load(path: str | Path | None = None) -> Params:
    """Loads the weights.

    Args:
        path: a file of the authors' training or any state_dict of this network. None takes the published file from the
            cache, after a download if it is not there (see `weights.WeightsFile`).

    Returns:
        See `from_state_dict`.

    Raises:
        MissingFile: there is no file at `path`.
        weights.WeightsUnavailable: no `path`, nothing in the cache and no network.
        weights.WeightsInvalid: the file is damaged, is none of torch's, or of another network.
    """
    path = PIDINET.fetch() if path is None else Path(path)
    if not path.is_file():
        raise MissingFile(f"There is no file {path}: give the path of {PIDINET.name}.")
    return from_state_dict(torch_file.read(path), source=path)


def from_state_dict(state: Any, source: str | Path = "the state_dict") -> Params:
    """Turns the authors' state_dict into the parameters that `edge_map` takes.

    Args:
        state: a state_dict, or a checkpoint with one under "state_dict"; names may begin with "module.".
        source: what error messages call it, usually the path of the file.

    Returns:
        {"first": [3, 3, 3, 60], "stages": [{"blocks": […], "side": {…}}] of the four, "fusion": {…}}; float32 numpy
        arrays (2.8 MB): give them to a jitted function as an argument. Kernels are HWIO, [in, out] where they are
        1 x 1; a depthwise one is [taps, channels], since most positions of a 5 x 5 are zero.

    Raises:
        weights.WeightsInvalid: names the missing, the extra and the wrongly shaped arrays.
    """
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise weights.WeightsInvalid(f"{source} holds a {type(state).__name__} where a state_dict belongs.")
    state = {str(name).removeprefix("module."): array for name, array in state.items()}
    weights.check_tree(state, _state_shapes(), source=source)

    def kernel(name: str) -> np.ndarray:
        found = np.asarray(state[f"{name}.weight"], np.float32).transpose(2, 3, 1, 0)  # OIHW -> HWIO
        return found[0, 0] if found.shape[:2] == (1, 1) else found

    def layer(name: str) -> Params:
        return {"kernel": kernel(name), "bias": np.asarray(state[f"{name}.bias"], np.float32)}

    stages = [
        {
            "blocks": [
                {
                    "depthwise": _as_plain(state[f"{name}.conv1.weight"][:, 0], operation),
                    "pointwise": kernel(f"{name}.conv2"),
                }
                | ({"shortcut": layer(f"{name}.shortcut")} if f"{name}.shortcut.weight" in state else {})
                for name, operation in _blocks(stage)
            ],
            "side": {
                "reduce": layer(f"dilations.{stage}.conv1"),
                "dilated": np.stack([kernel(f"dilations.{stage}.conv2_{number}") for number in (1, 2, 3, 4)]),
                "attention": layer(f"attentions.{stage}.conv1") | {"spatial": kernel(f"attentions.{stage}.conv2")},
                "score": layer(f"conv_reduces.{stage}.conv"),
            },
        }
        for stage in range(len(_DEPTHS))
    ]
    first = _as_plain(state["init_block.weight"].reshape(-1, 3, 3), _OPERATIONS[0])  # [9, 60 · 3]
    return {
        "first": first.reshape(3, 3, _WIDTHS[0], 3).transpose(0, 1, 3, 2),
        "stages": stages,
        "fusion": layer("classifier"),
    }


@jax.jit
def edge_map(params: Params, images: jax.Array) -> jax.Array:
    """How likely each pixel lies on the edge of an object.

    Compiled once for each shape of `images`, which takes seconds: better few shapes than many.

    Args:
        params: from `load`.
        images: [B, H, W, 3] RGB in [0, 1], any float type; any size from 8 x 8 on.

    Returns:
        [B, H, W] float32 in [0, 1].

    Raises:
        ValueError: images are not [B, H, W, 3], or too small.
        TypeError: images are integers, so most likely in [0, 255].
    """
    return side_outputs(params, images)["fused"]


def padded(photo: np.ndarray) -> np.ndarray:
    """Continues a photo by its mirror image to the right and below; the edge map is cropped afterwards.

    So `edge_map` is compiled for few shapes. Besides, PiDiNet's poolings drop an odd last column, and its resize
    stretches what is left over the whole width: at the right of 256 x 341 lines lie up to 5 pixels beside their
    objects. Multiples of 8 are free of that.

    Args:
        photo: [H, W, 3].

    Returns:
        [h, w, 3], h and w the next multiples of 64; 256 x 384 stays as it is.
    """
    height, width = photo.shape[:2]
    return np.pad(photo, ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0)), mode="symmetric")


def side_outputs(params: Params, images: jax.Array) -> dict[str, jax.Array]:
    """The edge maps of all four stages, from fine to coarse, and the fused one.

    Args:
        params: from `load`.
        images: as in `edge_map`.

    Returns:
        "e1", "e2", "e3", "e4" and "fused", each [B, H, W] float32 in [0, 1].

    Raises:
        ValueError: as in `edge_map`.
        TypeError: as in `edge_map`.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Give images as [B, H, W, 3], not {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"Give images as floats in [0, 1], not {images.dtype}.")
    batch, height, width, _ = images.shape
    if min(height, width) < SMALLEST:
        raise ValueError(f"Give images of at least {SMALLEST} x {SMALLEST}, not {height} x {width}.")
    x = _convolve((images.astype(jnp.float32) - _MEAN) / _STD, params["first"])
    logits = []
    for number, stage in enumerate(params["stages"]):
        if number:  # a last odd row or column is dropped
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        for block, (_, operation) in zip(stage["blocks"], _blocks(number)):
            change = _product(jax.nn.relu(_depthwise(x, block["depthwise"], _TAPS[operation])), block["pointwise"])
            x = change + (_dense(block["shortcut"], x) if "shortcut" in block else x)
        logits.append(
            jax.image.resize(
                _side(stage["side"], x),
                (batch, height, width, 1),
                "bilinear",
                antialias=False,
                precision=jax.lax.Precision.HIGHEST,
            )
        )
    logits = jnp.concatenate([*logits, _dense(params["fusion"], jnp.concatenate(logits, axis=-1))], axis=-1)
    maps = jax.nn.sigmoid(logits)
    return {name: maps[..., channel] for channel, name in enumerate(("e1", "e2", "e3", "e4", "fused"))}


def _side(side: Params, x: jax.Array) -> jax.Array:
    """Side branch of a stage: context by dilated convolutions (CDCM), attention to places (CSAM), one score a pixel."""
    x = _dense(side["reduce"], jax.nn.relu(x))
    seen = (_convolve(x, kernel, dilation) for kernel, dilation in zip(side["dilated"], _DILATIONS))
    x = functools.reduce(operator.add, seen)
    attention = _convolve(_dense(side["attention"], jax.nn.relu(x)), side["attention"]["spatial"])
    return _dense(side["score"], x * jax.nn.sigmoid(attention))


def _depthwise(x: jax.Array, taps: jax.Array, offsets: tuple[tuple[int, int], ...]) -> jax.Array:
    """Every channel's own convolution, as a sum of shifted products; a grouped one is far slower on a CPU."""
    reach = max(max(offset) for offset in offsets)
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    shifted = (
        padded[:, reach + row : reach + row + height, reach + column : reach + column + width]
        * tap.reshape(1, 1, 1, -1)
        for tap, (row, column) in zip(taps, offsets)
    )
    return functools.reduce(operator.add, shifted)


def _dense(layer: Params, x: jax.Array) -> jax.Array:
    """A 1 x 1 convolution."""
    return _product(x, layer["kernel"]) + jnp.reshape(layer["bias"], (1, 1, 1, -1))


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """HIGHEST, or a GPU would round to TF32, and pixels near the threshold would change sides."""
    return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)


def _convolve(x: jax.Array, kernel: jax.Array, dilation: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )


def _blocks(stage: int) -> list[tuple[str, str]]:
    """The authors' name of each block of a stage, and its operation; number 0 is the first convolution."""
    first = 1 + sum(_DEPTHS[:stage])
    return [
        (f"block{stage + 1}_{number + 1}", _OPERATIONS[(first + number) % len(_OPERATIONS)])
        for number in range(_DEPTHS[stage])
    ]


def _as_plain(kernels: np.ndarray, operation: str) -> np.ndarray:
    """The plain convolution that a pixel-difference convolution is: [C, 3, 3] -> [taps, C], in the order of _TAPS."""
    flat = kernels.reshape(-1, 9).astype(np.float64)
    ring = [position for position in range(9) if position != 4]
    match operation:
        case "cv":
            plain = flat
        case "cd":  # each pixel minus the one in the centre
            plain = flat.copy()
            plain[:, 4] -= flat.sum(axis=1)
        case "ad":  # each pixel minus the next one on the ring, clockwise
            plain = (flat - flat[:, _NEIGHBOUR])[:, ring]
        case "rd":  # each pixel of the outer ring minus the one between it and the centre; weight 0, not 4, is unused
            plain = np.concatenate([-flat[:, 1:], flat[:, 1:]], axis=1)
    return plain.T.astype(np.float32)


def _state_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' file."""
    shapes: dict[str, tuple[int, ...]] = {"init_block.weight": (_WIDTHS[0], 3, 3, 3)}
    inputs = _WIDTHS[0]
    for stage, width in enumerate(_WIDTHS):
        for name, _ in _blocks(stage):
            shapes[f"{name}.conv1.weight"] = (inputs, 1, 3, 3)
            shapes[f"{name}.conv2.weight"] = (width, inputs, 1, 1)
            if stage and name.endswith("_1"):
                shapes[f"{name}.shortcut.weight"] = (width, inputs, 1, 1)
                shapes[f"{name}.shortcut.bias"] = (width,)
            inputs = width
        shapes[f"dilations.{stage}.conv1.weight"] = (_REDUCED, width, 1, 1)
        shapes[f"dilations.{stage}.conv1.bias"] = (_REDUCED,)
        for number in range(1, 1 + len(_DILATIONS)):
            shapes[f"dilations.{stage}.conv2_{number}.weight"] = (_REDUCED, _REDUCED, 3, 3)
        shapes[f"attentions.{stage}.conv1.weight"] = (4, _REDUCED, 1, 1)
        shapes[f"attentions.{stage}.conv1.bias"] = (4,)
        shapes[f"attentions.{stage}.conv2.weight"] = (1, 4, 3, 3)
        shapes[f"conv_reduces.{stage}.conv.weight"] = (1, _REDUCED, 1, 1)
        shapes[f"conv_reduces.{stage}.conv.bias"] = (1,)
    shapes["classifier.weight"] = (1, len(_WIDTHS), 1, 1)
    shapes["classifier.bias"] = (1,)
    return shapes
