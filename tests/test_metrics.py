"""Metrics against scikit-image on real photos, and what they say in corner cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from skimage import metrics as reference

from inpaint_jax import metrics

# Compiled as a whole: op by op, every new shape costs seconds.
mae, relative_mae, psnr, ssim = (
    jax.jit(function)
    for function in (metrics.mean_absolute_error, metrics.relative_mean_absolute_error, metrics.psnr, metrics.ssim)
)


@pytest.fixture(scope="module")
def pairs():
    """Photos and what JPEG-like noise, a hole, blur and brightness make of them: two float32 [4, 96, 130, 3]."""
    rng = np.random.default_rng(0)
    photo = skimage.img_as_float32(skimage.data.astronaut())
    truth = np.stack([photo[y : y + 96, x : x + 130] for y, x in ((0, 0), (100, 150), (300, 50), (20, 330))])
    spoiled = truth.copy()
    spoiled[0] += rng.normal(0, 0.05, truth[0].shape)
    spoiled[1, 20:70, 30:90] = (0.485, 0.456, 0.406)
    spoiled[2] = skimage.filters.gaussian(truth[2], 2, channel_axis=-1)
    spoiled[3] = 0.9 * truth[3] + 0.1
    return np.clip(spoiled, 0, 1).astype(np.float32), truth


def test_mean_absolute_error_in_percent(pairs):
    expected = [100 * np.abs(a.astype(float) - b).mean() for a, b in zip(*pairs)]
    np.testing.assert_allclose(mae(*pairs), expected, rtol=1e-5)


def test_relative_mean_absolute_error(pairs):
    expected = [np.abs(a.astype(float) - b).sum() / (a.astype(float) + b).sum() for a, b in zip(*pairs)]
    np.testing.assert_allclose(relative_mae(*pairs), expected, rtol=1e-5)


def test_psnr_equals_scikit_image(pairs):
    expected = [
        reference.peak_signal_noise_ratio(b.astype(float), a.astype(float), data_range=1) for a, b in zip(*pairs)
    ]
    np.testing.assert_allclose(psnr(*pairs), expected, rtol=1e-5)


def test_ssim_equals_scikit_image(pairs):
    expected = [
        reference.structural_similarity(
            a.astype(float),
            b.astype(float),
            gaussian_weights=True,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
        )
        for a, b in zip(*pairs)
    ]
    np.testing.assert_allclose(ssim(*pairs), expected, atol=1e-5)


def test_equal_images():
    image = jnp.asarray(skimage.img_as_float32(skimage.data.coffee())[None, :64, :64])
    assert mae(image, image)[0] == 0
    assert relative_mae(image, image)[0] == 0
    assert psnr(image, image)[0] == jnp.inf
    assert ssim(image, image)[0] == pytest.approx(1, abs=1e-6)


def test_black_images():
    black = jnp.zeros((1, 16, 16, 3))
    assert relative_mae(black, black)[0] == 0
    assert relative_mae(black, black + 0.5)[0] == 1
    assert ssim(black, black)[0] == 1


def test_bright_flat_images_keep_their_digits():
    """Variances of 1e-5 on top of a mean near 1, where E[x^2] - E[x]^2 loses most of float32's digits."""
    rng = np.random.default_rng(0)
    a, b = (0.98 + rng.normal(0, 0.003, (64, 64, 3)) for _ in range(2))
    options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 1, "channel_axis": -1}
    expected = reference.structural_similarity(a, b, **options)
    ours = ssim(np.float32(a)[None], np.float32(b)[None])[0]
    assert ours == pytest.approx(expected, abs=1e-4)


def test_ssim_of_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(jnp.zeros((1, 10, 40, 3)), jnp.zeros((1, 10, 40, 3)))


def test_images_of_a_batch_do_not_see_each_other(pairs):
    for metric in (mae, relative_mae, psnr, ssim):
        together = metric(*pairs)
        alone = np.concatenate([metric(a[None], b[None]) for a, b in zip(*pairs)])
        np.testing.assert_allclose(together, alone, rtol=1e-5)
