"""VGG-16 up to ReLU1_2, the features of the perceptual loss (eq. 3), with the Oxford weights.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556. The
weights (CC BY 4.0) come from the HDF5 file that Keras publishes; only its first block is read.
"""

import zipfile
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from inpaint_jax.errors import MissingFile
from inpaint_jax.features import weights

VGG16 = weights.WeightsFile(
    name="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    url="https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    checksum="md5:6d6bbae143d832006294945121d1f1fc",
)

MEAN_RGB = (123.68, 116.779, 103.939)
"""What the Oxford weights subtract from RGB in [0, 255]; there is no division."""

PERCEPTUAL_SCALE = 1 / 100
"""Factor of the perceptual loss for these weights, so that the paper's lambda_p = 0.004 keeps its meaning.

The paper does not say which weights it used. Activations of weights that take input divided by the ImageNet standard
deviation (torchvision's) average about 1. Ours, with input in 0..255, average 107 on 20 photos of streets and 117 on 20
photos of nature at 256 x 256 (50 to 153 by photo), 136 and 108 on the two reference photos.
"""

_SHAPES = {
    "conv1_1": {"kernel": (3, 3, 3, 64), "bias": (64,)},
    "conv1_2": {"kernel": (3, 3, 64, 64), "bias": (64,)},
}

_KERAS_GROUPS = {"conv1_1": "block1_conv1", "conv1_2": "block1_conv2"}

Params = dict[str, dict[str, np.ndarray]]


def load(path: str | Path | None = None) -> Params:
    """Loads the two convolutions of block 1.

    Args:
        path: Keras' HDF5 file, or an .npz with the arrays conv1_1_kernel, conv1_1_bias, conv1_2_kernel, conv1_2_bias.
            None takes the HDF5 file from the cache, after a download if it is not there (see `weights.WeightsFile`).

    Returns:
        {"conv1_1": {"kernel": [3, 3, 3, 64], "bias": [64]}, "conv1_2": {"kernel": [3, 3, 64, 64], "bias": [64]}},
        kernels HWIO, float32 numpy arrays: give them to a jitted step as an argument, on whatever devices it uses.

    Raises:
        MissingFile: there is no file at `path`.
        weights.WeightsUnavailable: no `path`, nothing in the cache and no network.
        weights.WeightsInvalid: the file is damaged, or its arrays have other names or shapes.
    """
    path = VGG16.fetch() if path is None else Path(path)
    if not path.is_file():
        raise MissingFile(f"There is no file {path}: give the path of {VGG16.name} or of an .npz cut of it.")
    try:
        params = _read_npz(path) if zipfile.is_zipfile(path) else _read_keras(path)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise weights.WeightsInvalid(
            f"{path} cannot be read as .npz or HDF5 ({error}): get it again from {VGG16.url}."
        ) from error
    weights.check_tree(params, _SHAPES, source=path)
    return params


def relu1_2(params: Params, images: jax.Array) -> jax.Array:
    """ReLU1_2 activations, the V_i of eq. (3).

    Zero padding follows the subtraction of the mean, as in the original (a padded pixel is the mean colour, not black).

    Args:
        params: from `load`.
        images: [B, H, W, 3] RGB in [0, 1], any float type.

    Returns:
        [B, H, W, 64] float32, >= 0, in the hundreds (see `PERCEPTUAL_SCALE`).

    Raises:
        ValueError: images are not [B, H, W, 3].
        TypeError: images are integers, so most likely in [0, 255].
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Give images as [B, H, W, 3], not {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"Give images as floats in [0, 1], not {images.dtype}.")
    x = 255.0 * images.astype(jnp.float32) - jnp.asarray([[[MEAN_RGB]]], jnp.float32)
    for layer in ("conv1_1", "conv1_2"):
        x = jax.lax.conv_general_dilated(
            x, jnp.asarray(params[layer]["kernel"]), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + jnp.reshape(params[layer]["bias"], (1, 1, 1, -1)))
    return x


def _read_npz(path: Path) -> Params:
    """Arrays NAME_kernel and NAME_bias; what else the file holds (notes) is left alone."""
    with np.load(path, allow_pickle=False) as file:
        return {
            layer: {kind: file[f"{layer}_{kind}"].astype(np.float32) for kind in kinds if f"{layer}_{kind}" in file}
            for layer, kinds in _SHAPES.items()
        }


def _read_keras(path: Path) -> Params:
    """One group per layer, whose attribute `weight_names` lists kernel and bias.

    Those names differ between Keras versions (block1_conv1_W_1:0, block1_conv1/kernel:0), their order does not.
    """
    import h5py  # only Keras' own file needs it

    params: Params = {}
    with h5py.File(path, "r") as file:
        for layer, group_name in _KERAS_GROUPS.items():
            params[layer] = {}
            group = file.get(group_name)
            if not isinstance(group, h5py.Group):
                continue
            for kind, name in zip(("kernel", "bias"), group.attrs.get("weight_names", [])):
                array = group.get(name.decode() if isinstance(name, bytes) else name)
                if isinstance(array, h5py.Dataset):
                    params[layer][kind] = array[()].astype(np.float32)
    return params
