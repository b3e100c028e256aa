"""`masked_patch_attention` against the slow numpy version in attention_reference.py, and its properties."""

import functools

import attention_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_reference import assert_agrees, differences

from inpaint_jax.nets import attention, tiles
from inpaint_jax.nets.attention import downsample_mask, masked_patch_attention
from inpaint_jax.nets.patches import diagonal_sums, reach, spread_along_diagonals

METHODS = ("unrolled", "gram", "blocked")
TEMPERATURES = (1e-4, 1e-3, 1e-2, 0.1, float(np.log(2)), 1.0, 10.0, 1e4)

# Compiled as a whole: op by op, every new shape costs seconds.
refine = jax.jit(masked_patch_attention, static_argnames=("patch_size", "mask_bias", "method"))

each_method = pytest.mark.parametrize("method", METHODS)


@functools.partial(jax.jit, static_argnames=("patch_size", "method"))
def gradients(features, temperature, mask, direction, patch_size=3, method="auto"):
    """Of <direction, refined>, by features and by temperature."""

    def loss(features, temperature):
        return jnp.sum(direction * refine(features, mask, temperature, patch_size=patch_size, method=method))

    return jax.grad(loss, argnums=(0, 1))(features, temperature)


@pytest.fixture(autouse=True)
def full_precision():
    """Accelerators round the factors of products unless told otherwise."""
    with jax.default_matmul_precision("highest"):
        yield


def sample(height=7, width=5, channels=4, batch=2, seed=0):
    """Random features, and for every sample its own one-pixel hole and its own temperature."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(batch, height, width, channels)).astype(np.float32)
    mask = np.zeros((batch, height, width), np.float32)
    for b in range(batch):
        mask[b, b % height, (2 * b + 1) % width] = 1
    temperature = np.linspace(0.3, 1.2, batch, dtype=np.float32)
    return features, mask, temperature


@each_method
@pytest.mark.parametrize(("height", "width", "patch_size"), [(7, 5, 1), (5, 9, 2), (7, 5, 3), (5, 9, 5)])
def test_agrees_with_the_paper(method, height, width, patch_size):
    features, mask, temperature = sample(height, width)
    refined = refine(features, mask, temperature, patch_size=patch_size, method=method)
    assert refined.dtype == jnp.float32
    assert_agrees(refined, reference.masked_patch_attention(features, mask, temperature, patch_size))


@each_method
@pytest.mark.parametrize(("height", "width", "patch_size"), [(5, 5, 5), (3, 6, 3), (1, 1, 1)])
def test_patch_as_large_as_the_map(method, height, width, patch_size):
    features, mask, temperature = sample(height, width)
    mask[1] = 0  # the single key of a square map: masked in the first sample, valid in the second
    refined = refine(features, mask, temperature, patch_size=patch_size, method=method)
    assert_agrees(refined, reference.masked_patch_attention(features, mask, temperature, patch_size))


@each_method
def test_large_holes_and_none(method):
    features, mask, temperature = sample()
    mask[0, :4] = 1
    mask[1] = 0
    refined = refine(features, mask, temperature, method=method)
    assert_agrees(refined, reference.masked_patch_attention(features, mask, temperature))


@each_method
def test_no_valid_key_weighs_all_keys_alike(method):
    features, mask, temperature = sample()
    mask[0] = 1  # everything missing
    mask[1] = 0
    mask[1, 1::3, 1::3] = 1  # most given, but no 3 x 3 patch without a hole
    refined = refine(features, mask, temperature, method=method)
    assert_agrees(refined, reference.masked_patch_attention(features, mask, temperature))
    # At the centre all nine offsets of the mean patch overlap.
    mean_patch = np.array([[features[:, y : y + 5, x : x + 3].mean((1, 2)) for x in range(3)] for y in range(3)])
    np.testing.assert_allclose(refined[:, 3, 2], mean_patch.mean((0, 1)), atol=1e-5)


@each_method
def test_nothing_leaks_out_of_the_hole(method):
    """What only masked keys hold appears nowhere: values there are not seen by any other pixel."""
    features, mask, temperature = sample()
    mask[...] = 0
    mask[:, 2:4, 3:5] = 1
    features[mask == 1] = 1e3
    refined = refine(features, mask, temperature, method=method)
    assert np.abs(refined).max() <= np.abs(features[mask == 0]).max() * 1.0001


@functools.cache
def clear_winners():
    """A sample in which every query's best valid key leads by at least 0.002: softmax is one-hot for t <= 1e-4."""
    for seed in range(1000):
        features, mask, _ = sample(5, 6, channels=8, batch=1, seed=seed)
        scores = np.sort(reference.masked_scores(features[0].astype(np.float64), mask[0], 1.0), axis=1)
        if (scores[:, -1] - scores[:, -2]).min() >= 0.002:
            return features, mask
    raise AssertionError("no seed gives clear winners")


