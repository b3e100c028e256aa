"""PiDiNet against the authors' torch network, and every way its file can be wrong."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_files import write_plain, write_zip

from inpaint_jax.features import pidinet, torch_file, weights

PHOTOS = ("street_256crop", "bsds_100007")


@pytest.fixture(scope="module")
def file(shared):
    return shared / "weights" / pidinet.PIDINET.name


@pytest.fixture(scope="module")
def params(file):
    return pidinet.load(file)


@pytest.fixture(scope="module")
def references(shared):
    return {name: np.load(shared / "reference" / f"pidinet_{name}.npz") for name in PHOTOS}


def image_of(reference):
    return reference["image_uint8_rgb"][None] / np.float32(255)


# ------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("name", PHOTOS)
def test_all_outputs_match_the_authors_network(params, references, name):
    """The second photo has odd sides (321 x 481): poolings drop a row and a column, and the resize has odd scales."""
    outputs = jax.jit(pidinet.side_outputs)(params, image_of(references[name]))
    for output in ("e1", "e2", "e3", "e4", "fused"):
        assert outputs[output].dtype == jnp.float32
        np.testing.assert_allclose(outputs[output][0], references[name][output], atol=2e-5)


def test_a_batch_is_its_images(params, references):
    image = image_of(references["street_256crop"])
    images = np.concatenate([image[:, :40, :56], image[:, 100:140, 100:156], image[:, 200:240, 7:63]])
    singles = [pidinet.edge_map(params, one[None])[0] for one in images]
    np.testing.assert_allclose(pidinet.edge_map(params, images), singles, atol=1e-5)


@pytest.mark.parametrize(("size", "dtype"), [((8, 8), jnp.float32), ((9, 31), jnp.bfloat16), ((301, 15), jnp.float32)])
def test_images_of_any_size_and_float_type(params, size, dtype):
    output = jax.eval_shape(pidinet.edge_map, params, jax.ShapeDtypeStruct((2, *size, 3), dtype))
    assert (output.shape, output.dtype) == ((2, *size), jnp.float32)


def test_the_smallest_images_give_finite_edges(params):
    image = np.random.default_rng(0).uniform(size=(1, 9, 15, 3)).astype(np.float32)
    edges = np.asarray(pidinet.edge_map(params, image))
    assert edges.shape == (1, 9, 15)
    assert np.isfinite(edges).all()
    assert (edges >= 0).all()
    assert (edges <= 1).all()


@pytest.mark.parametrize("operation", ["cv", "cd", "ad", "rd"])
def test_difference_convolutions_by_their_definition(operation):
    """In numpy, pixel by pixel: weights times differences, as PiDiNet's paper has them."""
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(1, 9, 7, 2)), rng.normal(size=(2, 3, 3))
    taps = pidinet._as_plain(kernel, operation)
    actual = pidinet._depthwise(jnp.asarray(image, jnp.float32), taps, pidinet._TAPS[operation])

    clockwise = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    padded = np.pad(image[0], ((2, 2), (2, 2), (0, 0)))
    expected = np.zeros(image.shape[1:])
    for y, x in np.ndindex(expected.shape[:2]):

        def pixel(offset, factor=1, y=y, x=x):
            return padded[y + 2 + factor * offset[0], x + 2 + factor * offset[1]]

        for row, column in np.ndindex(3, 3):
            offset, weight = (row - 1, column - 1), kernel[:, row, column]
            if operation == "cv":
                value = pixel(offset)
            elif operation == "cd":
                value = pixel(offset) - pixel((0, 0))
            elif offset == (0, 0):
                continue
            elif operation == "ad":
                value = pixel(offset) - pixel(clockwise[(clockwise.index(offset) + 1) % 8])
            else:  # the authors number the ring from 1, in reading order, and leave weight 0 unused
                value = pixel(offset, 2) - pixel(offset)
                weight = kernel.reshape(2, 9)[:, 1 + sorted(clockwise).index(offset)]
            expected[y, x] += weight * value
    np.testing.assert_allclose(actual[0], expected, atol=1e-5)


