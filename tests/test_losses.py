"""Losses and metrics recomputed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint_jax import losses, metrics


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.random((3, 8, 6, 3), np.float32), rng.random((3, 8, 6, 3), np.float32)


def test_reconstruction_is_the_mean_over_elements(images):
    a, b = images
    expected = [sum(abs(float(x) - float(y)) for x, y in zip(p.ravel(), q.ravel())) / p.size for p, q in zip(a, b)]
    np.testing.assert_allclose(losses.reconstruction_loss(a, b), expected, rtol=1e-5)
    np.testing.assert_array_equal(losses.reconstruction_loss(a, a), 0)


def hole_of(*areas):
    """bool [3, 8, 6]: a mask with so many missing pixels for each sample."""
    order = np.random.default_rng(1).permuted(np.tile(np.arange(48), (3, 1)), axis=1).reshape(3, 8, 6)
    return order < np.array(areas)[:, None, None]


def test_hole_l1_is_the_mean_inside_the_hole(images):
    a, b = images
    mask = hole_of(1, 20, 48)
    expected = [np.abs(a[i].astype(np.float64) - b[i])[mask[i]].mean() for i in range(3)]
    np.testing.assert_allclose(losses.hole_l1(a, b, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.hole_l1(a, b, mask.astype(np.float32)), expected, rtol=1e-5)
    np.testing.assert_array_equal(losses.hole_l1(a, b, np.zeros_like(mask)), 0)


def test_reconstruction_by_area_is_a_mean_for_each(images):
    a, b = images
    mask = hole_of(5, 0, 48)
    distance = np.abs(a.astype(np.float64) - b)
    expected = [
        2.5 * distance[0][mask[0]].mean() + distance[0][~mask[0]].mean(),
        distance[1].mean(),
        2.5 * distance[2].mean(),
    ]
    np.testing.assert_allclose(losses.reconstruction_loss_by_area(a, b, mask, 2.5), expected, rtol=1e-5)
    as_floats = losses.reconstruction_loss_by_area(a, b, mask.astype(np.float32), 2.5)
    np.testing.assert_allclose(as_floats, expected, rtol=1e-5)
    np.testing.assert_array_equal(losses.reconstruction_loss_by_area(a, a, mask, 2.5), 0)


def test_by_area_no_hole_is_too_small_to_count():
    """Errors of 0.2 in the hole and 0.1 elsewhere: the same loss for a hole of one pixel and of nearly all."""
    mask = hole_of(1, 24, 47)
    target = np.zeros((3, 8, 6, 3), np.float32)
    image = np.where(mask[..., None], np.float32(0.2), np.float32(0.1)).repeat(3, axis=-1)
    np.testing.assert_allclose(losses.reconstruction_loss_by_area(image, target, mask, 6.0), 3 * [1.3], rtol=1e-5)
    assert np.ptp(losses.reconstruction_loss(image, target)) > 0.05


def test_gradients_by_area_are_finite(images):
    a, b = images
    mask = hole_of(0, 12, 48)
    slope = np.asarray(jax.grad(lambda x: losses.reconstruction_loss_by_area(x, b, mask, 6.0).sum())(a))
    weight = np.where(mask, 6 / np.array([1, 12, 48])[:, None, None], 1 / np.array([48, 36, 1])[:, None, None])
    np.testing.assert_allclose(slope, weight[..., None] * np.sign(a - b) / 3, rtol=1e-5)


def test_perceptual_is_the_mean_over_elements(images):
    a, b = images
    np.testing.assert_allclose(losses.perceptual_loss(a, b), np.abs(a - b).mean(axis=(1, 2, 3)), rtol=1e-5)


def test_hinge_losses_by_hand():
    real, fake = jnp.array([2.0, 0.5, -1.0]), jnp.array([-2.0, -0.5, 1.0])
    np.testing.assert_allclose(losses.hinge_discriminator_loss(real, fake), [0, 0.5 + 0.5, 2 + 2])
    np.testing.assert_allclose(losses.hinge_generator_loss(fake), [2, 0.5, -1])


def test_discriminator_rests_where_it_is_sure():
    slope = jax.grad(lambda r, f: losses.hinge_discriminator_loss(r, f).sum(), argnums=(0, 1))
    real, fake = slope(jnp.array([1.5, 0.0]), jnp.array([-1.5, 0.0]))
    np.testing.assert_array_equal(real, [0, -1])
    np.testing.assert_array_equal(fake, [0, 1])


def test_wasserstein_by_hand():
    real, fake = jnp.array([2.0, -0.5]), jnp.array([-3.0, 1.0])
    np.testing.assert_allclose(losses.wasserstein_critic_loss(real, fake), [-5, 1.5])


def test_gradient_penalty_by_hand(images):
    gradient, _ = images
    mask = np.zeros((3, 8, 6), bool)
    mask[0, 2:5, 1:4], mask[1] = True, True
    norms = [np.sqrt((gradient[i].astype(np.float64) ** 2)[mask[i]].sum()) for i in range(2)]
    expected = [(norms[0] - 1) ** 2, (norms[1] - 1) ** 2, 1]
    np.testing.assert_allclose(losses.gradient_penalty(gradient, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.gradient_penalty(gradient, mask.astype(np.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize(("slope", "penalty"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_gradient_penalty_of_a_linear_critic(images, slope, penalty):
    """Its minimum is at slope 1, and at slope 0, where a norm has no derivative, that of the penalty is finite."""
    image, direction = images
    mask = np.ones((3, 8, 6))
    direction /= np.sqrt((direction**2).sum(axis=(1, 2, 3), keepdims=True))

    def penalty_of(slope):
        return losses.gradient_penalty(jax.grad(lambda x: (slope * direction * x).sum())(image), mask)

    np.testing.assert_allclose(penalty_of(slope), 3 * [penalty], atol=1e-5)
    expected = 2 * (slope - 1) if slope else 0
    np.testing.assert_allclose(jax.grad(lambda s: penalty_of(s).mean())(slope), expected, atol=1e-4)


def test_objective_has_the_papers_weights():
    terms = {"coarse": 1.0, "refined": 10.0, "perceptual": 100.0, "adversarial": 1000.0}
    terms = {name: jnp.array([value]) for name, value in terms.items()}
    total = losses.generator_objective(terms, losses.LossWeights())
    np.testing.assert_allclose(total, [1.2 * 1 + 1 * 10 + 0.004 * 100 + 0.01 * 1000], rtol=1e-6)
    del terms["adversarial"]
    np.testing.assert_allclose(losses.generator_objective(terms, losses.LossWeights()), [11.6], rtol=1e-6)


def test_psnr_and_mae_by_hand(images):
    a, b = (image.astype(np.float64) for image in images)
    np.testing.assert_allclose(metrics.psnr(*images), -10 * np.log10(((a - b) ** 2).mean(axis=(1, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(
        metrics.mean_absolute_error(*images), 100 * np.abs(a - b).mean(axis=(1, 2, 3)), rtol=1e-5
    )
    assert np.isinf(metrics.psnr(images[0], images[0])).all()


def test_hole_psnr_sees_the_hole_alone(images):
    a, b = images
    mask = np.zeros((3, 8, 6), bool)
    mask[:, 2:5, 1:4] = True
    inside = ((a.astype(np.float64) - b) ** 2)[:, 2:5, 1:4].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(metrics.hole_psnr(a, b, mask), -10 * np.log10(inside), rtol=1e-5)
    elsewhere = np.where(mask[..., None], a, 0)
    np.testing.assert_allclose(metrics.hole_psnr(elsewhere, b, mask), metrics.hole_psnr(a, b, mask), rtol=1e-5)


def test_relative_loss_is_the_share_of_the_fills_error(images):
    a, b = images
    fill = b + 3 * (a - b)
    mask = np.zeros((3, 8, 6), bool)
    mask[:2, 2:5, 1:4] = True
    np.testing.assert_allclose(losses.relative_loss(a, b, fill, mask), [1 / 3, 1 / 3, 0], rtol=1e-4)
    # A perfect fill: the error counts in grey levels.
    np.testing.assert_allclose(losses.relative_loss(b + 2 / 255, b, b, mask), [2, 2, 0], rtol=1e-3)


def features_of(seed):
    """What three layers may see of two images."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(2, side, side + 1, side)), jnp.float32) for side in (8, 4, 2)]


def test_losses_within_an_area_are_means_over_all_pixels(images):
    a, b = images
    mask = hole_of(1, 20, 48)
    expected = [np.abs(a[i].astype(np.float64) - b[i])[mask[i]].sum() / a[i].size for i in range(3)]
    np.testing.assert_allclose(losses.l1_within(a, b, mask.astype(np.float32)), expected, rtol=1e-5)


def test_features_and_their_gram_matrices_are_compared_layer_by_layer():
    a, b = features_of(0), features_of(1)
    expected_features, expected_styles = np.zeros(2), np.zeros(2)
    for one, other in zip(a, b):
        for i in range(2):
            maps = [np.asarray(x[i], np.float64) for x in (one, other)]
            expected_features[i] += np.abs(maps[0] - maps[1]).mean()
            grams = [np.zeros((x.shape[-1], x.shape[-1])) for x in maps]
            for gram, x in zip(grams, maps):
                for row in x:
                    for pixel in row:
                        gram += np.outer(pixel, pixel) / x.size
            expected_styles[i] += np.abs(grams[0] - grams[1]).mean()
    np.testing.assert_allclose(losses.features_loss(a, b), expected_features, rtol=1e-5)
    np.testing.assert_allclose(losses.style_loss(a, b), expected_styles, rtol=1e-4)
    np.testing.assert_array_equal(losses.style_loss(a, a), 0)


def test_total_variation_is_the_mean_step_in_both_directions(images):
    a, _ = images
    for image, found in zip(a.astype(np.float64), losses.total_variation(a)):
        across = [abs(image[i, j, c] - image[i, j + 1, c]) for i in range(8) for j in range(5) for c in range(3)]
        down = [abs(image[i, j, c] - image[i + 1, j, c]) for i in range(7) for j in range(6) for c in range(3)]
        assert float(found) == pytest.approx(np.mean(across) + np.mean(down), rel=1e-5)