@each_method
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_all_temperatures(method, temperature):
    """S carries float32's rounding, some 1e-7; S/t amplifies it by 1/t, so a weight is known to about 4e-7/t.

    At the lowest t the softmax is one-hot in these data, and no rounding is left to amplify.
    """
    features, mask = clear_winners()
    t = np.float32([temperature])
    tolerance = 1e-5 if temperature <= 1e-4 else max(1e-5, 4e-7 / temperature)
    refined = refine(features, mask, t, method=method)
    assert_agrees(refined, reference.masked_patch_attention(features, mask, t), tolerance)


@each_method
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_finite_at_all_temperatures_with_ties_and_zeros(method, temperature):
    """Repeated patches (exact ties), a zero region (norm 0), no valid key in one sample: values and gradients."""
    features, mask, _ = sample()
    features[:, :, 3:] = features[:, :, :2]
    features[:, :4] = 0
    mask[1] = 1
    t = np.full(2, temperature, np.float32)

    assert np.isfinite(refine(features, mask, t, method=method)).all()
    direction = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    for gradient in gradients(features, t, mask, direction, method=method):
        assert np.isfinite(gradient).all()


@each_method
@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_gradients_against_differences_of_the_paper(method, patch_size):
    """Central differences of the float64 numpy version: what the gradient of eqs. (7)-(11) is, whoever computes it."""
    features, mask, temperature = sample(4, 5, channels=2)
    mask[1] = 0
    direction = np.random.default_rng(1).normal(size=features.shape)

    def slow_loss(features, temperature):
        return np.sum(direction * reference.masked_patch_attention(features, mask, temperature, patch_size))

    by_features, by_temperature = gradients(
        features, temperature, mask, direction.astype(np.float32), patch_size=patch_size, method=method
    )
    exact = features.astype(np.float64), temperature.astype(np.float64)
    assert_agrees(by_features, differences(lambda f: slow_loss(f, exact[1]), exact[0]), 1e-4)
    assert_agrees(by_temperature, differences(lambda t: slow_loss(exact[0], t), exact[1]), 1e-4)


@each_method
def test_constant_field_stays_constant(method):
    _, mask, temperature = sample()
    field = np.broadcast_to(np.float32([2.0, -0.5, 0.0, 7.0]), (2, 7, 5, 4))
    refined = refine(field, mask, temperature, method=method)
    np.testing.assert_allclose(refined, field, atol=1e-5)


@each_method
def test_low_temperature_copies_the_best_patch(method):
    """Rows that repeat: the hole is filled with what the repetition says, as copy-and-paste would."""
    rng = np.random.default_rng(3)
    tile = rng.normal(size=(1, 4, 4, 3)).astype(np.float32)
    truth = np.tile(tile, (1, 3, 3, 1))
    mask = np.zeros((1, 12, 12), np.float32)
    mask[0, 5:7, 5:7] = 1
    refined = refine(truth, mask, np.float32([1e-4]), method=method)
    inner = np.s_[:, 2:-2, 2:-2]  # queries at the border hold zeros and match something else
    np.testing.assert_allclose(refined[inner], truth[inner], atol=1e-4)


@each_method
@pytest.mark.parametrize("temperature", [1.0, 0.003])
def test_bfloat16_features(method, temperature):
    """Bfloat16 keeps 8 bits, a relative step of 2^-8 = 0.004; the bound is three of those steps, however cold."""
    features, mask, _ = sample(10, 10, channels=16)
    half, t = jnp.asarray(features, jnp.bfloat16), np.full(2, temperature, np.float32)
    refined = refine(half, mask, t, method=method)
    assert refined.dtype == jnp.bfloat16
    expected = reference.masked_patch_attention(np.asarray(half, np.float64), mask, t)
    assert_agrees(refined, expected, 3 * 2**-8)
    direction = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    for gradient in gradients(half, t, mask, direction, method=method):
        assert np.isfinite(np.asarray(gradient, np.float32)).all()


