"""Masks against the figures that they are to have, and masks from files."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inpaint_jax.data.masks import (
    FreeFormMasks,
    MixedMasks,
    UnreadableMask,
    free_form_mask,
    local_crop_for,
    local_crop_side,
    open_masks,
    random_walk_mask,
    read_mask,
    square_mask,
    training_mask,
)
from inpaint_jax.evaluation import pairs

SHARED = Path(os.environ.get("INPAINT_JAX_SHARED", Path(__file__).parents[2] / "shared"))


def coverages(draw, count: int) -> np.ndarray:
    return np.array([draw(np.random.default_rng(seed)).mean() for seed in range(count)])


# The tolerances tell OpenCV's lines, drawn 1-2 pixels too wide, from right ones (0.161 instead of 0.15).


def test_brush_covers_what_the_contract_says():
    assert coverages(lambda rng: free_form_mask(rng, 256, 256), 1000).mean() == pytest.approx(0.15, abs=0.009)


def test_union_covers_what_the_contract_says():
    ratios = coverages(lambda rng: training_mask(rng, 256, 256).mask, 1000)
    assert ratios.mean() == pytest.approx(0.27, abs=0.01)
    assert np.percentile(ratios, [5, 95]) == pytest.approx([0.17, 0.40], abs=0.02)
    assert ratios.min() >= (96 / 256) ** 2


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 128), (512, 512), (192, 256)])
def test_masks_scale_with_the_image(height, width):
    ratios = coverages(lambda rng: free_form_mask(rng, height, width), 600)
    assert ratios.mean() == pytest.approx(0.15, abs=0.015)


def test_strokes_run_in_all_directions():
    mean = np.mean([free_form_mask(np.random.default_rng(seed), 64, 64) for seed in range(2000)], axis=0)
    assert mean[:, :32].mean() == pytest.approx(mean[:, 32:].mean(), abs=0.012)  # 0.09 apart without flips
    assert mean[:32].mean() == pytest.approx(mean[32:].mean(), abs=0.012)


def test_options_of_the_brush():
    def area(**options):
        return coverages(lambda rng: free_form_mask(rng, 128, 128, **options), 200).mean()

    assert area(strokes=(3, 3)) > 1.3 * area(strokes=(1, 1))
    assert area(vertices=(11, 11)) > 1.3 * area(vertices=(4, 4))
    assert area(stroke_width=(38, 38)) > 2 * area(stroke_width=(12, 12))


def test_masks_are_fixed_by_rng():
    first, again, other = (training_mask(np.random.default_rng(seed), 256, 256) for seed in (5, 5, 6))
    assert first.mask.dtype == bool
    assert first.crop.dtype == np.int32
    np.testing.assert_array_equal(first.mask, again.mask)
    np.testing.assert_array_equal(first.crop, again.crop)
    assert (first.mask != other.mask).any()


@pytest.mark.parametrize(("height", "width"), [(256, 256), (97, 130)])
def test_square_lies_anywhere_in_the_image(height, width):
    rng = np.random.default_rng(0)
    corners = []
    for _ in range(2000):
        mask, (top, left, side) = square_mask(rng, height, width)
        assert side == round(0.375 * min(height, width))
        assert mask[top : top + side, left : left + side].all()
        assert mask.sum() == side**2
        corners.append((top, left))
    assert np.min(corners, axis=0).max() <= 3
    assert (np.max(corners, axis=0) >= np.array([height, width]) - side - 3).all()


@pytest.mark.parametrize(("height", "width"), [(256, 256), (64, 64), (97, 130)])
def test_local_crop_holds_the_square_and_lies_in_the_image(height, width):
    offsets = []
    crop_side = local_crop_side(height, width)
    for seed in range(500):
        drawn = training_mask(np.random.default_rng(seed), height, width)
        rng = np.random.default_rng(seed)  # the same draws once more, to learn where the square is
        free_form_mask(rng, height, width)
        _, (top, left, side) = square_mask(rng, height, width)
        assert (drawn.crop >= 0).all()
        assert (drawn.crop + crop_side <= (height, width)).all()
        assert (drawn.crop <= (top, left)).all()
        assert (drawn.crop + crop_side >= (top + side, left + side)).all()
        offsets.append((top, left) - drawn.crop)
    spread = crop_side - side
    assert np.min(offsets) == 0
    assert np.max(offsets) == spread
    if height == width == 256:
        assert np.mean(offsets) == pytest.approx(spread / 2, abs=2)


def test_local_crop_for_any_mask():
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 60), bool)
    mask[39, 0] = mask[5, 50] = True
    seen = set()
    for _ in range(50):
        top, left = local_crop_for(rng, mask, 20)
        assert 0 <= top <= 20
        assert 0 <= left <= 40
        assert mask[top : top + 20, left : left + 20].any()
        seen.add((int(top), int(left)))
    assert seen == {(20, 0), (0, 40)}
    top, left = local_crop_for(rng, np.zeros((40, 60), bool), 20)
    assert 0 <= top <= 20
    assert 0 <= left <= 40


# Masks of all kinds.


def test_mixed_masks_reach_every_bin_of_the_tables():
    masks = [MixedMasks(64).draw(np.random.default_rng(seed)) for seed in range(300)]
    ratios = np.array([drawn.mask.mean() for drawn in masks])
    shares = [((low < ratios) & (ratios <= high)).mean() for low, high in pairs.BINS]
    assert min(shares) > 0.03, shares
    assert (ratios > 0).all()
    assert ratios.max() <= 0.75  # a square and strokes may exceed what strokes of a ratio may
    crops = np.array([drawn.crop for drawn in masks])
    assert crops.dtype == np.int32
    assert crops.min() >= 0
    assert crops.max() <= 64 - 32
    assert all(m.mask[top : top + 32, left : left + 32].any() for m, (top, left) in zip(masks, crops))


def test_a_third_of_mixed_masks_are_those_of_the_paper():
    counts = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        if rng.integers(3) == 0:
            expected, counts = training_mask(rng, 64, 64), counts + 1
            drawn = MixedMasks(64).draw(np.random.default_rng(seed))
            np.testing.assert_array_equal(drawn.mask, expected.mask)
            np.testing.assert_array_equal(drawn.crop, expected.crop)
    assert counts == pytest.approx(100, abs=25)


def test_masks_of_deepfillv2_hold_a_box_of_its_sides():
    """A box of half the side or up to a quarter of that less, and strokes."""
    sides, more = set(), []
    for seed in range(60):
        drawn = open_masks("deepfillv2", 64).draw(np.random.default_rng(seed), 3)
        rng = np.random.default_rng(seed)
        _, (top, left, side) = square_mask(rng, 64, 64, fraction=1 / 2)
        rows, columns = rng.integers(0, 4, 2, endpoint=True)
        box = drawn.mask[top + rows : top + side - rows, left + columns : left + side - columns]
        assert box.all()
        sides |= {box.shape[0], box.shape[1]}
        more.append(drawn.mask.sum() > box.size)
        crop_top, crop_left = drawn.crop
        assert drawn.mask[crop_top : crop_top + 32, crop_left : crop_left + 32].any()
    assert sides == {24, 26, 28, 30, 32}
    assert np.mean(more) > 0.9


def test_random_walks_visit_what_walks_do_that_a_border_holds_back():
    """The same shares of every place as of walks in a loop, by the law of large numbers."""

    def slow(rng, side):
        place, canvas = rng.integers(2 * side, size=2), np.zeros((2 * side, 2 * side), int)
        for step in rng.integers(4, size=4 * side * side).tolist():
            axis, sign = step // 2, 2 * (step % 2) - 1
            place[axis] = min(max(place[axis] + sign, 0), 2 * side - 1)
            canvas[place[0], place[1]] = 1
        return canvas.reshape(side, 2, side, 2).sum(axis=(1, 3)) >= 2

    expected = np.mean([slow(np.random.default_rng(seed), 8) for seed in range(1000)], axis=0)
    drawn = [open_masks("random_walk", 8).draw(np.random.default_rng(seed)) for seed in range(4000)]
    found = np.mean([mask for mask, _ in drawn], axis=0)
    np.testing.assert_allclose(found, expected, atol=0.07)
    assert found.mean() == pytest.approx(expected.mean(), abs=0.01)
    corner, middle = found[0, 0], found[4, 4]
    assert corner < middle
    assert all(mask[top : top + 4, left : left + 4].any() for mask, (top, left) in drawn)
    assert random_walk_mask(np.random.default_rng(0), 32, 48).shape == (32, 48)


@pytest.mark.parametrize("size", [16, 96])
def test_mixed_masks_are_fixed_by_rng(size):
    source = open_masks("mixed", size)
    assert source == pickle.loads(pickle.dumps(source)) == MixedMasks(size)
    for seed in range(30):
        first, again = (source.draw(np.random.default_rng(seed), index) for index in (None, 7))
        assert first.mask.shape == (size, size)
        assert first.mask.dtype == bool
        np.testing.assert_array_equal(first.mask, again.mask)
        np.testing.assert_array_equal(first.crop, again.crop)


# Masks from files.


def write_mask(path: Path, mask: np.ndarray, mode: str = "L") -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(path)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "P"])
def test_white_is_missing(mode, tmp_path):
    mask = training_mask(np.random.default_rng(0), 100, 140).mask
    write_mask(tmp_path / "mask.png", mask, mode)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)


def test_threshold_lies_above_127(tmp_path):
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[False, False, True, True]]


def test_folder_masks(tmp_path):
    masks = [training_mask(np.random.default_rng(seed), 128, 128).mask for seed in range(5)]
    for number, mask in enumerate(masks):
        write_mask(tmp_path / f"{number}.png", mask)
    source = open_masks(f"folder:{tmp_path}", 64)
    source = pickle.loads(pickle.dumps(source))

    for index in (0, 4, 5, 12):  # evaluation: by number, round and round
        drawn = source.draw(np.random.default_rng(index), index)
        assert drawn.mask.shape == (64, 64)
        wrong = drawn.mask != masks[index % 5].reshape(64, 2, 64, 2).max(axis=(1, 3))
        assert wrong.mean() < 0.03  # nearest pixels differ from the block's maximum at edges only
        top, left = drawn.crop
        assert drawn.mask[top : top + 32, left : left + 32].any()

    fixed = [source.draw(np.random.default_rng(0), index).mask.tobytes() for index in range(5)]
    drawn = [source.draw(np.random.default_rng(seed)).mask.tobytes() for seed in range(60)]
    assert drawn == [source.draw(np.random.default_rng(seed)).mask.tobytes() for seed in range(60)]
    assert set(drawn) == set(fixed)  # training: any of them


def test_unreadable_mask_is_an_error(tmp_path):
    (tmp_path / "hole.png").write_text("no mask")
    with pytest.raises(UnreadableMask, match=r"Remove or repair the mask file .*hole.png"):
        open_masks(f"folder:{tmp_path}", 64).draw(np.random.default_rng(0), 0)


def test_open_masks_by_name(tmp_path):
    assert open_masks("freeform", 96) == FreeFormMasks(96)
    assert open_masks("freeform", 96).draw(np.random.default_rng(0)).mask.shape == (96, 96)
    with pytest.raises(ValueError, match="freeform, mixed, deepfillv2, random_walk or folder:PATH"):
        open_masks("irregular", 96)
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_masks(f"folder:{tmp_path}/gone", 96)


@pytest.mark.skipif(not (SHARED / "data/masks").is_dir(), reason=f"needs NVIDIA's test masks in {SHARED}/data/masks")
def test_nvidias_masks_keep_their_ratio():
    source = open_masks(f"folder:{SHARED}/data/masks", 256)
    for index in range(0, len(source.files), 20):
        ratio = int(Path(source.files.name(index)).stem) // 1000 // 2  # two blocks share a ratio
        whole = read_mask(Path(source.files.root, source.files.name(index)))
        assert whole.shape == (512, 512)
        assert max(0.01, ratio / 10) <= whole.mean() <= (ratio + 1) / 10
        drawn = source.draw(np.random.default_rng(0), index)
        assert drawn.mask.mean() == pytest.approx(whole.mean(), abs=0.005)
        np.testing.assert_array_equal(drawn.mask, source.draw(np.random.default_rng(1), index + len(source.files)).mask)
