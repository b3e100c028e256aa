"""Training that is guided by sketches: configs, sketches made or given, resuming, models that need a sketch."""

import importlib
import shutil

import jax
import numpy as np
import pytest
from conftest import saved_state
from PIL import Image

from inpaint_jax.data import sketches
from inpaint_jax.data.images import resize_and_crop
from inpaint_jax.data.sketches import SketchStore
from inpaint_jax.data.sources import open_source
from inpaint_jax.inference import Inpainter
from inpaint_jax.training import loop
from inpaint_jax.visualize import network_input
from inpaint_jax.writers import read_metrics


@pytest.mark.parametrize("name", ["default", "paris_streetview", "celeba_hq", "places2", "quickstart"])
def test_every_config_has_the_variant(name):
    module = importlib.import_module(f"configs.{name}")
    plain, guided = module.get_config(), module.get_config("sketch")
    assert (plain.name, guided.name) == (name, f"{name}_sketch")
    assert (plain.model.sketch, guided.model.sketch) == (False, True)
    for config in (plain, guided):
        assert config.data.sketch_dropout == 0.3
        config.name, config.model.sketch = "", None
    assert plain.to_dict() == guided.to_dict()
    with pytest.raises(ValueError, match="There is no variant 'scribble'; leave it out, or take :sketch"):
        module.get_config("scribble")


def test_a_run_makes_its_sketches_and_learns_with_them(guided_workdir, photos):
    for role, folder in (("train", "train"), ("validation", "val")):
        store = SketchStore(guided_workdir / "sketches" / role)
        store.check(open_source(f"folder:{photos}/{folder}"), size=32, resize="shortest")
        assert np.mean([store[i].any() for i in range(len(store))]) > 0.5
    model = Inpainter.load(guided_workdir)
    assert (model.channels, model.needs_sketch) == (5, False)
    first, last = [row["validation/loss"] for row in read_metrics(guided_workdir) if "validation/loss" in row]
    assert last < first
    # The weights that read the sketch are trained: without a line in any hole they would have no gradient.
    moments = jax.tree.leaves_with_path(saved_state(guided_workdir, 6)["rest"]["generator_optimizer"])
    names = ("['mu']", "['coarse']['GatedConv_0']", "['kernel']")
    (gradient,) = [leaf for path, leaf in moments if all(name in jax.tree_util.keystr(path) for name in names)]
    assert gradient.shape[2] == 5
    assert (gradient[:, :, 4] != 0).any()

    with Image.open(guided_workdir / "samples" / "step_00000006.png") as sheet:
        shown = np.asarray(sheet)[22 : 22 + 32, 4 : 4 + 32]  # the input of the first row
    white = (shown == 255).all(axis=-1)
    lines = SketchStore(guided_workdir / "sketches" / "validation")[0][:, 4 : 4 + 32]  # 32 x 40, its middle
    assert white.any()
    photo = resize_and_crop(open_source(f"folder:{photos}/val")[0], 32)
    assert (lines | (photo == 255).all(axis=-1))[white].all()


@pytest.mark.slow
def test_stopped_and_resumed_with_given_folders_is_the_same(guided_workdir, make_config, photos, tmp_path, caplog):
    """In two parts, with worker processes, and with finished sketches: without the network's weights."""
    folders = {
        "data__sketches": str(guided_workdir / "sketches" / "train"),
        "data__validation_sketches": str(guided_workdir / "sketches" / "validation"),
    }
    caplog.set_level("INFO", "inpaint_jax")
    for steps in (3, 6):
        config = make_config(**folders, model__sketch=True, data__workers=steps % 2, train__max_steps=steps)
        loop.train(config, tmp_path / "run")
    assert "Going on from the checkpoint of step 3" in caplog.text
    assert "sketches of" not in caplog.text
    assert not (tmp_path / "run" / "sketches").exists()
    jax.tree.map(np.testing.assert_array_equal, saved_state(tmp_path / "run", 6), saved_state(guided_workdir, 6))


