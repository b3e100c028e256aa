"""Which image gets which mask: fixed by seed and number, and in the bin that its ratio says."""

import cv2
import numpy as np
import pytest
from PIL import Image

from inpaint_jax.data import masks as masks_module
from inpaint_jax.data.sources import open_source
from inpaint_jax.evaluation import pairs


@pytest.fixture(scope="module")
def source(photos):
    return open_source(f"folder:{photos}/train")


@pytest.fixture(scope="module")
def mask_folder(tmp_path_factory):
    """20 files of squares, of ratios 0.02 .. 0.75, white = missing."""
    folder = tmp_path_factory.mktemp("masks")
    for number, ratio in enumerate(np.linspace(0.02, 0.75, 20)):
        mask = np.zeros((100, 100), np.uint8)
        mask[: round(100 * ratio)] = 255
        Image.fromarray(mask).save(folder / f"{number:02d}.png")
    return folder


RNG = np.random.default_rng(0)  # the masks must not depend on it


def ratios(part):
    return [part.masks.draw(RNG, i).mask.mean() for i in range(len(part.images))]


@pytest.mark.parametrize(("low", "high"), pairs.BINS)
@pytest.mark.parametrize("size", [32, 128])
def test_strokes_hit_the_wanted_ratio(low, high, size):
    drawn = [
        masks_module.free_form_mask_of_ratio(np.random.default_rng(seed), size, size, low, high).mean()
        for seed in range(40)
    ]
    assert min(drawn) > low
    assert max(drawn) <= high
    assert np.std(drawn) > 0.01  # spread over the bin, not all alike


def test_strokes_of_an_impossible_ratio():
    with pytest.raises(ValueError, match="within 0 and 1"):
        masks_module.free_form_mask_of_ratio(np.random.default_rng(0), 32, 32, 0.5, 0.5)
    with pytest.raises(ValueError, match="widen the range"):
        masks_module.free_form_mask_of_ratio(np.random.default_rng(0), 16, 16, 0.5, 0.5001)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.1001, 0.6])
def test_bins_hold_their_upper_end(ratio):
    label = pairs.bin_label(ratio)
    assert label == {0.05: "(0.0, 0.1]", 0.1: "(0.0, 0.1]", 0.1001: "(0.1, 0.2]", 0.6: "(0.5, 0.6]"}[ratio]


def test_ratios_in_no_bin():
    assert pairs.bin_label(0) == pairs.bin_label(0.601) == pairs.OUTSIDE


@pytest.mark.parametrize("masks", ["generated", "folder"])
def test_every_image_once_in_every_bin(source, mask_folder, masks):
    spec = f"folder:{mask_folder}" if masks == "folder" else masks
    bins = pairs.pair(source, spec, size=64, seed=0)
    assert [part.label for part in bins] == [pairs.label(*limits) for limits in pairs.BINS]
    for part in bins:
        assert part.images.numbers == tuple(range(len(source)))
        assert {pairs.bin_label(ratio) for ratio in ratios(part)} == {part.label}


@pytest.mark.parametrize("masks", ["generated", "folder", "freeform"])
def test_every_image_once(source, mask_folder, masks):
    spec = f"folder:{mask_folder}" if masks == "folder" else masks
    bins = pairs.pair(source, spec, size=64, seed=0, pairing="once")
    assert sorted(number for part in bins for number in part.images.numbers) == list(range(len(source)))
    for part in bins:
        assert {pairs.bin_label(ratio) for ratio in ratios(part)} == {part.label}


@pytest.mark.parametrize("masks", ["generated", "folder", "freeform"])
def test_masks_depend_on_the_seed_alone(source, mask_folder, masks):
    spec = f"folder:{mask_folder}" if masks == "folder" else masks
    first, again, other = (
        [
            part.masks.draw(RNG, i).mask
            for part in pairs.pair(source, spec, size=64, seed=seed, pairing="once")
            for i in range(len(part.images))
        ]
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))


def test_limit_takes_the_first_images_with_the_masks_they_have_anyway(source, mask_folder):
    for spec in ("generated", f"folder:{mask_folder}"):
        whole = pairs.pair(source, spec, size=64, seed=0)
        part = pairs.pair(source, spec, size=64, seed=0, limit=3)
        for a, b in zip(whole, part):
            assert b.images.numbers == (0, 1, 2)
            assert all(np.array_equal(a.masks.draw(RNG, i).mask, b.masks.draw(RNG, i).mask) for i in range(3))


def test_folder_masks_are_resized_to_nearest_pixels_and_measured_there(source, tmp_path):
    """A comb of single lines, of which half fall away and half grow at half the size: nearest pixels, not averages."""
    mask = np.zeros((64, 64), np.uint8)
    mask[::16] = mask[5::16] = 255
    Image.fromarray(mask).save(tmp_path / "comb.png")
    (part,) = pairs.pair(source, f"folder:{tmp_path}", size=32, seed=0)
    drawn = part.masks.draw(RNG, 0).mask
    expected = cv2.resize(mask, (32, 32), interpolation=cv2.INTER_NEAREST_EXACT) > 127
    assert np.array_equal(drawn, expected)
    assert drawn.mean() == 1 / 8
    assert part.label == pairs.bin_label(expected.mean())


def test_polarity(source, tmp_path):
    mask = np.full((64, 64), 255, np.uint8)
    mask[:16] = 0
    mask[16:20] = 127  # not above 127: black
    Image.fromarray(mask).save(tmp_path / "black.png")
    (part,) = pairs.pair(source, f"folder:{tmp_path}?missing=black", size=64, seed=0)
    assert part.masks.draw(RNG, 0).mask[:20].all()
    assert not part.masks.draw(RNG, 0).mask[20:].any()
    with pytest.raises(ValueError, match="are black and white exchanged"):
        pairs.pair(source, f"folder:{tmp_path}", size=64, seed=0)
    with pytest.raises(ValueError, match="missing is white or black, not 'grey'"):
        pairs.pair(source, f"folder:{tmp_path}?missing=grey", size=64, seed=0)


def test_bins_without_masks_and_masks_without_bins_are_named(source, tmp_path, caplog):
    for rows in (10, 15, 60):
        mask = np.zeros((64, 64), np.uint8)
        mask[:rows] = 255
        Image.fromarray(mask).save(tmp_path / f"{rows}.png")
    assert [part.label for part in pairs.pair(source, f"folder:{tmp_path}", size=64, seed=0)] == [
        "(0.1, 0.2]",
        "(0.2, 0.3]",
    ]
    assert "1 of 3 masks have a ratio outside of all bins" in caplog.text
    assert "No mask falls into (0.0, 0.1], (0.3, 0.4]" in caplog.text
    for rows in (10, 15):
        (tmp_path / f"{rows}.png").unlink()
    with pytest.raises(ValueError, match="are black and white exchanged"):
        pairs.pair(source, f"folder:{tmp_path}", size=64, seed=0, pairing="once")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": "freeform"}, "freeform masks have any ratio"),
        ({"pairing": "twice"}, 'use "every_bin" or "once"'),
        ({"limit": 0}, "limit must be at least 1"),
        ({"masks": "squares"}, "'squares' are unknown"),
    ],
)
def test_wrong_wishes(source, options, message):
    options = {"masks": "generated", "size": 32, "seed": 0} | options
    with pytest.raises(ValueError, match=message):
        pairs.pair(source, **options)
