"""What is shown of a model is what it does: on the tiny run's photos."""

import json

import numpy as np
import pytest
from scipy import ndimage

from inpaint_jax import inspection
from inpaint_jax.data.images import crop_corner
from inpaint_jax.data.sketches import UnusableSketches, sketch_square
from inpaint_jax.features import pidinet
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inspection import widgets
from inpaint_jax.sketching.make import Settings, make_sketches
from inpaint_jax.writers import read_metrics

BINS = [(low / 10, (low + 1) / 10) for low in range(6)]


@pytest.fixture(scope="module")
def inpainter(tiny_workdir):
    return Inpainter.load(tiny_workdir)


@pytest.fixture(scope="module")
def samples(tiny_workdir):
    return inspection.samples(tiny_workdir, 3, seed=0)  # holes that leave some patches known, at this size


@pytest.fixture(scope="module")
def inputs(inpainter, samples):
    return inspection.look_into(inpainter, samples, 1)


def test_samples_are_the_first_validation_photos(samples, tiny_workdir, photos):
    from inpaint_jax.data.images import resize_and_crop
    from inpaint_jax.data.sources import open_source

    source = open_source(f"folder:{photos}/val")
    expected = np.stack([resize_and_crop(source[i], 32) for i in range(3)])
    np.testing.assert_array_equal(samples.images, expected)
    assert samples.masks.shape == (3, 32, 32)
    assert 0 < samples.masks.mean() < 1
    assert samples.sketches is None
    np.testing.assert_array_equal(samples.shown[~samples.masks], samples.images[~samples.masks])
    assert len(np.unique(samples.shown[samples.masks], axis=0)) == 1
    np.testing.assert_array_equal(inspection.samples(tiny_workdir, 3, seed=0).masks, samples.masks)
    assert (inspection.samples(tiny_workdir, 3, seed=1).masks != samples.masks).any()
    assert len(inspection.samples(tiny_workdir, 100)) == 5
    assert len(samples[:2]) == 2
    other = inspection.samples(tiny_workdir, 2, data="skimage:validation")
    assert other.images.shape == (2, 32, 32, 3)


def test_masks_are_those_of_the_validation(inpainter, tiny_workdir):
    """So that figures can be compared with the run's own log."""
    logged = {
        row["step"]: row["validation/hole_psnr"] for row in read_metrics(tiny_workdir) if "validation/loss" in row
    }
    every = inspection.samples(tiny_workdir, 5)
    _, _, psnr = inspection.psnr_by_temperature(inpainter, every, [])
    assert psnr == pytest.approx(logged[inpainter.step], abs=0.02)  # of 8-bit pixels here, of float there


def test_training_samples_come_with_the_discriminators_view(tiny_workdir, samples):
    drawn = inspection.training_samples(tiny_workdir, 6)
    crops = drawn.local_crops(drawn.masks)
    assert crops.shape == (6, 16, 16)
    assert crops.mean(axis=(1, 2)).min() >= (12 / 16) ** 2  # the whole square, 3/8 of 32, is in it
    with pytest.raises(ValueError, match="training_samples"):
        inspection.Samples(samples.images, samples.masks).local_crops(samples.images)


def test_sketches_of_a_guided_run_come_along(guided_workdir):
    guided = inspection.samples(guided_workdir, 2)
    assert guided.sketches.shape == guided.masks.shape
    white = guided.masks & guided.sketches
    assert (guided.shown[white] == 255).all()
    inputs = inspection.look_into(Inpainter.load(guided_workdir), guided)
    assert np.isfinite(inputs.temperatures).all()


def test_samples_are_those_that_the_validation_was_limited_to(guided_workdir, photos, shared, tmp_path, monkeypatch):
    """With sketches of these photos alone, in a folder of the home; a folder that does not fit is refused."""
    config = json.loads((guided_workdir / "config.json").read_text())
    monkeypatch.setenv("HOME", str(tmp_path))

    def run_with(name, **fields):
        workdir = tmp_path / name
        workdir.mkdir()
        (workdir / "config.json").write_text(json.dumps(config | {"data": config["data"] | fields}))
        return workdir

    weights = shared / "weights" / pidinet.PIDINET.name
    for folder, size, limit in (("three", 32, 3), ("small", 24, 3)):
        settings = Settings(f"folder:{photos}/val", size, "shortest", weights=str(weights), workers=0, limit=limit)
        make_sketches(tmp_path / folder, settings)
    limited = run_with("limited", validation_limit=3, validation_sketches="~/three")
    found = inspection.samples(limited, 8)
    assert len(found) == 3
    expected = inspection.samples(guided_workdir, 8)
    assert len(expected) == 5
    np.testing.assert_array_equal(found.sketches, expected.sketches[:3])
    np.testing.assert_array_equal(found.masks, expected.masks[:3])
    with pytest.raises(UnusableSketches, match="sketches of 3 photos, but the data has 5"):
        inspection.samples(run_with("unlimited", validation_sketches="~/three"))
    with pytest.raises(UnusableSketches, match="for size 24, not 32"):
        inspection.samples(run_with("other", validation_limit=3, validation_sketches="~/small"))

    # An evaluation is of all photos of data.test, and takes the sketches only where these are the same.
    assert inspection.evaluation_sketches(guided_workdir) == "none"
    own = str(guided_workdir / "sketches" / "validation")
    test = config["data"]["validation"]
    assert inspection.evaluation_sketches(run_with("tested", test=test, validation_sketches=own)) == own
    too_few = run_with("too few", test=test, validation_limit=3, validation_sketches="~/three")
    assert inspection.evaluation_sketches(too_few) == "none"


