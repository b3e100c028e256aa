"""Fréchet distance and the statistics it is taken of: against pytorch-fid, numpy, closed forms, and in corner cases."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from inpaint_jax.metrics import GaussianStatistics, frechet_distance


def gaussian(seed, size, count=None):
    """Mean and covariance of `count` correlated vectors (as many as make the covariance regular)."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(size, size)) * np.exp(-np.linspace(0, 3, size))
    samples = rng.normal(size=(count or 5 * size, size)) @ mixing + rng.normal(size=size)
    return samples.mean(axis=0), np.cov(samples, rowvar=False)


def by_matrix_root(mean_a, cov_a, mean_b, cov_b):
    """The formula as it is written."""
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root)


# ------------------------------------------------------------------------------------------------- the distance


def test_matches_pytorch_fid_in_64_dimensions(shared):
    reference = np.load(shared / "reference" / "fid_architecture_random_weights.npz")
    a, b = reference["frechet_A"], reference["frechet_B"]
    distance = frechet_distance(a.mean(axis=0), np.cov(a, rowvar=False), b.mean(axis=0), np.cov(b, rowvar=False))
    assert type(distance) is float
    assert distance == pytest.approx(28.030606978801245, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 30])
def test_is_the_formula(size):
    a, b = gaussian(0, size), gaussian(1, size)
    a, b = ((mean, np.reshape(cov, (size, size))) for mean, cov in (a, b))
    assert frechet_distance(*a, *b) == pytest.approx(by_matrix_root(*a, *b), rel=1e-10)


@pytest.mark.parametrize("count", [None, 5, 2], ids=["regular", "rank 4", "rank 1"])
def test_equal_gaussians_have_no_distance(count):
    a = gaussian(0, 40, count)
    assert 0 <= frechet_distance(*a, *a) < 1e-12 * np.trace(a[1])


@pytest.mark.parametrize("count", [None, 5], ids=["regular", "rank 4"])
def test_symmetric_and_unchanged_by_a_rotation(count):
    a, b = gaussian(0, 40, count), gaussian(1, 40)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(40, 40)))[0]
    turned = [(rotation @ mean, rotation @ cov @ rotation.T) for mean, cov in (a, b)]
    expected = frechet_distance(*a, *b)
    assert frechet_distance(*b, *a) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(*turned[0], *turned[1]) == pytest.approx(expected, rel=1e-9)


