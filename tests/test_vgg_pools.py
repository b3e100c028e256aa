"""VGG-16 up to its third pooling against scipy's correlation, and the file that it is read from."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate
from torch_files import write_plain, write_zip

from inpaint_jax.errors import MissingFile
from inpaint_jax.features import vgg_pools, weights

# torchvision's `vgg16().features`: the number of a convolution, its channels; -1 for a pooling.
LAYERS = [
    (0, 3, 64),
    (2, 64, 64),
    -1,
    (5, 64, 128),
    (7, 128, 128),
    -1,
    (10, 128, 256),
    (12, 256, 256),
    (14, 256, 256),
    -1,
]


@pytest.fixture(scope="module")
def state():
    """A state_dict of random weights, with a layer that is not used."""
    rng = np.random.default_rng(0)
    arrays = {}
    for number, inputs, outputs in (layer for layer in LAYERS if layer != -1):
        kernel = rng.normal(size=(outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        arrays[f"features.{number}.weight"] = kernel.astype(np.float32)
        arrays[f"features.{number}.bias"] = (0.1 * rng.normal(size=outputs)).astype(np.float32)
    return arrays | {"classifier.0.bias": np.zeros(4096, np.float32)}


def slow_pools(state, image):
    """One image, [3, H, W], in float64."""
    x, found = image.astype(np.float64), []
    for layer in LAYERS:
        if layer == -1:
            _, height, width = x.shape
            x = x[:, : height // 2 * 2, : width // 2 * 2]
            x = np.max([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
            found.append(x)
            continue
        kernel, bias = (state[f"features.{layer[0]}.{name}"].astype(np.float64) for name in ("weight", "bias"))
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        x = np.stack([correlate(padded, each, "valid")[0] for each in kernel])
        x = np.maximum(0, x + bias[:, None, None])
    return found


@pytest.mark.parametrize("write", [write_zip, write_plain])
def test_agrees_with_a_slow_version(write, state, tmp_path):
    write(tmp_path / "vgg16.pth", state)
    params = vgg_pools.load(tmp_path / "vgg16.pth")
    images = np.random.default_rng(1).normal(size=(2, 17, 10, 3)).astype(np.float32)
    pools = vgg_pools.pools(params, jnp.asarray(images))
    assert [pool.shape for pool in pools] == [(2, 8, 5, 64), (2, 4, 2, 128), (2, 2, 1, 256)]
    for pool, expected in zip(pools, slow_pools(state, images[1].transpose(2, 0, 1))):
        np.testing.assert_allclose(np.asarray(pool[1]).transpose(2, 0, 1), expected, atol=1e-4)
        assert expected.std() > 0.1


def test_what_is_wrong_with_a_file_is_named(state, tmp_path):
    path = tmp_path / "vgg16.pth"
    with pytest.raises(MissingFile, match=r"give the path of vgg16-397923af\.pth of https://"):
        vgg_pools.load(path)
    less = {name: array for name, array in state.items() if name != "features.7.bias"}
    write_zip(path, less | {"features.0.weight": np.ones((64, 1, 3, 3), np.float32)})
    with pytest.raises(weights.WeightsInvalid, match="missing: conv2_2/bias; wrong shape: conv1_1/kernel"):
        vgg_pools.load(path)
    write_zip(path, [1, 2])
    with pytest.raises(weights.WeightsInvalid, match="missing: conv1_1/kernel, conv1_1/bias"):
        vgg_pools.load(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(weights.WeightsInvalid, match=r"no file of torch\.save"):
        vgg_pools.load(path)