@pytest.mark.parametrize("limit", [0, 10**9])
def test_auto_is_one_of_them(monkeypatch, limit):
    for name in ("_LARGEST_GRAM", "_LARGEST_GRAM_CPU"):
        monkeypatch.setattr(attention, name, limit)
    features, mask, temperature = sample(5, 6)
    # New functions: what is cached of others was traced with other limits.
    refined = jax.jit(lambda *args: masked_patch_attention(*args))(features, mask, temperature)
    assert_agrees(refined, reference.masked_patch_attention(features, mask, temperature))
    jaxpr = str(jax.make_jaxpr(lambda *args: masked_patch_attention(*args))(features, mask, temperature))
    assert ("scan" in jaxpr) == (limit == 0), "tiles are gone through in a loop"


@each_method
def test_below_zero_the_least_similar_win(method):
    features, mask, _ = sample()
    temperature = np.float32([-0.4, -2.0])
    refined = refine(features, mask, temperature, method=method)
    assert_agrees(refined, reference.masked_patch_attention(features, mask, temperature))


@pytest.mark.usefixtures("own_checks")
@each_method
def test_what_cannot_be_attended_to_is_refused(method):
    features, mask, temperature = sample()
    with pytest.raises(ValueError, match="floating point, not int32"):
        masked_patch_attention(features.astype(np.int32), mask, temperature, method=method)
    with pytest.raises(ValueError, match="needed must be as large as the mask"):
        masked_patch_attention(features, mask, temperature, method=method, needed=mask[:, 1:])
    with pytest.raises(ValueError, match="mask_bias must be positive"):
        masked_patch_attention(features, mask, temperature, method=method, mask_bias=0)


def test_mask_types_mean_the_same():
    features, mask, temperature = sample()
    refined = refine(features, mask, temperature, method="gram")
    for dtype in (bool, np.uint8):
        np.testing.assert_array_equal(refine(features, mask.astype(dtype), temperature, method="gram"), refined)


@each_method
def test_a_sample_does_not_depend_on_its_neighbours(method):
    """One NaN image, or one other mask, in a batch leaves the rest alone."""
    features, mask, temperature = sample()
    before = refine(features, mask, temperature, method=method)
    features[0] = np.nan
    mask[0] = 1
    temperature[0] = 1e-4
    after = refine(features, mask, temperature, method=method)
    assert_agrees(after[1], np.asarray(before[1], np.float64), 1e-6)


@each_method
def test_mask_bias_is_minus_the_score_of_a_masked_key(method):
    """A small lambda_m shows that eq. (9) is meant, not minus infinity: masked keys keep weights that one can see."""
    features, mask, _ = sample()
    temperature = np.float32([0.8, 1.5])
    expected = reference.masked_patch_attention(features, mask, temperature, mask_bias=4.0)
    assert np.abs(expected - reference.masked_patch_attention(features, mask, temperature)).max() > 0.001
    assert_agrees(refine(features, mask, temperature, mask_bias=4.0, method=method), expected)


@each_method
def test_masked_keys_never_win_however_cold(method):
    """Eq. (9) alone would choose them where S/t < -lambda_m: opposite keys at t = 1e-8. A floor prevents it."""
    rng = np.random.default_rng(5)
    features = np.abs(rng.normal(size=(2, 7, 5, 4))).astype(np.float32)
    mask = np.zeros((2, 7, 5), np.float32)
    mask[:, 4:] = 1
    features[mask == 1] *= -1
    refined = refine(features, mask, np.float32([1e-8] * 2), method=method)
    assert np.isfinite(refined).all()
    assert (np.asarray(refined) >= 0).all()


@each_method
@pytest.mark.parametrize(("height", "width"), [(2, 8), (8, 2)])
def test_patch_larger_than_the_map_is_refused(method, height, width):
    features, mask, temperature = sample(height, width)
    with pytest.raises(ValueError, match="patch"):
        masked_patch_attention(features, mask, temperature, patch_size=3, method=method)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"fourier"):
        masked_patch_attention(*sample(), method="fourier")


@pytest.mark.usefixtures("own_checks")
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1)])
def test_wrong_temperature_shape_is_refused(shape):
    features, mask, _ = sample()
    with pytest.raises(ValueError, match="temperature"):
        masked_patch_attention(features, mask, np.ones(shape, np.float32))


