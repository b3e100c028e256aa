"""FID's Inception against pytorch-fid's output, and every way its file can be wrong.

The reference outputs are pytorch-fid's own, of reproducible random weights: they prove the port, and are no FID.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from torch_files import write_plain, write_zip

from inpaint_jax import metrics
from inpaint_jax.features import inception, torch_file, weights


@pytest.fixture(scope="module")
def reference(shared):
    return np.load(shared / "reference" / "fid_architecture_random_weights.npz")


@pytest.fixture(scope="module")
def params(inception_state):
    return inception.from_state_dict(inception_state)


@pytest.fixture(scope="module")
def outputs(params, reference):
    """All outputs for the 16 photos."""
    images = reference["images_uint8_rgb"] / np.float32(255)
    return jax.tree.map(np.asarray, jax.jit(inception.features)(params, images))


# ------------------------------------------------------------------------------------------------- the network


def test_pool3_matches_pytorch_fid(outputs, reference):
    assert outputs["pool3"].dtype == np.float32
    np.testing.assert_allclose(outputs["pool3"], reference["pool3"], rtol=1e-4, atol=1e-5)  # values reach 3.2


@pytest.mark.parametrize(
    ("block", "shape"), [("block0", (16, 73, 73, 64)), ("block1", (16, 35, 35, 192)), ("block2", (16, 17, 17, 768))]
)
def test_intermediate_blocks_match_pytorch_fid(outputs, reference, block, shape):
    assert outputs[block].shape == shape
    np.testing.assert_allclose(outputs[block].mean(axis=(1, 2)), reference[f"{block}_mean"], rtol=1e-4, atol=2e-5)


def test_resize_matches_pytorch_fid(reference):
    images = reference["images_uint8_rgb"][:1] / np.float32(255)
    np.testing.assert_allclose(inception.resized(images)[0], reference["resized0"], atol=1e-6)


@pytest.mark.parametrize("shape", [(520, 140), (40, 700), (299, 299), (1, 1)])
def test_resize_of_any_size_is_bilinear_without_smoothing(shape):
    image = np.random.default_rng(0).uniform(size=(*shape, 3))
    expected = image
    for axis, size in enumerate(shape):
        position = np.clip((np.arange(299) + 0.5) * size / 299 - 0.5, 0, size - 1)
        below = np.floor(position).astype(int)
        above = np.minimum(below + 1, size - 1)
        share = (position - below).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        expected = np.take(expected, below, axis) * (1 - share) + np.take(expected, above, axis) * share
    np.testing.assert_allclose(inception.resized(jnp.asarray(image[None]))[0], expected, atol=1e-4)


def test_frechet_distance_of_the_reference_photos(outputs, reference):
    statistics = metrics.GaussianStatistics(2048), metrics.GaussianStatistics(2048)
    for part, features in zip(statistics, (outputs["pool3"][:8], outputs["pool3"][8:])):
        part.update(features[:3])
        part.update(features[3:])
    first, last = statistics
    distance = metrics.frechet_distance(first.mean, first.covariance, last.mean, last.covariance)
    assert distance == pytest.approx(float(reference["fid_first8_vs_last8"]), rel=1e-5)


def test_golden_picture_with_the_published_weights(shared):
    paths = [inception.FID_INCEPTION.path, shared / "weights" / inception.FID_INCEPTION.name]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        pytest.skip(f"{inception.FID_INCEPTION.name} is in neither the cache nor shared/weights: put it at {paths[0]}")
    photo = np.asarray(Image.open(shared / "reference" / "fid_golden_elefant.jpg").convert("RGB"))[None]
    expected = np.load(shared / "reference" / "fid_golden_elefant_pool3.npy").ravel()
    actual = jax.jit(inception.pool3, static_argnames="resize")(
        inception.load(path), photo / np.float32(255), resize=False
    )[0]
    # The picture went through another JPEG decoder and the weights through TensorFlow: no bit-exactness here.
    assert np.linalg.norm(actual - expected) < 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 256, 256, 3), jnp.bfloat16), ((1, 31, 500, 3), jnp.float32)])
def test_images_of_any_size_and_float_type(params, shape, dtype):
    output = jax.eval_shape(inception.pool3, params, jax.ShapeDtypeStruct(shape, dtype))
    assert (output.shape, output.dtype) == ((shape[0], 2048), jnp.float32)


def test_without_resize_from_75_pixels_on(params):
    def shape_of(size):
        return jax.eval_shape(
            lambda p, x: inception.features(p, x, resize=False),
            params,
            jax.ShapeDtypeStruct((1, *size, 3), jnp.float32),
        )

    assert shape_of((75, 75))["block2"].shape == (1, 3, 3, 768)
    assert shape_of((256, 100))["pool3"].shape == (1, 2048)
    with pytest.raises(ValueError, match="at least 75 x 75"):
        shape_of((74, 200))


def test_every_product_is_computed_in_full_precision(params):
    """A GPU would otherwise round to TF32 where the reference does not."""
    image = jax.ShapeDtypeStruct((1, 80, 80, 3), jnp.float32)
    for primitive, count in (("conv_general_dilated", 94), ("dot_general", 2)):
        found = products(jax.make_jaxpr(inception.pool3)(params, image).jaxpr, primitive)
        assert [precision for precision in found if "HIGHEST" not in str(precision)] == []
        assert len(found) >= count


def products(jaxpr, primitive):
    """Precisions of all such operations, also those in inner programs."""
    found = [equation.params["precision"] for equation in jaxpr.eqns if equation.primitive.name == primitive]
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            found += products(inner.jaxpr, primitive) if hasattr(inner, "jaxpr") else []
    return found


@pytest.mark.parametrize("function", [lambda x: inception.pool3({}, x), inception.resized])
@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 1), (1, 8, 8, 4)])
def test_wrong_image_shapes_are_refused(function, shape):
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\]"):
        function(jnp.zeros(shape))


@pytest.mark.parametrize("resize", [True, False])
def test_integer_images_are_refused(resize):
    with pytest.raises(TypeError, match=r"floats in \[0, 1\]"):
        inception.pool3({}, jnp.zeros((1, 80, 80, 3), jnp.uint8), resize=resize)


# ------------------------------------------------------------------------------------------------- the weights


def test_batch_norm_is_folded_exactly(inception_state, params):
    """In float64: convolution, then (x - mean) / sqrt(variance + 0.001) * gamma + beta, for one layer of a block."""
    name, layer = "Mixed_6b.branch7x7_2", params["Mixed_6b"]["branch7x7_2"]
    patch = np.random.default_rng(0).normal(size=(7, 128))
    gamma, beta, mean, variance = (
        inception_state[f"{name}.bn.{part}"].astype(float) for part in ("weight", "bias", "running_mean", "running_var")
    )
    convolved = np.einsum("wi,oiw->o", patch, inception_state[f"{name}.conv.weight"][:, :, 0].astype(float))
    expected = (convolved - mean) / np.sqrt(variance + 0.001) * gamma + beta
    np.testing.assert_allclose(np.einsum("wi,wio->o", patch, layer["kernel"][0]) + layer["bias"], expected, atol=2e-6)


def test_loads_a_torch_file_from_a_path_and_from_the_cache(tmp_path, monkeypatch, inception_state, params):
    """The published file has num_batches_tracked too, and its plain layout is that of torch before 1.6."""
    counted = {}
    for name, array in inception_state.items():
        counted[name] = array
        if name.endswith("running_var"):
            counted[name.replace("running_var", "num_batches_tracked")] = np.array(0)
    assert len(counted) == 566
    published = inception.FID_INCEPTION
    write_plain(tmp_path / published.name, counted)
    digest = hashlib.sha256((tmp_path / published.name).read_bytes()).hexdigest()
    monkeypatch.setattr(
        inception, "FID_INCEPTION", weights.WeightsFile(published.name, published.url, f"sha256:{digest}")
    )
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path))
    for loaded in (inception.load(str(tmp_path / published.name)), inception.load()):
        assert jax.tree.structure(loaded) == jax.tree.structure(params)
        for actual, expected in zip(jax.tree.leaves(loaded), jax.tree.leaves(params)):
            assert actual.dtype == np.float32
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("cached", [True, False])
def test_another_file_than_the_published_is_refused(tmp_path, monkeypatch, cached):
    path = tmp_path / inception.FID_INCEPTION.name
    write_zip(path, {"weight": np.zeros(3)})
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path))
    with pytest.raises(weights.WeightsInvalid) as error:
        inception.load(None if cached else path)
    for part in (str(path), inception.FID_INCEPTION.checksum, inception.FID_INCEPTION.url):
        assert part in str(error.value)


def test_no_file_at_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.pth"):
        inception.load(tmp_path / "nothing.pth")


def test_no_path_and_an_empty_cache_without_network(tmp_path, monkeypatch):
    """The published address through a proxy at a closed port: no network, on any machine."""
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(weights.WeightsUnavailable) as error:
        inception.load()
    assert inception.FID_INCEPTION.url in str(error.value)
    assert str(tmp_path / inception.FID_INCEPTION.name) in str(error.value)


def test_a_state_dict_of_another_network_is_named(inception_state):
    wrong = dict(inception_state)
    del wrong["Mixed_7c.branch_pool.bn.bias"]
    wrong["AuxLogits.fc.bias"] = np.zeros(1000)
    wrong["fc.weight"] = np.zeros((1000, 2048))
    with pytest.raises(weights.WeightsInvalid) as error:
        inception.from_state_dict(wrong, source="torchvision.pth")
    for part in (
        "torchvision.pth",
        "missing: Mixed_7c.branch_pool.bn.bias",
        "extra: AuxLogits.fc.bias",
        "wrong shape: fc.weight (1000, 2048) instead of (1008, 2048)",
    ):
        assert part in str(error.value)


def test_what_is_no_state_dict_is_named(tmp_path):
    write_zip(tmp_path / "x.pth", [np.zeros(3)])
    with pytest.raises(weights.WeightsInvalid, match="holds a list"):
        inception.from_state_dict(torch_file.read(tmp_path / "x.pth"))