@pytest.mark.slow
def test_a_run_stopped_at_its_sketches_goes_on(guided_workdir, make_config, shared, tmp_path, monkeypatch, caplog):
    weights = str(shared / "weights" / "table5_pidinet.pth")
    config = make_config(name="guided", model__sketch=True, data__pidinet_weights=weights, train__max_steps=1)
    untouched = sketches.write_shard

    def stop_at_validation(folder, *rest):
        if folder.name == "validation":
            raise KeyboardInterrupt
        untouched(folder, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(sketches, "write_shard", stop_at_validation)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, tmp_path / "run")
    caplog.set_level("INFO", "inpaint_jax")
    loop.train(config, tmp_path / "run")
    assert "sketches of 10 photos" not in caplog.text
    assert "First the sketches of 5 photos (data.validation) are made" in caplog.text
    for role in ("train", "validation"):
        made, others = (path / "sketches" / role / "00000.sketches" for path in (tmp_path / "run", guided_workdir))
        assert made.read_bytes() == others.read_bytes()
    config.data.pidinet_weights = "gone.pth"
    config.train.max_steps = 2
    loop.train(config, tmp_path / "run")
    assert read_metrics(tmp_path / "run")[-1]["step"] == 2


def test_what_does_not_fit_is_found_before_anything_is_written(guided_workdir, make_config, photos, tmp_path):
    train, validation = (str(guided_workdir / "sketches" / role) for role in ("train", "validation"))
    unfinished = tmp_path / "unfinished"
    shutil.copytree(train, unfinished)
    (unfinished / "00000.sketches").unlink()
    for fields, message in (
        ({"data__sketches": validation}, "has sketches of 5 photos, but the data has 10; make sketches"),
        ({"data__sketches": train, "data__image_size": 48}, "has sketches for size 32, not 48"),
        ({"data__sketches": train, "data__resize": "stretch"}, "has sketches for resize 'shortest', not 'stretch'"),
        ({"data__sketches": str(tmp_path)}, "There are no sketches in"),
        ({"data__sketches": str(unfinished)}, "is unfinished"),
        ({"data__sketch_dropout": 1.5}, "config.data.sketch_dropout must be a share from 0 to 1, not 1.5"),
        ({"model__sketch": False, "data__sketches": train}, "config.data.sketches must be left out, unless"),
        ({"model__sketch": False, "data__validation_sketches": train}, "config.data.validation_sketches must be left"),
    ):
        config = make_config(**{"model__sketch": True} | fields)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            loop.train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"model.sketch: True there, False now"):
        loop.train(make_config(name="guided"), guided_workdir)


def test_sketches_that_cannot_be_made_are_one_sentence(make_config, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.pth"):
        loop.train(make_config(model__sketch=True, data__pidinet_weights="nowhere.pth"), tmp_path / "run")


def test_a_model_that_never_saw_a_hole_without_sketch_needs_one(guided_workdir):
    free = Inpainter.load(guided_workdir)
    config = free.config | {"data": free.config["data"] | {"sketch_dropout": 0.0}}
    strict = Inpainter(config, free.params, free.step)
    assert strict.needs_sketch
    image = np.full((32, 32, 3), 90, np.uint8)
    mask, sketch = np.zeros((2, 32, 32), bool)
    mask[8:24, 8:24] = sketch[16] = True
    for run in (lambda: strict(image, mask), lambda: strict.predict(image[None], mask[None])):
        with pytest.raises(ValueError, match=r"'guided' was never trained without a sketch .* give it one") as error:
            run()
        assert "\n" not in str(error.value)
    drawn = strict(image, mask, sketch)
    np.testing.assert_array_equal(drawn, free(image, mask, sketch))
    assert (drawn != free(image, mask)).any()
    np.testing.assert_array_equal(strict(image, mask & False), image)


def test_pictures_of_the_input_show_lines_in_the_hole_alone():
    image = np.full((1, 2, 2, 3), 7, np.uint8)
    mask, sketch = np.array([[[True, True], [False, False]]]), np.array([[[True, False], [True, False]]])
    shown = network_input(image, mask, np.uint8([1, 2, 3]), sketch)
    assert shown.tolist() == [[[[255] * 3, [1, 2, 3]], [[7] * 3, [7] * 3]]]
    shown = network_input(image / np.float32(255), mask, np.float32([0, 0, 0.5]), sketch)
    assert (shown.dtype, shown[0, 0].tolist()) == (np.float32, [[1, 1, 1], [0, 0, 0.5]])
