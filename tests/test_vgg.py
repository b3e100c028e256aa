"""VGG-16 ReLU1_2 against torch's output, and every way its file can be wrong."""

import hashlib

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint_jax.features import vgg, weights

LAYERS = {"block1_conv1": "conv1_1", "block1_conv2": "conv1_2"}


@pytest.fixture(scope="module")
def npz(shared):
    return shared / "weights" / "vgg16_oxford_block1.npz"


@pytest.fixture(scope="module")
def params(npz):
    return vgg.load(npz)


@pytest.fixture
def random_params():
    """Weights of the right shapes, for what does not depend on their values (or on the shared folder)."""
    rng = np.random.default_rng(0)
    return {
        "conv1_1": {"kernel": rng.normal(size=(3, 3, 3, 64)), "bias": rng.normal(size=64)},
        "conv1_2": {"kernel": rng.normal(size=(3, 3, 64, 64)), "bias": rng.normal(size=64)},
    }


def write_npz(path, params):
    np.savez(path, note="cut", **{f"{layer}_{kind}": a for layer, part in params.items() for kind, a in part.items()})


def write_keras(path, params, names=("{}_W_1:0", "{}_b_1:0"), layers=LAYERS):
    """The layout of Keras' file: a group a layer, whose attribute lists the data sets in it."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input_1", *(layer.encode() for layer in layers), b"block5_pool"]
        file.create_group("input_1").attrs["weight_names"] = []
        for group_name, layer in layers.items():
            group = file.create_group(group_name)
            paths = [name.format(group_name) for name in names]
            group.attrs["weight_names"] = [p.encode() for p in paths]
            for dataset, kind in zip(paths, ("kernel", "bias")):
                group[dataset] = params[layer][kind]


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, np.asarray(e, np.float32))


def test_matches_torch_on_photos(params, shared):
    reference = np.load(shared / "reference" / "vgg16_relu1_2.npz")
    photos = np.stack([reference["image0_uint8_rgb"], reference["image1_uint8_rgb"]])
    with jax.default_matmul_precision("highest"):
        features = jax.jit(vgg.relu1_2)(params, photos / np.float32(255))
    expected = np.stack([reference["relu1_2_0"], reference["relu1_2_1"]])
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, expected, atol=5e-3)  # values reach 3,200: 1.6e-6 of that


def test_l1_between_photos_matches_torch(params, shared):
    reference = np.load(shared / "reference" / "vgg16_relu1_2.npz")
    photos = np.stack([reference["image0_uint8_rgb"], reference["image0_blurred_uint8_rgb"]]) / np.float32(255)
    sharp, blurred = vgg.relu1_2(params, photos)
    assert jnp.abs(sharp - blurred).mean() == pytest.approx(float(reference["relu1_2_L1_image0_vs_blurred"]), rel=1e-4)


def test_scale_brings_activations_of_photos_to_about_one(params, shared):
    photo = np.load(shared / "reference" / "vgg16_relu1_2.npz")["image1_uint8_rgb"][None] / np.float32(255)
    assert 0.5 < vgg.PERCEPTUAL_SCALE * vgg.relu1_2(params, photo).mean() < 2


def test_gradient_to_the_images_is_finite_and_right(params, shared):
    photo = np.load(shared / "reference" / "vgg16_relu1_2.npz")["image0_uint8_rgb"][None, :24, :24] / np.float32(255)

    def loss(images):
        return jnp.abs(vgg.relu1_2(params, images)).mean()

    direction = np.random.default_rng(0).normal(size=photo.shape).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        gradient = jax.jit(jax.grad(loss))(photo)
        step = 1e-3
        numeric = (loss(photo + step * direction) - loss(photo - step * direction)) / (2 * step)
    assert np.isfinite(gradient).all()
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-2)


def test_padding_is_the_mean_colour(random_params):
    """On an image of the mean colour the input is zero up to and beyond the border, so relu1_1 is flat there."""
    mean = np.broadcast_to(np.float32(vgg.MEAN_RGB) / 255, (1, 8, 8, 3))
    random_params["conv1_2"]["kernel"][...] = 0
    random_params["conv1_2"]["kernel"][1, 1] = np.eye(64)  # hands on relu1_1
    random_params["conv1_2"]["bias"][...] = 0
    features = vgg.relu1_2(random_params, jnp.asarray(mean))
    np.testing.assert_allclose(
        features, np.broadcast_to(np.maximum(random_params["conv1_1"]["bias"], 0), features.shape), atol=1e-4
    )


def test_half_precision_images_are_computed_in_float32(random_params):
    images = np.random.default_rng(1).uniform(size=(1, 6, 6, 3))
    half = jnp.asarray(images, jnp.bfloat16)
    features = vgg.relu1_2(random_params, half)
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, vgg.relu1_2(random_params, half.astype(jnp.float32)))


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 1), (1, 8, 8, 4)])
def test_wrong_image_shapes_are_refused(random_params, shape):
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\]"):
        vgg.relu1_2(random_params, jnp.zeros(shape))


def test_integer_images_are_refused(random_params):
    with pytest.raises(TypeError, match=r"floats in \[0, 1\]"):
        vgg.relu1_2(random_params, jnp.zeros((1, 8, 8, 3), jnp.uint8))


@pytest.mark.parametrize(
    "names",
    [("{}_W_1:0", "{}_b_1:0"), ("{}/kernel:0", "{}/bias:0")],
    ids=["published file", "later Keras"],
)
def test_reads_keras_hdf5(tmp_path, random_params, names):
    write_keras(tmp_path / "vgg.h5", random_params, names)
    assert_same(vgg.load(tmp_path / "vgg.h5"), random_params)


def test_keras_hdf5_and_npz_give_the_same(tmp_path, params):
    write_keras(tmp_path / "vgg.h5", params)
    assert_same(vgg.load(str(tmp_path / "vgg.h5")), params)


def test_reads_npz_whatever_its_name(tmp_path, random_params):
    write_npz(tmp_path / "vgg.npz", random_params)
    assert_same(vgg.load((tmp_path / "vgg.npz").rename(tmp_path / "weights.bin")), random_params)


@pytest.mark.parametrize("write", [write_npz, write_keras])
def test_wrong_shape_is_named(tmp_path, random_params, write):
    random_params["conv1_2"]["kernel"] = random_params["conv1_2"]["kernel"][..., :32]
    write(tmp_path / "vgg.npz", random_params)
    with pytest.raises(weights.WeightsInvalid, match=r"wrong shape: conv1_2/kernel \(3, 3, 64, 32\) instead of"):
        vgg.load(tmp_path / "vgg.npz")


def test_missing_arrays_of_an_npz_are_named(tmp_path, random_params):
    del random_params["conv1_1"]["bias"], random_params["conv1_2"]
    write_npz(tmp_path / "vgg.npz", random_params)
    with pytest.raises(weights.WeightsInvalid, match="missing: conv1_1/bias, conv1_2/kernel, conv1_2/bias"):
        vgg.load(tmp_path / "vgg.npz")


def test_missing_group_of_an_hdf5_is_named(tmp_path, random_params):
    write_keras(tmp_path / "vgg.h5", random_params, layers={"block1_conv1": "conv1_1"})
    with pytest.raises(weights.WeightsInvalid, match="missing: conv1_2/kernel, conv1_2/bias"):
        vgg.load(tmp_path / "vgg.h5")


@pytest.mark.parametrize("write", [write_npz, write_keras])
@pytest.mark.parametrize("kept", [0.0, 0.5], ids=["empty", "truncated"])
def test_damaged_file_is_named(tmp_path, random_params, write, kept):
    path = tmp_path / "vgg.npz"
    write(path, random_params)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(weights.WeightsInvalid, match=r"vgg\.npz cannot be read"):
        vgg.load(path)


def test_flipped_bytes_in_an_npz_are_noticed(tmp_path, random_params):
    path = tmp_path / "vgg.npz"
    write_npz(path, random_params)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(weights.WeightsInvalid, match="cannot be read"):
        vgg.load(path)


def test_no_file_at_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.h5"):
        vgg.load(tmp_path / "nothing.h5")


def test_no_path_and_an_empty_cache_without_network(tmp_path, monkeypatch):
    """The published address through a proxy at a closed port: no network, on any machine."""
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(weights.WeightsUnavailable) as error:
        vgg.load()
    assert vgg.VGG16.url in str(error.value)
    assert str(tmp_path / vgg.VGG16.name) in str(error.value)


def test_no_path_reads_the_cache_and_checks_the_published_checksum(tmp_path, monkeypatch, random_params):
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path))
    cached = tmp_path / vgg.VGG16.name
    write_keras(cached, random_params)
    with pytest.raises(weights.WeightsInvalid, match="checksum"):  # ours is not the published file
        vgg.load()
    monkeypatch.setattr(
        vgg,
        "VGG16",
        weights.WeightsFile(cached.name, vgg.VGG16.url, "md5:" + hashlib.md5(cached.read_bytes()).hexdigest()),
    )
    assert_same(vgg.load(), random_params)
