"""Training that is guided by sketches: configs, sketches made or given, resuming, models that need a sketch."""

import dataclasses
import importlib
import shutil
import socket
import time

import jax
import numpy as np
import pytest
from conftest import saved_state, several_devices
from PIL import Image
from sketch_stores import copied
from test_train import rows_of, start

from inpaint_jax.checkpoints import load_generator
from inpaint_jax.config import Config
from inpaint_jax.data.images import resize_and_crop
from inpaint_jax.data.masks import UnreadableMask, open_masks
from inpaint_jax.data.pipeline import evaluation_batches
from inpaint_jax.data.sketches import UnusableSketches
from inpaint_jax.data.sources import open_source
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.sketching import tasks
from inpaint_jax.sketching.store import SketchStore
from inpaint_jax.systems import make_generator, make_system
from inpaint_jax.training import loop
from inpaint_jax.training.pretrained import load_pretrained
from inpaint_jax.visualize import network_input
from inpaint_jax.writers import read_metrics


@pytest.mark.parametrize(
    "name", ["default", "paris_streetview", "celeba_hq", "places2", "quickstart", "scenes", "scenes_texture"]
)
def test_every_config_has_the_variant(name):
    module = importlib.import_module(f"configs.{name}")
    plain, guided = module.get_config(), module.get_config("sketch")
    assert (plain.name, guided.name) == (name, f"{name}_sketch")
    assert (plain.model.sketch, guided.model.sketch) == (False, True)
    for config in (plain, guided):
        assert config.data.sketch_dropout == 0.3
        config.name, config.model.sketch = "", None
    # Sketches are of one size, so that photos of other scales have none.
    assert guided.data.zoom == 1
    plain.data.zoom = 1.0
    # Nor is there one at half the size.
    assert guided.train.guesses == 0
    plain.train.guesses = 0.0
    assert plain.to_dict() == guided.to_dict()
    with pytest.raises(ValueError, match="There is no variant 'scribble'; leave it out, or take :sketch"):
        module.get_config("scribble")


def test_a_run_makes_its_sketches_and_learns_with_them(guided_workdir, photos):
    for role, folder in (("train", "train"), ("validation", "val")):
        store = SketchStore.open(guided_workdir / "sketches" / role)
        store.check(open_source(f"folder:{photos}/{folder}"), size=32, resize="shortest")
        assert np.mean([store[i].any() for i in range(len(store))]) > 0.5
    model = Inpainter.load(guided_workdir)
    assert (model.guided, model.needs_sketch) == (True, False)
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
    lines = SketchStore.open(guided_workdir / "sketches" / "validation")[0][:, 4 : 4 + 32]  # 32 x 40, its middle
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