@pytest.mark.usefixtures("own_checks")
@pytest.mark.parametrize("shape", [(7, 5), (1, 7, 5), (2, 7, 5, 1), (2, 28, 20)])
def test_wrong_mask_shape_is_refused(shape):
    """Above all the mask of the image, not down-sampled, and one mask for the whole batch."""
    features, _, temperature = sample()
    with pytest.raises(ValueError, match="mask"):
        masked_patch_attention(features, np.zeros(shape, np.float32), temperature)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_downsampled_mask_counts_any_hole_pixel(factor):
    mask = (np.random.default_rng(0).uniform(size=(3, 16, 24)) < 0.05).astype(np.float32)
    small = downsample_mask(mask, factor)
    expected = reference.downsample_mask(mask, factor)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(np.asarray(small, np.float32), expected)


def test_downsample_mask_defaults_to_four():
    mask = np.zeros((1, 8, 8), np.float32)
    mask[0, 3, 4] = 1
    np.testing.assert_array_equal(np.asarray(downsample_mask(mask), np.float32)[0], [[0, 1], [0, 0]])


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_spreading_is_the_transpose_of_summing_along_diagonals(patch_size):
    halo = patch_size - 1
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(2, 5, 4, 3, 6)), jnp.float32)
    gram = jnp.asarray(rng.normal(size=(2, *(side + halo for side in weights.shape[1:]))), jnp.float32)
    spread_out = jax.jit(spread_along_diagonals, static_argnames=("patch_size", "keep"))
    spread = spread_out(weights, patch_size=patch_size, keep="all")
    summed = jax.jit(diagonal_sums, static_argnums=1)(gram, patch_size)
    assert_agrees(np.vdot(gram, spread), np.vdot(summed, weights))
    before, _ = reach(patch_size)
    inside = spread[:, before : before + 5, before : before + 4]
    assert_agrees(spread_out(weights, patch_size=patch_size, keep="map"), np.asarray(inside))


@pytest.mark.parametrize(("patch_size", "queries"), [(1, 6), (3, 6), (5, 6), (3, 30)])
def test_blocks_of_any_size_give_the_same(monkeypatch, patch_size, queries):
    """Tiles that do not divide the map, and halos wider than a tile; values and gradients."""
    features, mask = jax.random.normal(jax.random.key(0), (2, 9, 7, 4)), jnp.zeros((2, 9, 7)).at[:, 5:7, 4:6].set(1)
    temperature = jnp.array([0.1, 0.7])
    monkeypatch.setattr(tiles, "_queries_at_a_time", lambda *_: queries)
    results = []
    for method in ("gram", "blocked"):

        def loss(features, temperature, method=method):
            refined = masked_patch_attention(features, mask, temperature, patch_size=patch_size, method=method)
            return jnp.sum(jnp.sin(3 * refined)), refined

        both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, refined), gradients = both(features, temperature)
        results.append((refined, *gradients))
    for gram, blocked in zip(*results):
        np.testing.assert_allclose(blocked, gram, rtol=1e-5, atol=1e-5 * float(jnp.abs(gram).max()))


def test_auto_goes_by_blocks_where_scores_fill_the_memory():
    """At 256 x 256 the scores of all queries would take 17 GB; the compiled programs say what they take."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 256, 256, 48), (1, 256, 256), (1,))]

    def memory(function):
        return jax.jit(function).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert memory(masked_patch_attention) < 6e8
    assert memory(jax.grad(lambda *args: jnp.sum(masked_patch_attention(*args)), argnums=(0, 2))) < 1.5e9


@pytest.mark.parametrize("patch_size", [2, 3])
def test_what_is_needed_does_not_depend_on_what_is_left_out(monkeypatch, patch_size):
    """In tiles of 2 x 3 pixels, of which most are left out."""
    features, mask = jax.random.normal(jax.random.key(0), (2, 12, 14, 4)), jnp.zeros((2, 12, 14)).at[:, 5, 4].set(1)
    temperature, needed = jnp.array([0.1, 0.7]), jnp.zeros((2, 12, 14)).at[0, 7:9, 3:6].set(1).at[1, 0, 13].set(1)
    monkeypatch.setattr(tiles, "_queries_at_a_time", lambda *_: 6)
    blocked = functools.partial(masked_patch_attention, patch_size=patch_size, method="blocked")
    whole, part = (
        jax.jit(lambda *args, wanted=wanted: blocked(*args, needed=wanted))(features, mask, temperature)
        for wanted in (None, needed)
    )
    assert_agrees(part[needed > 0], whole[needed > 0])
    assert (part[0, 0] == 0).all()  # left out indeed