def test_singular_covariances_have_the_exact_distance():
    """Along common axes it is the sum of (standard deviation - standard deviation)^2, here with many zeros."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    deviations = rng.uniform(0.1, 2, size=(2, 60))
    deviations[0, 10:] = 0
    deviations[1, :5] = deviations[1, 20:] = 0
    covariances = [axes * d**2 @ axes.T for d in deviations]
    distance = frechet_distance(np.zeros(60), covariances[0], np.ones(60), covariances[1])
    assert distance == pytest.approx(60 + np.sum((deviations[0] - deviations[1]) ** 2), rel=1e-9)


def test_covariances_without_common_directions():
    first, second = np.diag([4.0, 0, 0]), np.diag([0, 0, 9.0])
    assert frechet_distance(np.zeros(3), first, np.zeros(3), second) == pytest.approx(13)


def test_points_have_the_distance_of_their_means():
    zero = np.zeros((3, 3))
    assert frechet_distance(np.zeros(3), zero, np.array([0.0, 3, 4]), zero) == 25


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scales_with_the_square(scale):
    a, b = gaussian(0, 20), gaussian(1, 20)
    scaled = [(scale * mean, scale**2 * cov) for mean, cov in (a, b)]
    assert frechet_distance(*scaled[0], *scaled[1]) == pytest.approx(scale**2 * frechet_distance(*a, *b), rel=1e-9)


def test_single_precision_and_jax_arrays_are_computed_in_double():
    a, b = gaussian(0, 20), gaussian(1, 20)
    single = [jnp.asarray(array, jnp.float32) for array in (*a, *b)]
    assert frechet_distance(*single) == pytest.approx(frechet_distance(*a, *b), rel=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3, 3), (4,), (4, 4)),
        ((3,), (3, 3), (3,), (4, 4)),
        ((3,), (3,), (3,), (3,)),
        ((3, 1), (3, 3), (3, 1), (3, 3)),
        ((1,), (), (1,), ()),
    ],
)
@pytest.mark.usefixtures("own_checks")
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="of the same D"):
        frechet_distance(*(np.ones(shape) for shape in shapes))


def test_values_that_are_not_finite_are_refused():
    cov = np.eye(3)
    cov[0, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(3), cov)


@pytest.mark.parametrize("cov", [-np.eye(3), np.diag([1.0, 1, -0.1]), np.eye(3) + np.eye(3, k=1), 1 - np.eye(3)])
def test_what_is_no_covariance_is_refused(cov):
    with pytest.raises(ValueError, match="positive semi-definite"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(3), cov)


# ------------------------------------------------------------------------------------------------- the statistics


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(100, 7)) @ rng.normal(size=(7, 7)) + 3).astype(np.float32)


def gathered(*batches):
    statistics = GaussianStatistics(7)
    for batch in batches:
        statistics.update(batch)
    return statistics


def assert_same(statistics, features):
    features = features.astype(np.float64)
    assert statistics.count == len(features)
    np.testing.assert_allclose(statistics.mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(features, rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cuts", [[], [50], [1, 2, 3, 99], [0, 64, 64, 100], list(range(100))])
def test_batches_of_any_size_give_the_mean_and_covariance_of_all(features, cuts):
    assert_same(gathered(*np.split(features, cuts)), features)


@pytest.mark.parametrize("cut", [0, 1, 30, 100])
def test_merged_statistics_are_those_of_all(features, cut):
    first, second = gathered(features[:cut]), gathered(features[cut:])
    first.merge(second)
    assert_same(first, features)
    assert second.count == 100 - cut
    second.update(features[:cut])  # was not touched, and shares nothing with the other
    assert_same(second, features)
    assert_same(first, features)


def test_a_large_mean_costs_no_digits(features):
    """Sums of squares would lose all of them."""
    shifted = features.astype(np.float64) + 1e8
    statistics = gathered(*np.split(shifted, [3, 10, 50]))
    np.testing.assert_allclose(statistics.covariance, np.cov(features.astype(float), rowvar=False), rtol=1e-5)


def test_takes_jax_arrays_and_leaves_its_input_alone(features):
    copy = features.copy()
    assert_same(gathered(jnp.asarray(features)), features)
    assert_same(gathered(features), features)
    np.testing.assert_array_equal(features, copy)


def test_saved_statistics_continue_as_if_never_saved(tmp_path, features):
    statistics = gathered(features[:40])
    np.savez(tmp_path / "statistics.npz", **statistics.to_arrays())
    statistics.update(features[40:])
    with np.load(tmp_path / "statistics.npz") as file:
        restored = GaussianStatistics.from_arrays(file)
    assert (restored.count, type(restored.count)) == (40, int)
    restored.update(features[40:])
    assert restored.count == statistics.count
    np.testing.assert_array_equal(restored.mean, statistics.mean)
    np.testing.assert_array_equal(restored.second_moment, statistics.second_moment)


def test_saved_arrays_share_nothing_with_the_statistics(features):
    statistics = gathered(features[:40])
    arrays = statistics.to_arrays()
    restored = GaussianStatistics.from_arrays(arrays)
    statistics.update(features[40:])
    restored.update(features[40:60])
    assert_same(GaussianStatistics.from_arrays(arrays), features[:40])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"mean": None}, "lack mean"),
        ({"second_moment": np.zeros((7, 6))}, "second_moment"),
        ({"mean": np.zeros(6)}, "mean"),
        ({"count": np.zeros(2)}, "count"),
    ],
)
def test_arrays_of_something_else_are_refused(features, change, fault):
    arrays = gathered(features).to_arrays() | change
    with pytest.raises(ValueError, match=fault):
        GaussianStatistics.from_arrays({name: array for name, array in arrays.items() if array is not None})


def test_a_covariance_needs_two_vectors(features):
    for count in (0, 1):
        with pytest.raises(ValueError, match=f"here are {count}"):
            _ = gathered(features[:count]).covariance


@pytest.mark.parametrize("shape", [(7,), (3, 6), (2, 3, 7)])
@pytest.mark.usefixtures("own_checks")
def test_features_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[N, 7\]"):
        GaussianStatistics(7).update(np.zeros(shape))


def test_features_that_are_not_finite_are_named_and_not_added(features):
    statistics = gathered(features[:50])
    spoiled = features[50:].copy()
    spoiled[[3, 20], 2] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"Features of 2 images .*\[3, 20\]"):
        statistics.update(spoiled)
    assert_same(statistics, features[:50])


def test_statistics_of_other_features_do_not_merge(features):
    with pytest.raises(ValueError, match="of 7 and of 3"):
        gathered(features).merge(GaussianStatistics(3))