def test_every_product_is_computed_in_full_precision(params):
    """A GPU would otherwise round to TF32 where the reference does not."""
    text = str(jax.make_jaxpr(pidinet.side_outputs)(params, jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)))
    lines = text.splitlines()
    products = sum("dot_general[" in line or "conv_general_dilated[" in line for line in lines)
    assert products >= 50
    assert "precision=None" not in text
    assert sum("precision=(Precision.HIGHEST" in line.replace(" ", "") for line in lines) >= products


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 1), (1, 8, 8, 4)])
def test_wrong_image_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\]"):
        pidinet.edge_map({}, jnp.zeros(shape))


def test_integer_images_are_refused():
    with pytest.raises(TypeError, match=r"floats in \[0, 1\]"):
        pidinet.edge_map({}, jnp.zeros((1, 16, 16, 3), jnp.uint8))


@pytest.mark.parametrize("size", [(7, 64), (64, 7)])
def test_images_too_small_for_the_last_stage_are_refused(size):
    with pytest.raises(ValueError, match="at least 8 x 8"):
        pidinet.edge_map({}, jnp.zeros((1, *size, 3)))


# ------------------------------------------------------------------------------------------------- the weights


def test_the_file_has_the_published_checksum(file):
    assert pidinet.PIDINET.matches(file)


@pytest.mark.parametrize("write", [write_plain, write_zip])
def test_loads_a_bare_state_dict_from_a_path_and_from_the_cache(tmp_path, monkeypatch, file, params, write):
    state = {name.removeprefix("module."): array for name, array in torch_file.read(file)["state_dict"].items()}
    published = pidinet.PIDINET
    write(tmp_path / published.name, state)
    digest = hashlib.sha256((tmp_path / published.name).read_bytes()).hexdigest()
    monkeypatch.setattr(pidinet, "PIDINET", weights.WeightsFile(published.name, published.url, f"sha256:{digest}"))
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path))
    for loaded in (pidinet.load(str(tmp_path / published.name)), pidinet.load()):
        assert jax.tree.structure(loaded) == jax.tree.structure(params)
        for actual, expected in zip(jax.tree.leaves(loaded), jax.tree.leaves(params)):
            assert actual.dtype == np.float32
            np.testing.assert_array_equal(actual, expected)


def test_no_file_at_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.pth"):
        pidinet.load(tmp_path / "nothing.pth")


def test_a_truncated_file_is_one_sentence(tmp_path, file):
    path = tmp_path / "cut.pth"
    path.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(weights.WeightsInvalid, match=r"cut\.pth is truncated or damaged") as error:
        pidinet.load(path)
    assert "\n" not in str(error.value)


def test_what_is_no_torch_file_is_one_sentence(tmp_path):
    path = tmp_path / "page.pth"
    path.write_text("<html>not found</html>")
    with pytest.raises(weights.WeightsInvalid, match=r"page\.pth is no file of torch\.save") as error:
        pidinet.load(path)
    assert "\n" not in str(error.value)


def test_a_state_dict_of_another_network_is_named(file):
    wrong = dict(torch_file.read(file)["state_dict"])
    del wrong["module.classifier.bias"]
    wrong["module.block4_5.conv1.weight"] = np.zeros((240, 1, 3, 3))
    wrong["module.init_block.weight"] = np.zeros((20, 3, 3, 3))
    with pytest.raises(weights.WeightsInvalid) as error:
        pidinet.from_state_dict({"state_dict": wrong}, source="table5_pidinet-tiny.pth")
    for part in (
        "table5_pidinet-tiny.pth",
        "missing: classifier.bias",
        "extra: block4_5.conv1.weight",
        "wrong shape: init_block.weight (20, 3, 3, 3) instead of (60, 3, 3, 3)",
    ):
        assert part in str(error.value)


def test_what_is_no_state_dict_is_named(tmp_path):
    write_zip(tmp_path / "x.pth", [np.zeros(3)])
    with pytest.raises(weights.WeightsInvalid, match="holds a list"):
        pidinet.load(tmp_path / "x.pth")


def test_an_empty_cache_without_network(tmp_path, monkeypatch):
    """The published address through a proxy at a closed port: no network, on any machine."""
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(weights.WeightsUnavailable) as error:
        pidinet.load()
    assert pidinet.PIDINET.url in str(error.value)
    assert str(tmp_path / pidinet.PIDINET.name) in str(error.value)