def test_masks_have_the_ratios_of_their_bins(tiny_workdir):
    by_bin = inspection.masks_by_ratio(tiny_workdir, 3)
    for masks, (low, high) in zip(by_bin.values(), BINS):
        assert ((masks.mean(axis=(1, 2)) > low) & (masks.mean(axis=(1, 2)) <= high)).all()
    ratios = inspection.mask_ratios(tiny_workdir, 60)
    training, strokes, evaluation = ratios.values()
    assert training.min() >= (12 / 32) ** 2
    assert strokes.mean() < training.mean()
    assert np.bincount(np.ceil(10 * evaluation).astype(int)).tolist() == [0] + [10] * 6


def test_look_into_leaves_out_the_padding(inpainter, samples):
    cut = inspection.Samples(samples.images[:, :21, :30], samples.masks[:, :21, :30])
    inputs = inspection.look_into(inpainter, cut)
    assert inputs.mask.shape == (8, 8)
    assert inputs.hole.shape == (6, 8)
    assert inspection.attended(inputs, (5, 7), head=0).shape == (6, 8)
    assert inspection.refined_maps(inputs, np.array([0.1]))[1].shape[:3] == (1, 6, 8)
    for look in (inspection.attended, inspection.sweep):
        with pytest.raises(ValueError, match="outside the map of 6 x 8"):
            look(inputs, (6, 0), head=0)


def test_figure_says_what_share_of_the_weights_lies_in_the_padding(inpainter, samples):
    image, mask = samples.images[0, :21, :30], np.zeros((21, 30), bool)
    mask[4:8, 4:8] = True
    inputs = inspection.look_into(inpainter, inspection.Samples(image[None], mask[None]))
    query = inspection.hole_centre(inputs)
    hot = inspection.attended(inputs, query, head=0, temperature=1e4)
    padding = 1 - hot.sum()  # every known patch has the same weight, and the last rows of eight are cropped
    assert 0.01 < padding < 0.5
    figure = widgets.attention_figure(inputs, image, mask, query, temperature=1e4)
    last = figure.axes[-1].get_title()
    count = np.count_nonzero(hot > 1e-6)  # patches of equal weight
    assert f"spread over {count}\n{padding:.0%} in the padding" in last


def test_hole_centre_is_the_deepest(inputs):
    row, column = inspection.hole_centre(inputs)
    depth = ndimage.distance_transform_edt(np.pad(inputs.hole, 1))[1:-1, 1:-1]
    assert depth[row, column] >= depth.max() - 0.5
    empty = inspection.HeadInputs((), np.zeros((8, 8)), np.ones(2), 3, 8, 8)
    with pytest.raises(ValueError, match="has no hole"):
        inspection.hole_centre(empty)


def test_attended_sums_to_one_and_leaves_out_the_hole(inputs):
    query = inspection.hole_centre(inputs)
    for temperature in (None, 1e-3, 1.0):
        weights = inspection.attended(inputs, query, head=1, temperature=temperature)
        assert weights.shape == (8, 8)
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        assert weights[inputs.hole].sum() < 1e-6
    assert inspection.attended(inputs, query, head=1, temperature=1e-3).max() > 2 * weights.max()


def test_sweep_goes_from_the_best_match_to_the_mean(inputs):
    query = inspection.hole_centre(inputs)
    sweep = inspection.sweep(inputs, query, head=0, temperatures=np.geomspace(1e-4, 1e4, 9))
    # Cold: two keys may be all but equally similar, and the best one has the most of it.
    distances = np.linalg.norm(sweep.known - sweep.refined[0], axis=1)
    assert distances[sweep.best] <= 1.01 * distances.min() + 1e-4
    np.testing.assert_allclose(sweep.refined[-1], sweep.known.mean(axis=0), atol=1e-3)
    assert sweep.learned_temperature == pytest.approx(inputs.temperatures[0])
    again = inspection.sweep(inputs, query, head=0, temperatures=[sweep.learned_temperature])
    np.testing.assert_allclose(again.refined[0], sweep.learned, atol=1e-5)
    assert set(vars(sweep)) == {"temperatures", "refined", "known", "best", "learned", "learned_temperature"}


