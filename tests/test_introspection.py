"""What one sees of the attention is what the attention does."""

import attention_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint_jax.inspection import rows
from inpaint_jax.nets.attention import masked_patch_attention

# Compiled as a whole, as the figures do it: op by op, every new shape costs seconds.
attention_weights, refined_patches, refined_maps = (
    jax.jit(function, static_argnames="patch_size")
    for function in (rows.attention_weights, rows.refined_patches, rows.refined_maps)
)


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 8, 7, 4)).astype(np.float32)
    mask = np.zeros((2, 8, 7), np.float32)
    mask[0, 2:5, 3:6] = 1
    mask[1, 7, 0] = 1
    queries = np.array([[[3, 4], [0, 0], [7, 6]], [[7, 0], [1, 5], [4, 3]]])
    return features, mask, queries


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_weights_are_rows_of_the_papers_matrix(given, patch_size):
    features, mask, queries = given
    temperature = np.float32([0.2, 1.5])
    weights = attention_weights(features, mask, jnp.asarray(temperature), queries, patch_size=patch_size)
    assert weights.shape == (2, 3, 9 - patch_size, 8 - patch_size)
    for b in range(2):
        scores = reference.masked_scores(features[b].astype(np.float64), mask[b], float(temperature[b]), patch_size)
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        rows = exponentials / exponentials.sum(axis=1, keepdims=True)
        for q, (y, x) in enumerate(queries[b]):
            np.testing.assert_allclose(np.ravel(weights[b, q]), rows[y * 7 + x], atol=2e-6)


def test_a_known_query_looks_at_itself_when_it_is_cold(given):
    features, mask, _ = given
    weights = attention_weights(features, mask, jnp.full(2, 1e-3), np.array([[[6, 2]], [[3, 3]]]))
    for b, (y, x) in enumerate(((6, 2), (3, 3))):
        best = np.unravel_index(np.argmax(weights[b, 0]), weights.shape[2:])
        assert tuple(np.add(best, rows.key_centre(3))) == (y, x)
        assert float(weights[b, 0].max()) == pytest.approx(1)


def test_a_sweep_moves_patches_from_the_nearest_to_the_mean(given):
    """Fig. 1c, at its two ends; in between, the distance to the mean falls."""
    features, mask, queries = given
    temperatures = np.geomspace(1e-4, 1e4, 17)
    sweep = np.asarray(refined_patches(features, mask, temperatures, queries))
    patches, valid = (np.asarray(x) for x in rows.known_patches(features, mask))
    assert sweep.shape == (17, 2, 3, 36)
    assert patches.shape == (2, 30, 36)
    for b in range(2):
        known = patches[b][valid[b]]
        mean = known.mean(axis=0)
        for q in range(3):
            assert np.abs(known - sweep[0, b, q]).max(axis=1).min() < 1e-3
            np.testing.assert_allclose(sweep[-1, b, q], mean, atol=1e-3)
            distances = np.linalg.norm(sweep[:, b, q] - mean, axis=1)
            assert (np.diff(distances) < 1e-3).all()


def test_maps_at_each_temperature(given):
    features, mask, _ = given
    maps = refined_maps(features, mask, [0.05, 3.0])
    for t, refined in zip((0.05, 3.0), maps):
        expected = jax.jit(masked_patch_attention)(features, mask, jnp.full(2, t))
        np.testing.assert_allclose(refined, expected, rtol=1e-5, atol=1e-5)
    assert float(jnp.var(maps[1])) < 0.5 * float(jnp.var(maps[0])), "warm maps are smooth"


@pytest.mark.parametrize("queries", [[[[8, 0]]] * 2, [[[0, -1]]] * 2, [[[0, 0]]], [[0, 0]] * 2])
def test_queries_outside_are_refused(given, queries):
    features, mask, _ = given
    with pytest.raises(ValueError, match="queries must be"):
        rows.attention_weights(features, mask, jnp.ones(2), np.array(queries))
