"""The attentions that may stand in MHTMA's place, and what of a generator can be switched off or set by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint_jax.config import Config, Model
from inpaint_jax.nets.contextual import contextual_attention
from inpaint_jax.nets.generator import Generator
from inpaint_jax.nets.mhtma import ATMA, KINDS, MHTMA, make_attention
from inpaint_jax.nets.temperature import TemperatureNetwork
from inpaint_jax.systems.mhtma import make_generator


@pytest.fixture(scope="module")
def features():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 8))
    return x, jnp.zeros((2, 8, 8)).at[:, 2:4, 2:4].set(1)


@pytest.fixture(scope="module")
def generators():
    """Every kind with the shapes of its parameters."""
    image = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    mask = jnp.zeros((2, 32, 32)).at[0, 8:20, 8:20].set(1).at[1, 3:7, 20:32].set(1)
    made = {}
    for kind in KINDS:
        generator = Generator(width=4, attention=kind)
        made[kind] = generator, jax.eval_shape(generator.init, jax.random.key(0), image, mask)
    return made, image, mask


def make(kind, **options):
    return make_attention(kind, heads=2, patch_size=3, **options)


@pytest.mark.parametrize(("kind", "heads"), [("mhtma", 2), ("single", 1), ("contextual", 1), ("atma", 2)])
def test_each_kind_refines_at_its_temperatures(features, kind, heads):
    module = make(kind)
    params = module.init(jax.random.key(1), *features)
    refined, temperatures = module.apply(params, *features)
    assert refined.shape == features[0].shape
    expected = 0.1 if kind == "contextual" else np.log(2)
    np.testing.assert_allclose(temperatures, np.full((2, heads), expected), rtol=1e-6)


def test_contextual_has_nothing_to_learn(features):
    module = make("contextual")
    assert module.init(jax.random.key(1), *features) == {}
    np.testing.assert_array_equal(module.apply({}, *features)[0], contextual_attention(*features))


def test_atma_joins_its_heads_by_one_layer(features):
    """Both heads at the same temperature: the layer sees the same map twice."""
    module = make("atma")
    params = module.init(jax.random.key(1), *features)
    refined, temperatures = module.apply(params, *features)
    one = contextual_attention(*features, temperatures[:, 0])
    layer = params["params"]["fusion"]
    expected = jnp.concatenate([one, one], -1) @ layer["kernel"] + layer["bias"].reshape(1, 1, 1, -1)
    np.testing.assert_allclose(refined, expected, atol=1e-5)


def test_leaky_relu_lets_temperatures_fall_below_zero(features):
    network = TemperatureNetwork(2, activation="leaky_relu")
    params = network.init(jax.random.key(1), features[0])
    np.testing.assert_allclose(network.apply(params, features[0]), np.full((2, 2), np.log(2)), rtol=1e-6)
    params["params"]["dense"]["bias"] = jnp.array([-1.0, 0.5])
    np.testing.assert_allclose(network.apply(params, features[0]), [[-0.2, 0.5]] * 2, rtol=1e-6)
    module = make("mhtma", activation="leaky_relu")
    params = module.init(jax.random.key(1), *features)
    params["params"]["temperature"]["dense"]["bias"] = jnp.array([-1.0, 0.5])
    refined, temperatures = module.apply(params, *features)
    assert (temperatures[:, 0] < 0).all()
    assert jnp.isfinite(refined).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_temperature_needs_no_network(features, kind):
    module = make(kind, constant_temperature=0.25)
    params = module.init(jax.random.key(1), *features).get("params", {})
    assert "temperature" not in params
    assert (np.asarray(module.apply({"params": params}, *features)[1]) == 0.25).all()


def test_unknown_options_are_one_sentence():
    with pytest.raises(ValueError, match="mhtma, single, contextual, atma"):
        make("nonlocal")
    with pytest.raises(ValueError, match="softplus, leaky_relu"):
        make("mhtma", activation="relu")
    with pytest.raises(ValueError, match="must be positive"):
        make("mhtma", constant_temperature=-0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rest_of_the_network_stays(generators, kind):
    """Outside the attention itself the parameters are those of the paper's model: flax draws them by their names."""
    made, *_ = generators

    def rest(kind):
        leaves = jax.tree.leaves_with_path(made[kind][1]["params"])
        named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        return {name: leaf.shape for name, leaf in named.items() if "mhtma" not in name and "atma" not in name}

    assert rest("mhtma") == rest(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_of_each_kind_learns(features, kind):
    """And hands gradients on to what is in front of it; test_nets.py has the whole generator."""
    module = make(kind)
    x, mask = features
    params = module.init(jax.random.key(1), x, mask)
    loss = jax.jit(jax.grad(lambda params, x: jnp.mean(jnp.abs(module.apply(params, x, mask)[0] - 1)), (0, 1)))
    for path, leaf in jax.tree.leaves_with_path(loss(params, x)):
        name = jax.tree_util.keystr(path)
        assert jnp.isfinite(leaf).all(), name
        # The dense layer of the temperatures starts at zero, so that what is in front of it learns from step two on.
        if "temperature" not in name or "dense" in name:
            assert float(jnp.abs(leaf).max()) > 0, name


def test_branches_and_heads_can_be_switched_off(generators):
    made, image, mask = generators
    generator, _ = made["mhtma"]
    params = jax.jit(generator.init)(jax.random.key(0), image, mask)
    apply = jax.jit(generator.apply, static_argnames="without")
    whole = apply(params, image, mask)
    results = {
        off: apply(params, image, mask, without=(off,)) for off in ("convolution", "attention", "head_0", "head_1")
    }
    for off, outputs in results.items():
        np.testing.assert_allclose(outputs.coarse, whole.coarse, atol=1e-6)
        assert float(jnp.abs(outputs.refined - whole.refined).max()) > 1e-3, off

    # The same as if what reads the part that is off had weights of zero for its channels.
    readers = {
        "convolution": (("fusion",), slice(0, 16)),
        "attention": (("fusion",), slice(16, 32)),
        "head_0": (("attention_branch", "GatedConv_6"), slice(0, 8)),
        "head_1": (("attention_branch", "GatedConv_6"), slice(8, 16)),
    }
    for off, (path, channels) in readers.items():
        deaf = jax.tree.map(lambda leaf: leaf, params)
        layer = deaf["params"]["refinement"]
        for name in path:
            layer = layer[name]
        layer["conv"]["kernel"] = layer["conv"]["kernel"].at[:, :, channels].set(0)
        np.testing.assert_allclose(apply(deaf, image, mask).refined, results[off].refined, atol=1e-5, err_msg=off)


@pytest.mark.parametrize("kind", ["mhtma", "atma"])
def test_unknown_switches_are_named(generators, kind):
    made, image, mask = generators
    generator, params = made[kind]
    for off in ("head_2", "discriminator", "head"):
        with pytest.raises(ValueError, match=f"no '{off}' to do without"):
            jax.eval_shape(lambda params, off=off: generator.apply(params, image, mask, without=(off,)), params)


@pytest.mark.usefixtures("own_checks")
@pytest.mark.parametrize("kind", ["mhtma", "contextual"])
def test_temperatures_of_another_shape_are_refused(generators, kind):
    made, image, mask = generators
    generator, params = made[kind]
    for shape in ((2,), (2, 3), (1, 2)):
        with pytest.raises(ValueError, match="temperatures must be one for each image and head"):
            jax.eval_shape(lambda p, t: generator.apply(p, image, mask, temperatures=t), params, jnp.ones(shape))


@pytest.mark.parametrize("kind", KINDS)
def test_temperatures_can_be_set_by_hand(features, kind):
    """That a generator hands them on is seen in test_inference.py."""
    module = make(kind)
    params = module.init(jax.random.key(1), *features)
    apply = jax.jit(module.apply)
    refined, learned = apply(params, *features)
    same, _ = apply(params, *features, temperatures=learned)
    np.testing.assert_allclose(same, refined, atol=1e-5)
    cold, temperatures = apply(params, *features, temperatures=jnp.full(learned.shape, 1e-3))
    np.testing.assert_allclose(temperatures, np.full(learned.shape, 1e-3))
    assert float(jnp.abs(cold - refined).max()) > 1e-4


def test_fields_of_a_run_make_its_generator():
    model = Model(width=8, heads=4, patch_size=5, attention="atma", constant_temperature=0.5)
    made = make_generator(Config(model=model, dtype="bfloat16"))
    assert made == Generator(8, 4, 5, attention="atma", constant_temperature=0.5, dtype=jnp.dtype("bfloat16"))


def test_modules_keep_their_defaults():
    assert (MHTMA().activation, ATMA().activation) == ("softplus", "leaky_relu")
