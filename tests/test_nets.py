"""The networks against the tables of design and paper."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint_jax.nets import attention, tiles
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator, local_crops
from inpaint_jax.nets.fill import HOLE_COLOUR
from inpaint_jax.nets.generator import Generator
from inpaint_jax.nets.layers import GatedConv, UpsampledGatedConv
from inpaint_jax.nets.mhtma import MHTMA
from inpaint_jax.nets.temperature import TemperatureNetwork


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(module, *args, **kwargs):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs))


@pytest.fixture(scope="module")
def tiny():
    """A generator of four channels with its parameters, and a jitted call."""
    generator = Generator(width=4)
    image = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    mask = jnp.zeros((2, 32, 32)).at[0, 8:20, 8:20].set(1).at[1, 3:7, 20:32].set(1)
    params = jax.jit(generator.init)(jax.random.key(0), image, mask)
    return generator, params, image, mask, jax.jit(generator.apply)


def gated(kernel, inputs, outputs):
    """Parameters of a gated convolution: two halves, each with a bias."""
    return 2 * outputs * (kernel * kernel * inputs + 1)


def expected_parameters(w, channels):
    """The table of the design, line by line: kernel, channels in, channels out."""
    middle = 4 * gated(3, 4 * w, 4 * w)  # d2, d4, d8, d16
    decoder = gated(3, 4 * w, 2 * w) + gated(3, 2 * w, 2 * w) + gated(3, 2 * w, w) + gated(3, w, w // 2)
    decoder += 3 * (9 * (w // 2) + 1)  # the plain one
    return {
        "coarse": gated(5, channels, w)
        + gated(3, w, 2 * w)
        + gated(3, 2 * w, 2 * w)
        + gated(3, 2 * w, 4 * w)
        + 2 * gated(3, 4 * w, 4 * w)
        + middle
        + 2 * gated(3, 4 * w, 4 * w)
        + decoder,
        "convolution branch": gated(5, channels, w)
        + gated(3, w, w)
        + gated(3, w, 2 * w)
        + gated(3, 2 * w, 2 * w)
        + gated(3, 2 * w, 4 * w)
        + gated(3, 4 * w, 4 * w)
        + middle,
        "attention branch without MHTMA": gated(5, channels, w)
        + gated(3, w, w)
        + gated(3, w, 2 * w)
        + gated(3, 2 * w, 4 * w)
        + 2 * gated(3, 4 * w, 4 * w)
        + 2 * gated(3, 4 * w, 4 * w),
        "decoder": gated(3, 8 * w, 4 * w) + decoder,
    }


@pytest.mark.parametrize(("width", "channels", "total"), [(24, 4, 3_887_598), (24, 5, 3_891_198), (8, 4, None)])
def test_generator_parameters(width, channels, total):
    image = jnp.zeros((1, 64, 64, 3))
    params = shapes_of(Generator(width), image, image[..., 0], None if channels == 4 else image[..., 0])["params"]
    refinement = params["refinement"]
    mhtma = count(refinement["attention_branch"]["mhtma"])
    counted = {
        "coarse": count(params["coarse"]),
        "convolution branch": count(refinement["convolution_branch"]),
        "attention branch without MHTMA": count(refinement["attention_branch"]) - mhtma,
        "decoder": count(refinement["decoder"]) + count(refinement["fusion"]),
    }
    assert counted == expected_parameters(width, channels)
    assert count(params) - mhtma == sum(counted.values())
    assert total in (None, sum(counted.values()))


def test_mhtma_parameters():
    params = shapes_of(MHTMA(heads=2), jnp.zeros((1, 16, 16, 96)), jnp.zeros((1, 16, 16)))["params"]
    convolutions = 9 * 96 * 48 + 48 + 3 * (9 * 48 * 48 + 48)
    assert count(params["temperature"]) == convolutions + 2 * 48 * 2 + 2
    assert count(params["embedding_0"]) == count(params["embedding_1"]) == 96 * 48 + 48
    assert count(params) == 113_378


def test_discriminator_parameters():
    image = jnp.zeros((1, 256, 256, 3))
    params = shapes_of(GlobalLocalDiscriminator(), image, image[:, :128, :128], update_stats=False)["params"]
    kernels = {name: leaf["kernel"].shape for name, leaf in params.items()}
    channels = [3, 64, 128, 256, 512, 512, 512]
    for branch, layers in (("global", 6), ("local", 5)):
        for i in range(layers):
            assert kernels[f"{branch}_conv_{i}"] == (5, 5, channels[i], channels[i + 1])
        assert kernels[f"{branch}_dense"] == (4 * 4 * 512, 1024)
    assert kernels["logit"] == (2048, 1)
    assert len(kernels) == 14


def test_all_parameters_are_float32_and_bfloat16_only_computes(tiny):
    _, params, image, mask, apply = tiny
    generator = Generator(width=4, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(generator, image, mask))} == {jnp.dtype("float32")}
    outputs = jax.jit(generator.apply)(params, image, mask)
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}
    reference = apply(params, image, mask)
    np.testing.assert_allclose(outputs.coarse, reference.coarse, atol=0.03)
    assert float(jnp.abs(outputs.refined - reference.refined).mean()) < 0.02


def test_gated_convolution_is_elu_times_sigmoid():
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 3))
    layer = GatedConv(4, stride=2)
    params = jax.jit(layer.init)(jax.random.key(1), x)
    both = nn.Conv(8, (3, 3), strides=2).apply({"params": params["params"]["conv"]}, x)
    a, b = np.asarray(both[..., :4], np.float64), np.asarray(both[..., 4:], np.float64)
    expected = np.where(a > 0, a, np.expm1(a)) / (1 + np.exp(-b))
    np.testing.assert_allclose(layer.apply(params, x), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_up_sampling_repeats_pixels(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 2))
    direction = jax.random.normal(jax.random.key(2), (2, 2 * size[0], 2 * size[1], 4))
    up = UpsampledGatedConv(4)
    params = up.init(jax.random.key(1), x)

    def repeated(params, x):
        doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return GatedConv(4).apply({"params": params["params"]["gated"]}, doubled)

    np.testing.assert_allclose(up.apply(params, x), repeated(params, x), atol=2e-6)
    actual, expected = (
        jax.jit(jax.grad(lambda *at, layer=layer: jnp.sum(direction * layer(*at)), argnums=(0, 1)))(params, x)
        for layer in (up.apply, repeated)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max())), actual, expected)


def test_outputs_are_images_and_given_pixels_are_kept(tiny):
    _, params, image, mask, apply = tiny
    outputs = apply(params, image, mask)
    for picture in (outputs.coarse, outputs.refined, outputs.completed):
        assert picture.shape == image.shape
        assert float(picture.min()) >= 0
        assert float(picture.max()) <= 1
    hole = np.asarray(mask)[..., None] > 0
    np.testing.assert_array_equal(np.where(hole, 0, outputs.completed), np.where(hole, 0, image))
    np.testing.assert_array_equal(np.where(hole, outputs.completed, 0), np.where(hole, outputs.refined, 0))


def test_what_the_hole_holds_is_never_looked_at(tiny):
    _, params, image, mask, apply = tiny
    other = jnp.where(mask[..., None] > 0, 1 - image, image)
    jax.tree.map(np.testing.assert_array_equal, apply(params, image, mask), apply(params, other, mask))


def test_hole_is_filled_with_the_imagenet_mean(tiny):
    _, params, image, mask, apply = tiny
    filled = jnp.where(mask[..., None] > 0, jnp.asarray(HOLE_COLOUR), image)
    np.testing.assert_array_equal(apply(params, filled, mask).coarse, apply(params, image, mask).coarse)
    assert HOLE_COLOUR == (0.485, 0.456, 0.406)


def test_samples_of_a_batch_do_not_see_each_other(tiny):
    _, params, image, mask, apply = tiny
    together = apply(params, image, mask)
    alone = apply(params, image[1:], mask[1:])
    np.testing.assert_allclose(together.refined[1:], alone.refined, atol=1e-5)
    np.testing.assert_allclose(together.temperatures[1:], alone.temperatures, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (13, 5), (37, 50)])
def test_any_size(tiny, size):
    _, params, _, _, apply = tiny
    image = jax.random.uniform(jax.random.key(0), (1, *size, 3))
    mask = jnp.zeros((1, *size)).at[:, : size[0] // 2 + 1].set(1)
    outputs = apply(params, image, mask)
    assert outputs.completed.shape == image.shape
    assert bool(jnp.isfinite(outputs.completed).all())


def test_other_sizes_are_padded_by_reflection_and_cropped(tiny):
    _, params, image, mask, apply = tiny
    mask = mask.at[:, :, 28:].set(0)
    narrow = apply(params, image[:, :, :31], mask[:, :, :31])
    padded = jnp.concatenate([image[:, :, :31], image[:, :, 29:30]], axis=2)
    whole = apply(params, padded, mask)
    np.testing.assert_allclose(narrow.completed, whole.completed[:, :, :31], atol=1e-6)
    np.testing.assert_allclose(narrow.temperatures, whole.temperatures, rtol=1e-6)


@pytest.mark.parametrize("margin", [0, 6])
def test_what_is_far_from_the_hole_may_be_left_out(tiny, monkeypatch, margin):
    """In tiles of one pixel, as large maps are refined by tiles: the reach of all layers behind the attention."""
    generator, params, *_ = tiny
    image = jax.random.uniform(jax.random.key(2), (1, 96, 96, 3))
    mask = jnp.zeros((1, 96, 96)).at[0, 8:13, 70:75].set(1).at[0, 90, 3].set(1)
    for name in ("_LARGEST_GRAM", "_LARGEST_GRAM_CPU"):
        monkeypatch.setattr(attention, name, 0)
    monkeypatch.setattr(tiles, "_queries_at_a_time", lambda *_: 1)
    # New functions: what is cached of others was traced with other numbers.
    whole = jax.jit(lambda *args: generator.apply(*args))(params, image, mask)
    part = jax.jit(lambda *args: generator.apply(*args, margin=margin))(params, image, mask)
    np.testing.assert_allclose(part.completed, whole.completed, atol=1e-5)
    near = jnp.zeros((96, 96), bool).at[8 - margin : 13 + margin, 70 - margin : 75 + margin].set(True)
    near = near.at[90 - margin : 91 + margin, max(0, 3 - margin) : 4 + margin].set(True)
    np.testing.assert_allclose(part.refined[0, near], whole.refined[0, near], atol=1e-5)
    assert jnp.abs(part.refined - whole.refined)[0, 40:60, 20:40].max() > 1e-3


def test_temperatures_start_at_ln_2(tiny):
    _, params, image, mask, apply = tiny
    np.testing.assert_allclose(apply(params, image, mask).temperatures, np.full((2, 2), np.log(2)), rtol=1e-6)


def test_temperatures_are_positive_and_differ_by_image():
    network = TemperatureNetwork(heads=3)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 6))
    params = network.init(jax.random.key(1), x)
    dense = params["params"]["dense"]
    dense["kernel"] = 3 * jax.random.normal(jax.random.key(2), dense["kernel"].shape)
    temperatures = network.apply(params, x)
    assert temperatures.shape == (4, 3)
    assert float(temperatures.min()) > 0
    assert len(np.unique(np.asarray(temperatures))) == 12


def test_everything_learns_from_the_first_step(tiny):
    generator, params, image, mask, _ = tiny
    loss = lambda p: jnp.mean(jnp.abs(generator.apply(p, image, mask).refined - image))  # noqa: E731
    gradients = jax.jit(jax.grad(loss))(params)["params"]
    dense = gradients["refinement"]["attention_branch"]["mhtma"]["temperature"]["dense"]["kernel"]
    assert float(jnp.abs(dense).max()) > 0
    assert not np.allclose(dense[:, 0], dense[:, 1], atol=0), "the heads would never part"
    # No stop-gradient: the refined image teaches the coarse network.
    for path, leaf in jax.tree.leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert jnp.isfinite(leaf).all(), name
        # The dense layer of the temperatures starts at zero, so that what is in front of it learns from step two on.
        if "temperature" not in name or "dense" in name:
            assert float(jnp.abs(leaf).max()) > 0, name


def test_heads_see_their_own_embeddings_and_are_concatenated():
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 8))
    mask = jnp.zeros((1, 6, 6)).at[:, 2:4, 2:4].set(1)
    module = MHTMA(heads=2)
    params = module.init(jax.random.key(1), x, mask)
    refined, _ = module.apply(params, x, mask)
    assert refined.shape == x.shape
    changed = jax.tree.map(lambda leaf: leaf, params)
    changed["params"]["embedding_1"]["kernel"] = -changed["params"]["embedding_1"]["kernel"]
    other, _ = module.apply(changed, x, mask)
    np.testing.assert_array_equal(refined[..., :4], other[..., :4])
    assert not np.allclose(refined[..., 4:], other[..., 4:])


@pytest.mark.usefixtures("own_checks")
def test_shapes_that_do_not_fit_are_named(tiny):
    generator, params, image, mask, _ = tiny
    with pytest.raises(ValueError, match=r"mask must be \[batch, height, width\]"):
        generator.apply(params, image, mask[:, :-1])
    with pytest.raises(ValueError, match=r"image must be \[batch, height, width, 3\]"):
        generator.apply(params, image[..., :1], mask)
    with pytest.raises(ValueError, match="do not divide over 3 heads"):
        shapes_of(MHTMA(heads=3), jnp.zeros((1, 8, 8, 8)), jnp.zeros((1, 8, 8)))


def test_local_crops():
    image = jnp.arange(2 * 6 * 6 * 1).reshape(2, 6, 6, 1)
    crops = local_crops(image, jnp.array([[0, 3], [2, 1]]), 3)
    np.testing.assert_array_equal(crops[0], image[0, 0:3, 3:6])
    np.testing.assert_array_equal(crops[1], image[1, 2:5, 1:4])


def test_spectral_norm_brings_every_layer_to_one():
    """The largest singular value of every kernel that is applied, by numpy, after some power iterations."""
    module = GlobalLocalDiscriminator(width=8, features=32)
    image = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3))
    crop = image[:, :32, :32]
    variables = jax.jit(partial(module.init, update_stats=False))(jax.random.key(1), image, crop)
    update = jax.jit(lambda v: module.apply(v, image, crop, update_stats=True, mutable=["batch_stats"])[1])
    for _ in range(100):
        variables = {**variables, **update(variables)}
    for name, layer in variables["params"].items():
        kernel = np.asarray(layer["kernel"], np.float64)
        largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        sigma = float(variables["batch_stats"][f"{name}_norm"][f"{name}/kernel/sigma"])
        assert largest / sigma == pytest.approx(1, abs=0.02), name


def test_discriminator_output_does_not_depend_on_the_scale_of_its_kernels():
    module = GlobalLocalDiscriminator(width=4, features=8)
    image = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3))
    crop = image[:, 16:48, 16:48]
    variables = jax.jit(partial(module.init, update_stats=False))(jax.random.key(1), image, crop)
    scaled = jax.tree.map(lambda leaf: 7 * leaf if leaf.ndim > 1 else leaf, variables["params"])
    apply = jax.jit(partial(module.apply, update_stats=False))
    expected = apply(variables, image, crop)
    got = apply({**variables, "params": scaled}, image, crop)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize("layer", [GatedConv(8), UpsampledGatedConv(8)], ids=["plain", "upsampled"])
def test_gradients_in_bfloat16_are_those_of_float32(layer):
    """That of a bias too, which is a sum over all pixels: summed in bfloat16 it was half as long."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 8)), jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)

    def gradient(dtype):
        def loss(params):
            result = layer.clone(dtype=dtype).apply(params, x.astype(dtype))
            assert result.dtype == dtype
            return jnp.mean(jnp.abs(result.astype(jnp.float32) - 0.3))

        return jax.jit(jax.grad(loss))(params)

    exact, rounded = gradient(jnp.float32), gradient(jnp.bfloat16)
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rounded), strict=True):
        assert jnp.linalg.norm(a - b) < 0.02 * jnp.linalg.norm(a)
