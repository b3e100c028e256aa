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
