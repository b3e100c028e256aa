"""Photos of any size: wide holes from coarse to fine, windows around holes, texture, and who fills so."""

import cv2
import numpy as np
import pytest
from PIL import Image

from inpaint_jax.classical import mean_fill
from inpaint_jax.data.sources import open_source
from inpaint_jax.demo.studio import Studio
from inpaint_jax.errors import UserError
from inpaint_jax.evaluation.methods import Methods
from inpaint_jax.inference import files, texture
from inpaint_jax.inference.growing import auto_growth
from inpaint_jax.inference.growing import grow as grow_hole
from inpaint_jax.inference.inpainter import Inpainter, is_wide
from inpaint_jax.inference.retouching import Stopped, retouch


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter.load("scenes")  # trained at 64 x 64


def load(index, width, height):
    return np.asarray(Image.fromarray(np.asarray(open_source("skimage:validation")[index])).resize((width, height)))


@pytest.fixture(scope="module")
def photo():
    return load(0, 160, 144)


def square(side, height=144, width=160, centre=(0.5, 0.5)):
    hole = np.zeros((height, width), bool)
    top, left = (round(share * length - side / 2) for share, length in zip(centre, (height, width)))
    hole[top : top + side, left : left + side] = True
    return hole


def sharpness(image, hole):
    """The mean distance of a pixel to its smooth surroundings."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2)
    return np.abs(image - smooth)[cv2.erode(hole.astype(np.uint8), np.ones((9, 9))) > 0].mean()


def test_wide_is_what_training_did_not_show():
    assert not is_wide(square(14), 64)
    assert is_wide(square(20), 64)
    assert not is_wide(square(20), 96)  # half the size is less than it knows
    assert not is_wide(np.ones((144, 160), bool), 64)
    assert not is_wide(np.zeros((144, 160), bool), 64)


def test_edges_go_on_into_wide_holes(inpainter):
    """Of a roof line in front of the sky, of which a single pass at this size makes a haze."""
    scene = np.full((192, 192, 3), 200, np.uint8)
    cv2.fillPoly(scene, [np.array([(0, 128), (192, 82), (192, 192), (0, 192)], np.int32)], (90, 60, 50))
    hole = square(72, 192, 192)
    errors = [np.abs(inpainter(scene, hole, wide=wide).astype(float) - scene)[hole].mean() for wide in (False, True)]
    assert errors[1] < 0.8 * errors[0]


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


def test_what_is_left_out_is_left_out_at_every_size(inpainter, photo):
    """The guess, too, is made without the attention: as by hand from the image at half the size."""
    hole = square(50)
    made = [inpainter.predict(photo[None], hole[None], without=w, wide=True).completed for w in ((), ("attention",))]
    assert (made[0] != made[1]).any()


def twins(width=192, height=128):
    """A photo that stands twice beside itself, with a hole in the left one, filled smoothly."""
    one = load(1, width // 2, height)
    truth = np.concatenate([one, one], axis=1)
    hole = square(40, height, width, (0.5, 0.25))
    smooth = np.where(hole[..., None], cv2.GaussianBlur(truth, (0, 0), 3), truth)
    return truth, hole, smooth


def error(image, truth, hole):
    return np.sqrt(np.mean((image.astype(float) - truth)[hole] ** 2))


def test_texture_comes_from_where_the_photo_is_alike():
    """What the twin shows comes back, as strong as it was, and nothing else changes."""
    truth, hole, smooth = twins()
    matches = texture.match(smooth, hole)
    shifts = matches.sources - matches.corners
    assert np.mean((shifts == (0, 96)).all(axis=1)) > 0.5
    textured = texture.add_texture(smooth, hole, matches)
    np.testing.assert_array_equal(textured[~hole], truth[~hole])
    assert error(textured, truth, hole) < 0.5 * error(smooth, truth, hole)
    assert 0.8 < sharpness(textured, hole) / sharpness(truth, hole) < 1.2
    assert sharpness(smooth, hole) < 0.5 * sharpness(truth, hole)


def test_detail_of_places_that_are_unlike_stays_away():
    """Of grey grain nothing belongs into a hole that was filled white."""
    grain = np.random.default_rng(0).integers(60, 140, (96, 96, 3), np.uint8)
    hole = square(40, 96, 96)
    for filled, trusted in ((100, True), (250, False)):
        completed = np.where(hole[..., None], np.uint8(filled), grain)
        textured = texture.add_texture(completed, hole, texture.match(completed, hole))
        assert (sharpness(textured, square(20, 96, 96)) > 0.5 * sharpness(grain, hole)) == trusted


def test_narrow_parts_are_left_to_the_network():
    _, hole, smooth = twins()
    line = np.zeros_like(hole)
    line[10:14, 10:80] = True
    textured = texture.add_texture(smooth, hole | line, texture.match(smooth, hole | line))
    np.testing.assert_array_equal(textured[10:14, 10:80], smooth[10:14, 10:80])
    assert not texture.wide_part(line).any()


@pytest.mark.parametrize("hole", [np.ones((64, 64), bool), square(60, 64, 64), np.ones((5, 90), bool)])
def test_there_may_be_nothing_to_copy_from(hole):
    image = np.full((*hole.shape, 3), 90, np.uint8)
    assert texture.match(image, hole) is None


def test_full_size_gets_the_detail_that_reducing_took():
    truth, hole, _ = twins(710, 474)  # 3.7 times as large
    small = cv2.resize(truth, (192, 128), interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(hole.astype(np.float32), (192, 128), interpolation=cv2.INTER_AREA) > 0
    matches = texture.match(small, small_hole)
    plain = texture.to_full_size(small, truth, hole, None)
    large = texture.to_full_size(small, truth, hole, matches)
    np.testing.assert_array_equal(large[~hole], truth[~hole])
    assert error(large, truth, hole) < 0.7 * error(plain, truth, hole)
    assert sharpness(large, hole) > 1.3 * sharpness(plain, hole)


def test_only_a_window_around_a_hole_is_looked_at(inpainter):
    scene = load(0, 400, 300)
    hole = square(24, 300, 400, (0.3, 0.2))
    made = retouch(inpainter, scene, hole, side=128)
    assert made.worked_at == [(128, 128)]
    np.testing.assert_array_equal(made.pixels[~hole], scene[~hole])
    other = scene.copy()
    other[240:, 240:] = 0
    other[hole] = 255  # nor is what the hole holds
    np.testing.assert_array_equal(retouch(inpainter, other, hole, side=128).pixels[hole], made.pixels[hole])


def test_thin_holes_are_filled_at_full_size_and_wide_ones_at_a_reduced_one(inpainter):
    scene = load(2, 400, 300)
    wire = np.zeros((300, 400), bool)
    wire[140:145] = True
    made = retouch(inpainter, scene, wire, side=128)
    assert len(made.worked_at) > 3
    assert set(made.worked_at) == {(128, 128)}
    at_once = retouch(inpainter, scene, wire, side=400)
    assert at_once.worked_at == [(300, 400)]
    assert error(made.pixels, scene, wire) < 1.1 * error(at_once.pixels, scene, wire)
    hole = square(110, 300, 400)
    flat = np.where(hole[..., None], scene[~hole].mean(axis=0), scene)
    made = retouch(inpainter, scene, hole, side=128)
    assert made.worked_at == [(128, 128)]
    assert error(made.pixels, scene, hole) < 0.9 * error(flat, scene, hole)


def test_a_hole_in_the_corner_of_anothers_box_has_its_own_window(inpainter):
    """A diagonal wire's box holds an object that it does not touch, and which is too wide for the wire's windows."""
    scene = load(2, 400, 400)
    wire, blob = np.zeros((400, 400), np.uint8), square(120, 400, 400, (0.75, 0.22))
    cv2.line(wire, (5, 5), (395, 395), 1, 4)
    wire = wire > 0
    made = retouch(inpainter, scene, wire | blob, side=128)
    np.testing.assert_array_equal(made.pixels[~(wire | blob)], scene[~(wire | blob)])
    flat = np.where(blob[..., None], scene[~blob].mean(axis=0), scene)
    assert error(made.pixels, scene, blob) < error(flat, scene, blob)


def test_specks_that_are_near_each_other_share_a_window(inpainter):
    scene = load(0, 400, 300)
    specks = np.zeros((300, 400), bool)
    specks[100:180:26, 100:180:26] = True
    made = retouch(inpainter, scene, specks, side=256)
    assert made.worked_at == [(256, 256)]
    assert (made.pixels != scene).any(axis=-1)[specks].mean() > 0.5


def test_of_a_dense_screen_of_holes_only_what_is_given_counts(inpainter):
    """At the reduced size every pixel covers a missing one."""
    scene, hole = load(0, 256, 256), np.zeros((256, 256), bool)
    hole[::4, ::4] = hole[60:200, 60:200] = True
    other = np.where(hole[..., None], 255, scene).astype(np.uint8)
    made = retouch(inpainter, scene, hole, side=64)
    np.testing.assert_array_equal(made.pixels[~hole], scene[~hole])
    np.testing.assert_array_equal(retouch(inpainter, other, hole, side=64).pixels, made.pixels)


def test_no_hole_and_masks_in_bytes(inpainter, photo):
    hole = square(50)
    np.testing.assert_array_equal(retouch(inpainter, photo, np.zeros_like(hole)).pixels, photo)
    expected = retouch(inpainter, photo, hole).pixels
    np.testing.assert_array_equal(retouch(inpainter, photo, 255 * hole.astype(np.uint8)).pixels, expected)
    with pytest.raises(ValueError, match="as large as its image"):
        retouch(inpainter, photo, hole[1:])


@pytest.mark.parametrize("shape", [(9, 8), (33, 200), (129, 257)])
def test_any_size_and_any_hole(inpainter, shape):
    """In a photo of one colour, every filled pixel has it; in another, known pixels stay."""
    scene, grey = load(3, shape[1], shape[0]), np.full((*shape, 3), 93, np.uint8)
    corner, border = np.zeros(shape, bool), np.zeros(shape, bool)
    corner[-5:, -5:] = True
    border[:, :4] = True
    for hole in (square(4, *shape), corner, border, corner | border):
        assert np.abs(retouch(inpainter, grey, hole, side=64).pixels.astype(int) - 93).max() <= 12
        made = retouch(inpainter, scene, hole, side=64)
        np.testing.assert_array_equal(made.pixels[~hole], scene[~hole])
    retouch(inpainter, scene, np.ones(shape, bool), side=64)


def test_it_stops_between_windows():
    photo, wire = load(1, 600, 400), np.zeros((400, 600), bool)
    wire[200:204] = True
    asked = []
    retouch("telea", photo, wire, side=64, stop=lambda: asked.append(0))
    assert len(asked) > 10
    asked.clear()
    with pytest.raises(Stopped):
        retouch("telea", photo, wire, side=64, stop=lambda: asked.append(0) or len(asked) == 3)
    assert len(asked) == 3


def test_a_classical_method_in_the_place_of_the_model(inpainter, photo, tmp_path):
    """In a window it is OpenCV's own; a larger hole is filled at a reduced size. Command and page do the same."""
    hole = square(20, centre=(0.4, 0.6))
    given = mean_fill(photo, hole)
    expected = cv2.inpaint(given, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    np.testing.assert_array_equal(retouch("telea", photo, hole).pixels, expected)
    np.testing.assert_array_equal(retouch("telea", photo, hole, side=100).pixels, expected)
    large = retouch("telea", photo, square(90), side=100)
    assert max(large.worked_at[0]) == 100
    np.testing.assert_array_equal(large.pixels[~square(90)], photo[~square(90)])

    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(hole).save(tmp_path / "hole.png")
    for plain, grow in ((False, 0), (True, 2), (False, "auto")):
        rules = files.HoleRules(method="telea", plain=plain, grow=grow)
        files.inpaint_files("unused", tmp_path / "photo.png", tmp_path / "out.png", tmp_path / "hole.png", rules=rules)
        made = np.asarray(Image.open(tmp_path / "out.png"))
        grown = grow_hole(hole, grow)
        given = mean_fill(photo, grown)
        np.testing.assert_array_equal(made, cv2.inpaint(given, grown.astype(np.uint8), 3, cv2.INPAINT_TELEA))
    studio = Studio(inpainter, None)
    page = studio.fill(photo, hole, None, 512, method="telea", growing=True)
    np.testing.assert_array_equal(page.pixels, made)
    assert page.grown == auto_growth(photo.shape[:2])
    with pytest.raises(UserError, match="takes no sketch"):
        files.inpaint_files("", tmp_path / "photo.png", tmp_path / "out.png", sketch=tmp_path / "hole.png", rules=rules)
    with pytest.raises(UserError, match="There is no method 'magic' here; choose of telea, navier_stokes"):
        studio.fill(photo, hole, None, 512, method="magic")


@pytest.mark.parametrize("shape", [(60, 81), (64, 64)])
def test_holes_grow_by_a_distance(shape):
    hole = np.zeros(shape, bool)
    hole[20:30, 15:40] = hole[50, 3] = True
    y, x = np.indices(shape)
    near = np.stack([(y - a) ** 2 + (x - b) ** 2 for a, b in np.argwhere(hole)]).min(axis=0)
    for pixels in (0, 1, 2, 5):
        np.testing.assert_array_equal(grow_hole(hole, pixels), near <= pixels**2)
    np.testing.assert_array_equal(grow_hole(hole, "auto"), near <= auto_growth(shape) ** 2)
    for same in (np.zeros(shape, bool), np.ones(shape, bool)):
        np.testing.assert_array_equal(grow_hole(same, 3), same)
    np.testing.assert_array_equal(grow_hole(hole, 500), hole)  # nothing would be left


def test_how_far_auto_is():
    sizes = {(64, 64): 1, (288, 432): 3, (512, 384): 4, (768, 1024): 4, (3000, 4000): 16}
    assert {shape: auto_growth(shape) for shape in sizes} == sizes
    assert auto_growth((768, 1024), side=1024) == 8


def test_command_page_and_evaluation_fill_alike(inpainter, photo, tmp_path):
    hole = square(50)
    expected = {False: retouch(inpainter, photo, hole).pixels, True: inpainter(photo, hole)}
    assert sharpness(expected[False], hole) > sharpness(expected[True], hole)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(hole).save(tmp_path / "hole.png")
    for plain in (True, False):
        rules = files.HoleRules(plain=plain)
        files.inpaint_file(inpainter, tmp_path / "photo.png", tmp_path / "hole.png", tmp_path / f"{plain}.png", rules)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{plain}.png")), expected[plain])
        with Methods((), {"model": inpainter}, 0, as_photos=not plain) as methods:
            np.testing.assert_array_equal(methods(photo[None], hole[None])["model"][0], expected[plain])
    np.testing.assert_array_equal(Studio(inpainter, None).fill(photo, hole, None, 512).pixels, expected[False])
