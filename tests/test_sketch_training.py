"""Training that is guided by sketches: configs, sketches made or given, resuming, models that need a sketch."""

import importlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, saved_state
from PIL import Image
from test_train import start

from inpaint_jax.data import sketches
from inpaint_jax.data.images import resize_and_crop
from inpaint_jax.data.masks import UnreadableMask, open_masks
from inpaint_jax.data.pipeline import evaluation_batches
from inpaint_jax.data.sketches import SketchStore, UnusableSketches
from inpaint_jax.data.sources import open_source
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.sketching.plan import SketchedPhotos, fingerprint, plan_sketches
from inpaint_jax.training import loop
from inpaint_jax.visualize import network_input
from inpaint_jax.writers import read_metrics


@pytest.mark.parametrize("name", ["default", "paris_streetview", "celeba_hq", "places2", "quickstart", "scenes"])
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


def run_pair(configs, workdir, timeout=300):
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
                pair.append(start(config, workdir, *hosts, stdout=output))
        end = time.monotonic() + timeout
        codes = [process.wait(max(0, end - time.monotonic())) for process in pair]
    finally:
        for process in pair:
            process.kill()
            process.wait()
    return codes, [log.read_text() for log in logs]


@pytest.mark.slow
def test_two_hosts_train_like_one(guided_workdir, make_config, tmp_path):
    """With the same sketches, of which each reads its own."""
    roles = {"data__sketches": "train", "data__validation_sketches": "validation"}
    folders = {field: str(guided_workdir / "sketches" / role) for field, role in roles.items()}
    config = make_config(name="guided", model__sketch=True, train__max_steps=6, **folders)
    codes, outputs = run_pair([config, config], tmp_path / "run")
    assert codes == [0, 0], outputs
    rows, expected = (
        [row for row in read_metrics(run) if "loss/refined" in row] for run in (tmp_path / "run", guided_workdir)
    )
    assert [row["step"] for row in rows] == list(range(1, 7))
    for one, other in zip(rows, expected, strict=True):
        assert one["loss/refined"] == pytest.approx(other["loss/refined"], rel=2e-3)
    unguided = [
        row["validation/hole_psnr_unguided"] for row in read_metrics(tmp_path / "run") if "validation/loss" in row
    ]
    assert len(unguided) == 2


@pytest.mark.slow
def test_two_hosts_do_not_start_without_sketches_or_with_different_ones(guided_workdir, make_config, tmp_path):
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    altered = copied(train, tmp_path / "altered", alter=lambda sketch: sketch[:, ::-1])
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


def copied(folder, to, *, changes=None, without=(), alter=lambda sketch: sketch):
    """A folder of sketches with other settings, without some sketches, or with other lines."""
    store, source = SketchStore(folder), open_source(SketchStore(folder).settings["data"])
    for number, photos in sketches.claim(to, source, store.settings | (changes or {}), 1000).items():
        records = [None if i in without else sketches.pack(alter(store[i])) for i in photos]
        sketches.write_shard(to, number, [source.name(i) for i in photos], records)
    return str(to)


@pytest.fixture
def going_on(guided_workdir, make_config, tmp_path):
    """Calls go on with a copy of the guided run for a step, its fields given as to make_config."""
    workdir = shutil.copytree(guided_workdir, tmp_path / "run")

    def go_on(**fields):
        loop.train(make_config(name="guided", model__sketch=True, train__max_steps=7, **fields), workdir)
        return workdir

    return go_on


def test_missing_weights_are_found_before_anything_is_written(make_config, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.pth"):
        loop.train(make_config(model__sketch=True, data__pidinet_weights="nowhere.pth"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sketches_may_move_while_a_run_goes_on(going_on, guided_workdir, tmp_path, caplog):
    """From the workdir to folders that the config names, with another place of the weights."""
    folders = {
        "data__sketches": copied(guided_workdir / "sketches" / "train", tmp_path / "train"),
        "data__validation_sketches": copied(guided_workdir / "sketches" / "validation", tmp_path / "validation"),
    }
    workdir = going_on(**folders, data__pidinet_weights="gone.pth")
    assert read_metrics(workdir)[-1]["step"] == 7
    assert "not exactly as if" not in caplog.text


def test_a_run_with_other_lines_says_so(going_on, guided_workdir, tmp_path, caplog):
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    altered = copied(train, tmp_path / "altered", alter=lambda sketch: sketch[:, ::-1])
    going_on(data__sketches=altered, data__validation_sketches=str(validation))
    assert "goes on, but not exactly as if it had never stopped (train_sketches.digest: " in caplog.text
    assert "validation_sketches.digest" not in caplog.text


def fingerprint_of(train, validation, limit=None):
    """What a checkpoint keeps of a run with these folders of sketches."""
    stores = {"train": SketchStore(train), "validation": SketchStore(validation)}
    return {"devices": 1} | fingerprint(stores, {"validation": limit})


def test_a_run_does_not_go_on_with_sketches_of_other_settings(guided_workdir, tmp_path):
    folders = [guided_workdir / "sketches" / role for role in ("train", "validation")]
    changes = {"threshold": 0.5, "weights": "sha256:0"}
    others = [copied(folder, tmp_path / folder.name, changes=changes) for folder in folders]
    words = r"run was trained with .* \(train_sketches: threshold: 0\.65 there, 0\.5 now; train"
    with pytest.raises(UnusableSketches, match=words):
        loop._compare(fingerprint_of(*folders), fingerprint_of(*others), tmp_path / "run")


def test_checkpoints_that_say_nothing_of_sketches_are_no_sign_of_others(guided_workdir, tmp_path, caplog):
    now = fingerprint_of(*(guided_workdir / "sketches" / role for role in ("train", "validation")))
    settings = {name: value for name, value in now["train_sketches"].items() if name != "digest"}
    for before in ({}, {"train_sketches": settings}):
        loop._compare({"devices": 1} | before, now, tmp_path)
        assert not caplog.records
    loop._compare({"devices": 2}, now, tmp_path)
    assert "as if it had never stopped (devices: 2 then, 1 now)." in caplog.text


def test_validation_sketches_beyond_the_limit_play_no_part(guided_workdir, tmp_path):
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    lacking = copied(validation, tmp_path / "lacking", without=[3, 4])
    before, now = (fingerprint_of(train, folder, limit=3) for folder in (validation, lacking))
    assert before == now
    assert before != fingerprint_of(train, lacking, limit=4)


def test_training_and_validation_sketches_are_made_alike(guided_workdir, make_config, shared, tmp_path):
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    other = copied(train, tmp_path / "train", changes={"threshold": 0.5, "min_size": 50.0})
    words = r"\(min_size: 50\.0 in data\.train, 100\.0 in data\.validation; threshold: 0\.5 in .*\); make both alike by"
    weights = str(shared / "weights" / "table5_pidinet.pth")
    for second in (str(validation), None):  # given, or still to be made
        fields = {"data__sketches": other, "data__validation_sketches": second, "data__pidinet_weights": weights}
        with pytest.raises(UnusableSketches, match=words):
            loop.train(make_config(model__sketch=True, **fields), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def plan(photos, folders, workdir, *, needed=False):
    """What a run on the tiny photos would be guided by."""
    sketched = [
        SketchedPhotos(role, field, data, open_source(data), 32, "shortest", needed=needed)
        for role, field, data in (
            ("train", "sketches", f"folder:{photos}/train"),
            ("validation", "validation_sketches", f"folder:{photos}/val"),
        )
    ]
    named = dict.fromkeys(("train", "validation")) | folders
    return plan_sketches(sketched, named, workdir, weights="nowhere.pth", workers=0)


def test_photos_without_a_sketch_are_told_or_refused(guided_workdir, photos, make_config, tmp_path, caplog):
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    lacking = copied(train, tmp_path / "lacking", without=[2, 5])
    folders = {"train": lacking, "validation": str(validation)}
    strict = make_config(
        model__sketch=True, data__sketch_dropout=0.0, data__sketches=lacking, data__validation_sketches=str(validation)
    )
    with pytest.raises(UnusableSketches, match=r"no sketch of 2 of 10 photos, 02\.png for example, and a model"):
        loop.train(strict, tmp_path / "strict")
    assert not (tmp_path / "strict").exists()
    empty = copied(validation, tmp_path / "empty", without=range(5))
    with pytest.raises(UnusableSketches, match="no sketch of any of the 5 photos"):
        plan(photos, folders | {"validation": empty}, tmp_path)
    caplog.clear()
    assert not plan(photos, folders, tmp_path).to_make
    assert caplog.text.count("2 of 10 photos have no sketch") == 1


def test_sketches_of_the_workdir_that_do_not_fit_can_be_deleted(guided_workdir, photos, tmp_path):
    for role in ("train", "validation"):
        shutil.copytree(guided_workdir / "sketches" / "train", tmp_path / "sketches" / role)
    with pytest.raises(UnusableSketches, match=r"of 10 photos, but the data has 5; delete it, and it is made anew"):
        plan(photos, {}, tmp_path)


def test_only_the_sketches_that_are_used_are_made(make_config, shared, tmp_path):
    weights = str(shared / "weights" / "table5_pidinet.pth")
    fields = {"data__validation_limit": 3, "train__samples": 0, "train__max_steps": 1}
    workdir = tmp_path / "run"
    loop.train(make_config(model__sketch=True, data__pidinet_weights=weights, **fields), workdir)
    assert [len(SketchStore(workdir / "sketches" / role)) for role in ("train", "validation")] == [10, 3]
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
    config = model.config["data"]
    masks = open_masks("freeform", 32)
    source = open_source(config["validation"])
    scores = []
    for batch in evaluation_batches(source, masks, size=32, batch_size=1, seed=1_000_003):
        refined = model.predict(batch["image"], batch["mask"]).refined
        error = ((refined.astype(float) - batch["image"])[batch["mask"]] / 255) ** 2
        scores.append(-10 * np.log10(error.mean()))
    assert rows[-1]["validation/hole_psnr_unguided"] == pytest.approx(np.mean(scores), abs=0.02)


@pytest.mark.slow
def test_sketches_damaged_in_the_midst_are_one_sentence(guided_workdir, photos, tmp_path):
    """The table is whole, so that only a worker process that reads the sketch can find it."""
    train, validation = (guided_workdir / "sketches" / role for role in ("train", "validation"))
    damaged = Path(copied(train, tmp_path / "train")) / "00000.sketches"
    content = bytearray(damaged.read_bytes())
    table = np.frombuffer(content[4 : 4 + 11 * 40], "<i8").reshape(11, 5)
    content[4 + table.nbytes + table[3, 0]] ^= 1  # the first byte of photo 3's
    damaged.write_bytes(content)
    config = {"train": f"folder:{photos}/train", "validation": f"folder:{photos}/val", "image_size": 32}
    config |= {"sketches": damaged.parent, "validation_sketches": validation, "workers": 1}
    flags = [f"--config.data.{name}={value}" for name, value in config.items()]
    flags += ["--config.model.width=4", "--config.model.discriminator_width=4", "--config.batch_size=4"]
    flags += ["--config.model.discriminator_features=16", "--config.loss.perceptual_weight=0"]
    done = subprocess.run(
        [sys.executable, "train.py", "--config=configs/default.py:sketch", f"--workdir={tmp_path / 'run'}", *flags],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"inpaint-jax train: {damaged} cannot be read (a record in it is damaged); delete it and start"
    )
    assert "Traceback" not in done.stderr


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