def test_refined_maps_get_smoother(inputs):
    for maps in inspection.refined_maps(inputs, np.array([1e-3, 100.0])):
        assert maps.shape[:3] == (2, 8, 8)
        assert maps[1].var(axis=(0, 1)).sum() < 0.5 * maps[0].var(axis=(0, 1)).sum()


def test_temperatures_by_ratio(inpainter, samples):
    ratios, temperatures = inspection.temperatures_by_ratio(inpainter, samples)
    assert ratios.shape == (18,)
    assert temperatures.shape == (18, 2)
    for part, (low, high) in zip(ratios.reshape(6, 3), BINS):
        assert ((part > low) & (part <= high)).all()
    assert (temperatures > 0).all()


def test_parts_and_temperatures_are_those_of_the_inpainter(inpainter, samples):
    parts = inspection.with_parts_switched_off(inpainter, samples)
    assert list(parts) == ["input", "convolution", "attention", "high t", "low t", "full", "truth"]

    def directly(**how):
        """In the batch of eight for which the programs are compiled already."""
        rows = [0, 1, 2, 2, 2, 2, 2, 2]
        how = {name: value if name == "without" else value[rows] for name, value in how.items()}
        made = inpainter.predict(samples.images[rows], samples.masks[rows], margin=0, **how)
        return made.completed[:3], made.temperatures[:3]

    full, temperatures = directly()
    np.testing.assert_array_equal(parts["full"], full)
    high = int(np.argmax(temperatures.mean(axis=0)))
    np.testing.assert_array_equal(parts["high t"], directly(without=[f"head_{1 - high}"])[0])
    np.testing.assert_array_equal(parts["convolution"], directly(without=["attention"])[0])
    psnr = inspection.hole_psnr(parts, samples)
    assert list(psnr) == ["convolution", "attention", "high t", "low t", "full"]
    error = (full / 255.0 - samples.images / 255.0) ** 2
    by_photo = [-10 * np.log10(each[mask].mean()) for each, mask in zip(error, samples.masks)]
    assert psnr["full"] == pytest.approx(np.mean(by_photo), abs=0.05)

    swept, learned, own = inspection.psnr_by_temperature(inpainter, samples, [0.01, 1.0])
    assert swept.shape == (2,)
    np.testing.assert_allclose(learned, np.median(temperatures, axis=0))
    assert own == pytest.approx(psnr["full"], abs=0.01)
    set_by_hand = inspection.at_temperatures(inpainter, samples, [0.01])
    assert list(set_by_hand) == ["input", "t = 0.01", "learned", "truth"]
    np.testing.assert_array_equal(set_by_hand["t = 0.01"], directly(temperatures=np.full((3, 2), 0.01))[0])


def test_sketch_steps_lead_to_the_sketch(shared):
    """Fig. 11: each step keeps a part of the one before."""
    weights = shared / "weights" / pidinet.PIDINET.name
    if not weights.exists():
        pytest.skip(f"no weights of PiDiNet at {weights}")
    steps = inspection.sketch_steps("skimage:validation", 1, weights=weights)
    photo, edges, binary, large, sketch = steps.values()
    assert photo.shape == (1, 256, 256, 3)
    np.testing.assert_array_equal(binary, edges > 0.65)
    assert 0 < large.sum() < binary.sum()
    assert not (large & ~binary).any()
    assert 0 < sketch.sum() < large.sum()
    assert not (sketch & ~large).any()


@pytest.mark.parametrize("resize", ["shortest", "stretch"])
def test_sketch_steps_end_in_the_sketch_of_training(resize, photos, shared, tmp_path):
    weights = shared / "weights" / pidinet.PIDINET.name
    if not weights.exists():
        pytest.skip(f"no weights of PiDiNet at {weights}")
    data = f"folder:{photos}/val"  # 60 x 48
    steps = inspection.sketch_steps(data, 2, size=48, resize=resize, weights=weights)
    store = make_sketches(tmp_path, Settings(data, 48, resize, weights=str(weights), workers=0, limit=2))
    shape = store[0].shape
    assert shape == ((48, 60) if resize == "shortest" else (48, 48))
    corner = crop_corner(shape, 48)
    assert steps["sketch"].any()
    for number, sketch in enumerate(steps["sketch"]):
        np.testing.assert_array_equal(sketch, sketch_square(store, number, shape, 48, corner))


def test_sliders_draw_anew(inpainter, samples):
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed (extra notebooks)")
    box = widgets.attention_explorer(inpainter, samples)
    (photo, log_t), (row, column), picture = box.children[0].children, box.children[1].children, box.children[2]
    seen = {picture.value}
    for control, value in ((log_t, -3), (row, 7 - row.value), (column, 7 - column.value), (photo, 2)):
        control.value = value
        seen.add(picture.value)
    assert len(seen) == 5
    assert bytes(picture.value).startswith(b"\x89PNG")
