"""Classical methods on real photos."""

import numpy as np
import pytest
import skimage

from inpaint_jax import classical
from inpaint_jax.data.masks import training_mask


@pytest.fixture(scope="module")
def photo_and_mask():
    photo = skimage.data.coffee()[100:164, 200:264]
    return photo, training_mask(np.random.default_rng(0), 64, 64).mask


@pytest.mark.parametrize("method", classical.METHODS)
def test_known_pixels_stay_and_the_hole_is_filled(method, photo_and_mask):
    photo, mask = photo_and_mask
    spoiled = np.where(mask[..., None], np.uint8([255, 0, 255]), photo)
    completed = classical.complete(method, spoiled, mask)
    assert completed.dtype == np.uint8
    assert np.array_equal(completed[~mask], photo[~mask])
    error = np.abs(completed[mask].astype(int) - photo[mask]).mean()
    assert error < np.abs(spoiled[mask].astype(int) - photo[mask]).mean() / 2
    # and what lay in the hole leaks nowhere
    assert np.array_equal(completed, classical.complete(method, photo, mask))


@pytest.mark.parametrize("method", classical.METHODS)
def test_empty_and_full_masks(method, photo_and_mask):
    photo, mask = photo_and_mask
    assert np.array_equal(classical.complete(method, photo, np.zeros_like(mask)), photo)
    assert classical.complete(method, photo, np.ones_like(mask)).shape == photo.shape


def test_mean_fill_takes_the_known_mean(photo_and_mask):
    photo, mask = photo_and_mask
    colour = classical.complete("mean", photo, mask)[mask]
    assert np.abs(colour - photo[~mask].mean(axis=0)).max() <= 0.5


def test_biharmonic_continues_a_ramp():
    ramp = np.repeat(np.linspace(40, 200, 33)[None, :, None], 33, axis=0).repeat(3, axis=2).round().astype(np.uint8)
    mask = np.zeros((33, 33), bool)
    mask[8:25, 8:25] = True
    assert np.abs(classical.complete("biharmonic", ramp, mask).astype(int) - ramp).max() <= 2


def test_unknown_method(photo_and_mask):
    with pytest.raises(ValueError, match="choose of mean, telea, navier_stokes, biharmonic, patchmatch"):
        classical.complete("magic", *photo_and_mask)