def run_pair(configs, workdir, timeout=300, **environment):
    """Two hosts, each with a config of its own, until both have ended: their exit codes and outputs."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    logs = [workdir.with_name(f"{workdir.name}_{i}.log") for i in range(2)]
    pair = []
    try:
        for i, (config, log) in enumerate(zip(configs, logs, strict=True)):
            hosts = [f"--coordinator=localhost:{port}", "--processes=2", f"--process={i}"]
            with log.open("w") as output:
                pair.append(start(config, workdir, *hosts, stdout=output, **environment))
        end = time.monotonic() + timeout
        codes = [process.wait(max(0, end - time.monotonic())) for process in pair]
    finally:
        for process in pair:
            process.kill()
            process.wait()
    return codes, [log.read_text() for log in logs]


@pytest.mark.slow
def test_two_hosts_of_two_devices_train_like_one(guided_workdir, make_config, tmp_path):
    """With the same sketches, of which each reads its own. Within tolerance: Adam makes full steps of any rounding."""
    roles = {"data__sketches": "train", "data__validation_sketches": "validation"}
    folders = {field: str(guided_workdir / "sketches" / role) for field, role in roles.items()}
    config = make_config(name="guided", model__sketch=True, train__max_steps=6, **folders)
    codes, outputs = run_pair([config, config], tmp_path / "run", **several_devices(2))
    assert codes == [0, 0], outputs
    assert "4 device(s)" in outputs[0]
    rows, expected = (
        [row for row in rows_of(run) if "loss/refined" in row] for run in (tmp_path / "run", guided_workdir)
    )
    assert [row["step"] for row in rows] == list(range(1, 7))
    for one, other in zip(rows, expected, strict=True):
        for name in ("loss/coarse", "loss/refined", "temperature/head_0", "temperature/head_1"):
            assert one[name] == pytest.approx(other[name], rel=2e-3), (one["step"], name)
        assert one["loss/discriminator"] == pytest.approx(other["loss/discriminator"], rel=2e-2)
    assert rows[0] == {name: pytest.approx(value, rel=1e-4, abs=1e-4) for name, value in expected[0].items()}
    unguided = [
        row["validation/hole_psnr_unguided"] for row in read_metrics(tmp_path / "run") if "validation/loss" in row
    ]
    assert len(unguided) == 2


@pytest.mark.slow
def test_two_hosts_do_not_start_without_sketches_or_with_different_ones(guided_workdir, make_config, tmp_path):
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    altered = copied(train, tmp_path / "altered", without=[2]).folder
    fields = {"name": "guided", "model__sketch": True, "train__max_steps": 6}
    different = [
        make_config(data__sketches=str(folder), data__validation_sketches=str(validation), **fields)
        for folder in (train, altered)
    ]
    for name, configs, sentence in (
        ("without", [make_config(**fields)] * 2, "Several hosts do not make sketches; make those of data.train by"),
        ("different", different, "The hosts have different sketches; copy the folders of config.data.sketches and"),
    ):
        codes, outputs = run_pair(configs, tmp_path / name)
        assert all(codes), outputs
        assert all(sentence in output for output in outputs), outputs
        assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_a_run_stopped_at_its_sketches_goes_on(guided_workdir, make_config, shared, tmp_path, monkeypatch, caplog):
    weights = str(shared / "weights" / "table5_pidinet.pth")
    config = make_config(name="guided", model__sketch=True, data__pidinet_weights=weights, train__max_steps=1)
    untouched = tasks.write_sketch

    def stop_at_validation(path, sketch):
        if path.parts[-3:-1] == ("validation", "0000") and path.stem.endswith("2"):
            raise KeyboardInterrupt
        untouched(path, sketch)

    with monkeypatch.context() as patched:
        patched.setattr(tasks, "write_sketch", stop_at_validation)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, tmp_path / "run")
    caplog.set_level("INFO", "inpaint_jax")
    loop.train(config, tmp_path / "run")
    assert "sketches of data.train are made" not in caplog.text
    assert "First the sketches of data.validation are made" in caplog.text
    for role in ("train", "validation"):
        made, others = (SketchStore.open(path / "sketches" / role) for path in (tmp_path / "run", guided_workdir))
        assert made.digest == others.digest
        assert all((made[i] == others[i]).all() for i in range(len(made)))
    config.data.pidinet_weights = "gone.pth"
    config.train.max_steps = 2
    loop.train(config, tmp_path / "run")
    assert read_metrics(tmp_path / "run")[-1]["step"] == 2


def test_what_does_not_fit_is_found_before_anything_is_written(guided_workdir, make_config, photos, tmp_path):
    train, validation = (str(guided_workdir / "sketches" / role) for role in ("train", "validation"))
    unfinished = tmp_path / "unfinished"
    shutil.copytree(train, unfinished)
    (unfinished / "0000" / "0000003.png").unlink()
    for fields, message in (
        ({"data__sketches": validation}, "has sketches of 5 photos, but the data has 10; name another"),
        ({"data__sketches": train, "data__image_size": 48}, "has sketches for size 32, not 48"),
        ({"data__sketches": train, "data__resize": "stretch"}, "has sketches for resize 'shortest', not 'stretch'"),
        ({"data__sketches": str(tmp_path)}, "There are no sketches in"),
        ({"data__sketches": str(unfinished)}, "is unfinished"),
        ({"data__pidinet_weights": "nowhere.pth"}, "nowhere.pth"),
        ({"data__sketch_dropout": 1.5}, "config.data.sketch_dropout must be at least 0 and at most 1, not 1.5"),
        ({"model__sketch": False, "data__sketches": train}, "config.data.sketches is for models that are guided"),
        ({"model__sketch": False, "data__validation_sketches": train}, "config.data.validation_sketches is for models"),
    ):
        config = make_config(**{"model__sketch": True} | fields)
        with pytest.raises(ValueError, match=message):
            loop.train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"model.sketch: True there, False now"):
        loop.train(make_config(name="guided"), guided_workdir)


@pytest.fixture
def going_on(guided_workdir, make_config, tmp_path):
    """Calls go on with a copy of the guided run for a step, its fields given as to make_config."""
    workdir = shutil.copytree(guided_workdir, tmp_path / "run")

    def go_on(**fields):
        loop.train(make_config(name="guided", model__sketch=True, train__max_steps=7, **fields), workdir)
        return workdir

    return go_on


def test_sketches_may_move_while_a_run_goes_on(going_on, guided_workdir, tmp_path, caplog):
    """From the workdir to folders that the config names, with another place of the weights."""
    train, validation = (
        str(copied(guided_workdir / "sketches" / role, tmp_path / role).folder) for role in ("train", "validation")
    )
    workdir = going_on(data__sketches=train, data__validation_sketches=validation, data__pidinet_weights="gone.pth")
    assert read_metrics(workdir)[-1]["step"] == 7
    assert "not exactly as if" not in caplog.text


def test_a_run_goes_on_with_sketches_of_the_same_settings_alone(going_on, guided_workdir, tmp_path, caplog):
    """It warns where there are fewer of them."""
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    changes = {"threshold": 0.5, "weights": "sha256:0"}
    others = [str(copied(folder, tmp_path / folder.name, changes=changes).folder) for folder in (train, validation)]
    words = r"run was trained with .* \(train_sketches: threshold: 0\.65 there, 0\.5 now; train"
    with pytest.raises(UnusableSketches, match=words):
        going_on(data__sketches=others[0], data__validation_sketches=others[1])
    lacking = copied(train, tmp_path / "lacking", without=[2, 5])
    going_on(data__sketches=str(lacking.folder), data__validation_sketches=str(validation))
    assert caplog.text.count("2 of 10 photos could not be read when the sketches in") == 1
    assert "goes on, but not exactly as if it had never stopped (train_sketches.digest: " in caplog.text
    assert "validation_sketches.digest" not in caplog.text


def test_training_and_validation_sketches_are_made_alike(guided_workdir, make_config, shared, tmp_path):
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    other = copied(train, tmp_path / "train", changes={"threshold": 0.5, "min_size": 50.0})
    words = r"\(min_size: 50\.0 in data\.train, 100\.0 in data\.validation; threshold: 0\.5 in .*\); make both alike by"
    weights = str(shared / "weights" / "table5_pidinet.pth")
    for second in (str(validation), None):  # given, or still to be made
        fields = {"data__sketches": str(other.folder), "data__validation_sketches": second}
        with pytest.raises(UnusableSketches, match=words):
            loop.train(make_config(model__sketch=True, data__pidinet_weights=weights, **fields), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_only_the_sketches_that_are_used_are_made(make_config, shared, tmp_path):
    weights = str(shared / "weights" / "table5_pidinet.pth")
    fields = {"data__validation_limit": 3, "train__samples": 0, "train__max_steps": 1}
    workdir = tmp_path / "run"
    loop.train(make_config(model__sketch=True, data__pidinet_weights=weights, **fields), workdir)
    assert [len(SketchStore.open(workdir / "sketches" / role)) for role in ("train", "validation")] == [10, 3]
    assert read_metrics(workdir)[-1]["step"] == 1


def test_a_broken_mask_is_found_before_sketches_are_made(make_config, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "00.png").write_bytes(b"no mask")
    fields = {"data__masks": f"folder:{masks}", "data__pidinet_weights": "nowhere.pth", "train__samples": 0}
    with pytest.raises(UnreadableMask, match=r"00\.png"):
        loop.train(make_config(model__sketch=True, **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_also_goes_without_sketches(guided_workdir):
    rows = [row for row in read_metrics(guided_workdir) if "validation/loss" in row]
    for row in rows:
        assert row["validation/hole_psnr_unguided"] == pytest.approx(row["validation/hole_psnr"], abs=1)
        assert row["validation/hole_psnr_unguided"] != row["validation/hole_psnr"]
    model = Inpainter.load(guided_workdir, 6)
    config = model.config.data
    masks = open_masks("freeform", 32)
    source = open_source(config.validation)
    scores = []
    for batch in evaluation_batches(source, masks, size=32, batch_size=1, seed=1_000_003):
        refined = model.predict(batch["image"], batch["mask"]).refined
        error = ((refined.astype(float) - batch["image"])[batch["mask"]] / 255) ** 2
        scores.append(-10 * np.log10(error.mean()))
    assert rows[-1]["validation/hole_psnr_unguided"] == pytest.approx(np.mean(scores), abs=0.02)


def test_sketches_damaged_in_the_midst_are_one_sentence(guided_workdir, make_config, tmp_path):
    """A worker process finds it."""
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    damaged = copied(train, tmp_path / "train").path(3)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    folders = {"data__sketches": str(tmp_path / "train"), "data__validation_sketches": str(validation)}
    with pytest.raises(UnusableSketches) as error:
        loop.train(make_config(model__sketch=True, data__workers=1, **folders), tmp_path / "run")
    assert str(error.value).startswith(f"{damaged} cannot be read (it is damaged); delete it and start")
    assert "\n" not in str(error.value)


def test_a_model_that_never_saw_a_hole_without_sketch_needs_one(guided_workdir):
    free = Inpainter.load(guided_workdir)
    config = dataclasses.replace(free.config, data=dataclasses.replace(free.config.data, sketch_dropout=0.0))
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


def test_a_guided_model_starts_from_one_that_is_not(finished, make_config):
    """It fills as that one does, whatever the lines, until it is trained."""
    guided, plain = (Config.read(make_config(model__sketch=sketch)) for sketch in (True, False))
    shapes = jax.eval_shape(make_system(guided).initial_state, jax.random.key(0))
    params = load_pretrained(finished, shapes)["generator"]
    rng = np.random.default_rng(0)
    image, (mask, lines) = rng.random((1, 32, 32, 3), np.float32), rng.random((2, 1, 32, 32)) < 0.3
    expected = make_generator(plain).apply({"params": load_generator(finished)[0]}, image, mask)
    found = make_generator(guided).apply({"params": params}, image, mask, lines)
    np.testing.assert_allclose(found.completed, expected.completed, atol=1e-6)
