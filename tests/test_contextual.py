"""Contextual attention, both ways of computing it, against Algorithm 2 in loops."""

import attention_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_reference import assert_agrees, differences

from inpaint_jax.nets.contextual import METHODS, TEMPERATURE, contextual_attention

attend = jax.jit(contextual_attention, static_argnames=("patch_size", "method"))
each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def sample(height=7, width=5, channels=4, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(batch, height, width, channels)).astype(np.float32)
    mask = np.zeros((batch, height, width), np.float32)
    for b in range(batch):
        mask[b, b : b + 2, b : b + 2] = 1
    return features, mask, np.linspace(0.3, 1.2, batch, dtype=np.float32)


@each_method
@pytest.mark.parametrize(("height", "width", "patch_size"), [(7, 5, 3), (5, 6, 1), (6, 5, 2), (5, 5, 5)])
def test_agrees_with_algorithm_2(method, height, width, patch_size):
    features, mask, temperature = sample(height, width)
    refined = attend(features, mask, temperature, patch_size=patch_size, method=method)
    assert_agrees(refined, reference.contextual_attention(features, mask, temperature, patch_size))


@each_method
def test_the_temperature_is_a_tenth_by_default(method):
    features, mask, _ = sample()
    expected = reference.contextual_attention(features, mask, np.full(2, TEMPERATURE))
    assert TEMPERATURE == 0.1
    assert_agrees(attend(features, mask, method=method), expected)


@each_method
def test_below_zero_the_worst_match_wins(method):
    features, mask, _ = sample()
    temperature = np.float32([-0.4, -2.0])
    refined = attend(features, mask, temperature, method=method)
    assert_agrees(refined, reference.contextual_attention(features, mask, temperature))


@each_method
def test_queries_keep_their_length(method):
    """What sets it apart from eq. (7): twice the features at twice the temperature are twice the result."""
    features, mask, temperature = sample()
    once, twice = (attend(k * features, mask, k * temperature, method=method) for k in (1, 2))
    np.testing.assert_allclose(twice, 2 * np.asarray(once), rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(attend(2 * features, mask, temperature, method=method)) - 2 * np.asarray(once)).max() > 0.1


@each_method
def test_missing_keys_give_nothing_and_keep_their_share(method):
    """Weights are struck out after the softmax: a constant field loses what the missing keys would have given."""
    features = np.ones((1, 6, 6, 3), np.float32)
    mask = np.zeros((1, 6, 6), np.float32)
    everything = attend(features, mask, method=method)
    np.testing.assert_allclose(everything, features, atol=1e-5)
    mask[0, :3] = 1
    assert float(np.max(attend(features, mask, np.float32([100.0]), method=method))) < 0.5
    np.testing.assert_array_equal(attend(features, np.ones_like(mask), method=method), 0)


@each_method
def test_gradients_against_differences_of_algorithm_2(method):
    features, mask, temperature = sample(4, 5, channels=2)
    direction = np.random.default_rng(1).normal(size=features.shape)

    def loss(features, temperature):
        return jnp.sum(direction * contextual_attention(features, mask, temperature, method=method))

    def slow_loss(features, temperature):
        return np.sum(direction * reference.contextual_attention(features, mask, temperature))

    by_features, by_temperature = jax.jit(jax.grad(loss, (0, 1)))(features, temperature)
    exact = features.astype(np.float64), temperature.astype(np.float64)
    assert_agrees(by_features, differences(lambda f: slow_loss(f, exact[1]), exact[0]), 1e-4)
    assert_agrees(by_temperature, differences(lambda t: slow_loss(exact[0], t), exact[1]), 1e-4)


@each_method
def test_finite_at_any_temperature(method):
    features, mask, _ = sample()
    both = jax.jit(
        jax.value_and_grad(lambda f, t: jnp.sum(contextual_attention(f, mask, t, method=method) ** 2), (0, 1))
    )
    for temperature in (0.0, 1e-9, -1e-9, 1e4):
        value, gradients = both(features, np.full(2, temperature, np.float32))
        assert np.isfinite(value), temperature
        assert all(np.isfinite(gradient).all() for gradient in gradients), temperature


@each_method
def test_bfloat16(method):
    """Scores of 8-bit products at a soft temperature; the bound is eight steps of bfloat16."""
    features, mask, _ = sample(channels=8)
    half = jnp.asarray(features, jnp.bfloat16)
    refined = attend(half, mask, np.float32([2.0, 3.0]), method=method)
    assert refined.dtype == jnp.bfloat16
    expected = reference.contextual_attention(np.asarray(half, np.float64), mask, [2.0, 3.0])
    assert_agrees(refined, expected, 8 * 2**-8)


@pytest.mark.usefixtures("own_checks")
def test_what_does_not_fit_is_refused():
    features, mask, temperature = sample()
    with pytest.raises(ValueError, match="batched, loop"):
        contextual_attention(features, mask, temperature, method="fourier")
    with pytest.raises(ValueError, match="mask must be"):
        contextual_attention(features, mask[:, :-1], temperature)
    with pytest.raises(ValueError, match="does not fit into a map"):
        contextual_attention(features, mask, temperature, patch_size=6)
