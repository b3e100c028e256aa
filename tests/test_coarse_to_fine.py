"""Wide holes of large photos: filled at smaller sizes first."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from inpaint_jax.data.sources import open_source
from inpaint_jax.demo.studio import Studio
from inpaint_jax.evaluation.methods import Methods
from inpaint_jax.inference import coarse_to_fine, files
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.nets.fill import around, tension_spline


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter.load("scenes")  # trained at 64 x 64


@pytest.fixture(scope="module")
def photo():
    return np.asarray(Image.fromarray(np.asarray(open_source("skimage:validation")[0])).resize((160, 144)))


def square(side, height=144, width=160):
    hole = np.zeros((height, width), bool)
    top, left = (height - side) // 2, (width - side) // 2
    hole[top : top + side, left : left + side] = True
    return hole


def test_wide_is_what_training_did_not_show():
    assert not coarse_to_fine.is_wide(square(14), 64)
    assert coarse_to_fine.is_wide(square(20), 64)
    assert not coarse_to_fine.is_wide(square(20), 96)  # half the size is less than it knows
    assert not coarse_to_fine.is_wide(np.ones((144, 160), bool), 64)
    assert not coarse_to_fine.is_wide(np.zeros((144, 160), bool), 64)


def test_half_the_size_is_the_mean_of_what_is_given(photo):
    hole = np.random.default_rng(0).random(photo.shape[:2]) < 0.5
    small, small_hole = coarse_to_fine.halve(photo, hole)
    for y, x in np.random.default_rng(1).integers(0, 72, (40, 2)):
        given = ~hole[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert small_hole[y, x] == (given.mean() < 0.3)
        if given.any():
            mean = photo[2 * y : 2 * y + 2, 2 * x : 2 * x + 2][given].mean(axis=0)
            np.testing.assert_allclose(small[y, x], mean, atol=0.51)


def test_a_guess_is_brought_into_line_with_what_is_given(photo):
    """A guess that is right but for its brightness is the truth; none at all is the spline."""
    truth = photo[None].astype(np.float32) / 255
    hole = square(40)[None]
    dark = jnp.asarray(0.8 * truth + 0.1)
    lifted = jax.jit(around)(dark - 0.1, dark, hole)
    np.testing.assert_allclose(lifted, dark, atol=2e-3)
    flat = jax.jit(around)(jnp.full_like(dark, 0.5), dark, hole)
    np.testing.assert_allclose(flat, jax.jit(tension_spline)(dark, hole), atol=5e-3)


def test_edges_go_on_into_wide_holes(inpainter):
    """Of a roof line in front of the sky, of which a single pass at this size makes a haze."""
    scene = np.full((256, 256, 3), 200, np.uint8)
    cv2.fillPoly(scene, [np.array([(0, 170), (256, 110), (256, 256), (0, 256)], np.int32)], (90, 60, 50))
    hole = square(96, 256, 256)
    errors = [np.abs(inpainter(scene, hole, wide=wide).astype(float) - scene)[hole].mean() for wide in (False, True)]
    assert errors[1] < 0.8 * errors[0]


def test_whoever_fills_a_photo_may_ask_for_it(inpainter, photo, tmp_path):
    """The command, the page and evaluations: with the result of `Inpainter`, in one pass or in more."""
    hole = square(50)
    expected = {wide: inpainter(photo, hole, wide=wide) for wide in (True, False)}
    assert (expected[True] != expected[False]).any()
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(hole).save(tmp_path / "hole.png")
    for wide in (True, False):
        rules = files.HoleRules(wide=wide)
        files.inpaint_file(inpainter, tmp_path / "photo.png", tmp_path / "hole.png", tmp_path / f"{wide}.png", rules)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{wide}.png")), expected[wide])
        with Methods((), {"model": inpainter}, 0, wide=wide) as methods:
            np.testing.assert_array_equal(methods(photo[None], hole[None])["model"][0], expected[wide])
    np.testing.assert_array_equal(Studio(inpainter, None).fill(photo, hole, None, 160).pixels, expected[True])


def test_temperatures_and_switches_hold_at_every_size(inpainter, photo):
    images, holes = np.stack([photo, photo[::-1]]), np.stack([square(50)] * 2)
    with pytest.raises(ValueError, match=r"one for each image and head, of shape \(2, 2\), not \(3, 2\)"):
        inpainter.predict(images, holes, temperatures=np.ones((3, 2)), wide=True)
    given = np.float32([[0.1, 0.2], [0.3, 0.4]])
    made = inpainter.predict(images, holes, temperatures=given, margin=0, wide=True)
    np.testing.assert_array_equal(made.temperatures, given)
    alone = inpainter.predict(images[1:], holes[1:], temperatures=given[1:], margin=0, wide=True)
    np.testing.assert_array_equal(made.completed[1], alone.completed[0])


def test_each_image_by_itself_and_narrow_holes_as_ever(inpainter, photo):
    images, holes = np.stack([photo, photo[::-1]]), np.stack([square(12), square(50)])
    filled = inpainter(images, holes, wide=True)
    assert (filled == images)[~holes].all()
    single = inpainter(images, holes)
    np.testing.assert_array_equal(filled[0], inpainter(images[0], holes[0]))
    assert (filled[1] != single[1]).any()
    np.testing.assert_array_equal(filled[1], inpainter(images[1], holes[1], wide=True))
