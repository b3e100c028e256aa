"""Networks that add to a fill of the hole, against those that paint the whole image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage

from inpaint_jax.nets.fill import FILLS
from inpaint_jax.nets.generator import CoarseNetwork, Generator

PHOTO = skimage.data.astronaut()[60:220:5, 150:310:5] / np.float32(255)  # 32 x 32


@pytest.fixture(scope="module")
def residual():
    """A generator of residuals with its parameters, two photos with holes, and a jitted call."""
    generator = Generator(width=4, fill="tension_spline", output="residual")
    image = np.stack([PHOTO, PHOTO[::-1, ::-1]])
    mask = np.zeros((2, 32, 32), np.float32)
    mask[0, 8:20, 8:20] = mask[1, 3:7, 20:] = mask[1, 25:, :9] = 1
    params = jax.jit(generator.init)(jax.random.key(0), image, mask)
    return generator, params, image, mask, jax.jit(generator.apply)


def louder(params):
    """The same parameters, but the last layers as they start where the output is an image."""
    return jax.tree.map_with_path(lambda path, leaf: 100 * leaf if path[-2].key == "image" else leaf, params)


@pytest.mark.parametrize("scale", [lambda params: params, louder])
def test_given_pixels_come_back(residual, scale):
    _, params, image, mask, apply = residual
    outputs = apply(scale(params), image, mask)
    given = mask == 0
    np.testing.assert_array_equal(outputs.filled[given], image[given])
    np.testing.assert_array_equal(outputs.completed[given], image[given])
    for made in (outputs.coarse, outputs.refined):
        np.testing.assert_allclose(made[given], image[given], atol=1e-7)  # [0, 1] -> [-1, 1] -> [0, 1]
        np.testing.assert_array_equal(np.rint(255 * made[given]), np.rint(255 * image[given]))
        assert float(made.min()) >= 0
        assert float(made.max()) <= 1
    np.testing.assert_array_equal(outputs.completed[mask > 0], outputs.refined[mask > 0])


def test_untrained_it_is_the_fill(residual):
    _, params, image, mask, apply = residual
    outputs = apply(params, image, mask)
    np.testing.assert_allclose(outputs.filled, jax.jit(FILLS["tension_spline"])(image, mask), atol=1e-5)
    for made in (outputs.coarse, outputs.refined):
        np.testing.assert_allclose(made, outputs.filled, atol=0.02)
        assert np.abs(made - outputs.filled)[mask > 0].max() > 0
    assert np.abs(apply(louder(params), image, mask).refined - outputs.filled)[mask > 0].max() > 0.02


def test_what_the_hole_holds_is_never_looked_at(residual):
    _, params, image, mask, apply = residual
    spoiled = np.where(mask[..., None] > 0, np.float32(np.nan), image)
    jax.tree.map(np.testing.assert_array_equal, apply(params, spoiled, mask), apply(params, image, mask))


def test_it_learns_in_the_hole(residual):
    """All gradients are finite, and the error outside of the hole has none, for there is none."""
    _, params, image, mask, apply = residual

    def loss(params, part):
        outputs = apply(params, image, mask)
        error = jnp.abs(outputs.coarse - image) + jnp.abs(outputs.refined - image)
        return jnp.mean(part[..., None] * error)

    slopes = jax.jit(jax.grad(loss))
    inside = slopes(params, mask)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(inside))
    for stage in ("coarse", "refinement"):
        assert float(jnp.abs(inside["params"][stage]["decoder"]["image"]["kernel"]).max()) > 0
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(slopes(params, 1 - mask)))


def test_any_size(residual):
    _, params, _, _, apply = residual
    image = np.random.default_rng(0).random((1, 13, 17, 3), np.float32)
    mask = np.zeros((1, 13, 17), bool)
    mask[:, :7, 3:] = True
    outputs = apply(params, image, mask)
    assert outputs.completed.shape == image.shape
    assert bool(jnp.isfinite(outputs.completed).all())
    np.testing.assert_array_equal(outputs.completed[~mask], image[~mask])


def test_parameters_have_the_same_names_and_only_the_last_layers_start_smaller(residual):
    _, params, image, mask, _ = residual
    others = jax.jit(Generator(width=4).init)(jax.random.key(0), image, mask)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), louder(params), others)


def test_an_image_is_what_the_network_paints(residual):
    """Everywhere, from the constant fill: as it was before there was a choice."""
    _, params, image, mask, _ = residual
    outputs = jax.jit(Generator(width=4).apply)(params, image, mask)
    start = 2 * FILLS["constant"](image, mask) - 1
    painted = jax.jit(CoarseNetwork(4).apply)(
        {"params": params["params"]["coarse"]}, jnp.concatenate([start, mask[..., None]], axis=-1)
    )
    np.testing.assert_allclose(outputs.coarse, (np.tanh(painted) + 1) / 2, atol=1e-5)
    assert np.abs(outputs.refined - image)[mask == 0].mean() > 0.05


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fill": "telea"}, "fill must be constant or tension_spline, not 'telea'"),
        ({"output": "sum"}, "output must be image or residual, not 'sum'"),
    ],
)
def test_unknown_names(fields, message):
    image = jnp.zeros((1, 16, 16, 3))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(Generator(width=4, **fields).init, jax.random.key(0), image, image[..., 0])


def test_skips_widen_the_decoders_alone(residual):
    """Names of parameters stay; only the two layers of each decoder that read the skips are wider."""
    generator, params, image, mask, _ = residual
    more = jax.eval_shape(generator.clone(skips=True).init, jax.random.key(0), image, mask)
    assert jax.tree.structure(more) == jax.tree.structure(params)
    widened = {
        "/".join(key.key for key in path[1:-2])
        for path, leaf in jax.tree.leaves_with_path(more)
        if leaf.shape != np.shape(_at(params, path))
    }
    assert widened == {f"{part}/decoder/gated_{i}" for part in ("coarse", "refinement") for i in range(2)}


def _at(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree
