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
