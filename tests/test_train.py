"""Training as a whole: real photos, real files, real processes, kills included."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, saved_state, several_devices
from PIL import Image

from inpaint_jax import inspection, losses
from inpaint_jax.checkpoints import Checkpoints, load_generator
from inpaint_jax.config import Config
from inpaint_jax.features import weights
from inpaint_jax.models import export
from inpaint_jax.nets.generator import Generator
from inpaint_jax.runs import flatten
from inpaint_jax.systems.mhtma import make_generator, make_system
from inpaint_jax.training import loop
from inpaint_jax.training.meter import TrainingDivergedError
from inpaint_jax.training.pretrained import load_pretrained
from inpaint_jax.writers import read_metrics

# What a clock or the machine decides, and a resumed run need not repeat.
MEASURED = {"images_per_second", "host_memory_peak_gib"}

# All that differs from the paper, but for the schedule; WGAN-GP draws random numbers in each step, too.
OWN_WAY = {
    "data__masks": "mixed",
    "loss__adversarial": "wgan_gp",
    "model__fill": "tension_spline",
    "model__output": "residual",
    "loss__l1": "by_area",
    "optimizer__generator_learning_rate": 1e-3,
    "optimizer__warmup_steps": 3,
    "optimizer__ema_decay": 0.9,
    "train__select_by": "hole_l1",
}


def start(config, workdir, *flags, stdout=subprocess.PIPE, **environment):
    """Starts train.py with a config as its flags would make it; its errors go to its output, too."""
    from configs import default

    standard = flatten(default.get_config().to_dict())
    fields = flatten(config.to_dict())
    changed = [f"--config.{name}={value}" for name, value in fields.items() if value != standard[name]]
    command = [sys.executable, "train.py", "--config=configs/default.py", f"--workdir={workdir}", *changed, *flags]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a signal to its group, as Ctrl-C sends one, must not reach pytest
    )


def finish(process, code=0, timeout=300):
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # or it would train on for ever
        raise
    assert process.returncode == code, output
    return output


def wait_for_step(process, workdir, step, timeout=300):
    """Waits until a run has logged a step."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the run ended before step {step}: {process.communicate()[0]}")
        if (workdir / "metrics.jsonl").exists() and any(row["step"] >= step for row in read_metrics(workdir)):
            return
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # or it would train on for ever
    pytest.fail(f"step {step} did not come")


def rows_of(workdir):
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in read_metrics(workdir)]


def starts_of(workdir):
    return [json.loads(line) for line in (workdir / "environment.jsonl").read_text().splitlines()]


def test_workdir_holds_what_is_promised(finished, make_config):
    assert json.loads((finished / "config.json").read_text()) == make_config().to_dict()
    assert "kernel" in (finished / "parameters.txt").read_text()
    for picture in ("samples/step_00000000.png", "samples/step_00000006.png", "samples/step_00000012.png"):
        sheet = np.asarray(Image.open(finished / picture))
        assert sheet.shape[1] > 4 * 32  # input, coarse, result, truth
        assert sheet.std() > 10
    assert Image.open(finished / "curves.png").size[0] > 500
    (begun,) = starts_of(finished)
    assert (begun["step"], begun["devices"], begun["processes"]) == (0, "1 x cpu", 1)
    assert begun["versions"]["jax"] == jax.__version__
    assert sorted(int(path.name) for path in (finished / "checkpoints").iterdir())[-1] == 12


def test_every_log_line_has_losses_and_temperatures(finished):
    rows = [row for row in read_metrics(finished) if "loss/generator" in row]
    assert [row["step"] for row in rows] == list(range(1, 13))
    for row in rows:
        weighted = 1.2 * row["loss/coarse"] + row["loss/refined"] + 0.01 * row["loss/adversarial"]
        assert row["loss/generator"] == pytest.approx(weighted, rel=1e-4)
        assert row["temperature/head_0"] > 0
        assert row["temperature/head_1"] > 0
        assert row["images_per_second"] > 0
        assert row["epoch"] == pytest.approx(row["step"] * 4 / 10, abs=1e-3)
    validations = [row for row in read_metrics(finished) if "validation/loss" in row]
    assert [row["step"] for row in validations] == [0, 6, 12]
    assert all("validation/hole_psnr_mean_fill" in row for row in validations)


def test_it_learns(finished):
    first, *_, last = [row["validation/loss"] for row in read_metrics(finished) if "validation/loss" in row]
    assert last < first


def test_generator_item_works_alone(finished):
    params, step = load_generator(finished)
    validated = {row["step"]: row["validation/loss"] for row in read_metrics(finished) if "validation/loss" in row}
    assert step == min(validated, key=validated.get)
    image = np.full((1, 32, 32, 3), 0.5, np.float32)
    outputs = Generator(width=4).apply({"params": params}, image, np.ones((1, 32, 32)))
    assert np.isfinite(outputs.completed).all()


def test_spectral_norms_hold_after_training(finished):
    """The largest singular value of every kernel as applied, by numpy, after twelve steps from random vectors."""
    rest = saved_state(finished, 12)["rest"]
    for name, layer in rest["discriminator"].items():
        kernel = layer["kernel"].astype(np.float64)
        largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        sigma = rest["spectral"][f"{name}_norm"][f"{name}/kernel/sigma"]
        assert largest / sigma == pytest.approx(1, abs=0.1), name


def test_a_finished_run_stays_as_it_is(finished, make_config, caplog):
    before = (finished / "metrics.jsonl").read_text()
    caplog.set_level("INFO", "inpaint_jax")
    loop.train(make_config(), finished)
    assert "Nothing to do: the limit of 12 steps is reached" in caplog.text
    assert (finished / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_stopped_killed_and_resumed_is_as_if_nothing_had_happened(make_config, tmp_path):
    """SIGINT to the whole group, then kill -9, with worker processes: bit-identical parameters, optimizer and data.

    With WGAN-GP, where a part of the checkpoint is empty for want of spectral norms, and with an average of the
    generator, which is what is saved as the generator and validated.
    """
    endless, workdir = make_config(**OWN_WAY, data__workers=2, train__max_steps=1_000_000), tmp_path / "run"

    process = start(endless, workdir)
    wait_for_step(process, workdir, 1)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    stopped = re.search(
        r"Stopped at step (\d+), all saved. Go on with the same command: (?:python )?inpaint-jax train", output
    )
    assert stopped, output

    process = start(endless, workdir)
    wait_for_step(process, workdir, int(stopped[1]) + 4)  # at least one checkpoint and a few steps later
    os.kill(process.pid, signal.SIGKILL)
    finish(process, code=-signal.SIGKILL)

    last = read_metrics(workdir)[-1]["step"] + 2
    output = finish(start(make_config(**OWN_WAY, data__workers=2, train__max_steps=last), workdir))
    assert "Going on from the checkpoint of step" in output
    assert f"Done: the limit of {last} steps is reached" in output

    undisturbed = loop.train(make_config(**OWN_WAY, train__max_steps=last), tmp_path / "undisturbed")
    assert rows_of(workdir) == rows_of(undisturbed)
    jax.tree.map(np.testing.assert_array_equal, saved_state(workdir, last), saved_state(undisturbed, last))
    penalties = [row["loss/gradient_penalty"] for row in rows_of(workdir) if "loss/gradient_penalty" in row]
    assert len(set(penalties)) == last
    assert all(penalty >= 0 for penalty in penalties)

    distances = {row["step"]: row["validation/hole_l1"] for row in rows_of(workdir) if "validation/hole_l1" in row}
    assert load_generator(workdir)[1] == min(distances, key=distances.get)
    published, _ = load_generator(workdir, last)
    generator = make_generator(Config.read(endless))
    apply, samples = jax.jit(generator.apply), inspection.samples(workdir, 5)
    target = samples.images / np.float32(255)

    def distance(params):
        made = apply({"params": params}, target, samples.masks).refined
        return float(losses.hole_l1(made, target, samples.masks).mean())

    assert distance(published) == pytest.approx(distances[last], rel=2e-5)
    assert distance(saved_state(workdir, last)["rest"]["generator"]) != pytest.approx(distances[last], rel=1e-4)


@pytest.mark.slow
def test_a_damaged_checkpoint_and_damaged_metrics_are_as_if_nothing_had_happened(
    finished, make_config, tmp_path, caplog
):
    """The newest checkpoint cut short, as by a power cut, with a whole one beside it: bit-identical at the end."""
    workdir = tmp_path / "run"
    loop.train(make_config(train__max_steps=6), workdir)
    shutil.copytree(workdir / "checkpoints" / "6", tmp_path / "6")
    loop.train(make_config(), workdir)
    if not (workdir / "checkpoints" / "6").exists():  # 12 is the best, too
        shutil.copytree(tmp_path / "6", workdir / "checkpoints" / "6")
    for file in (workdir / "checkpoints" / "12" / "rest" / "d").iterdir():
        os.truncate(file, file.stat().st_size // 2)
    with (workdir / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 1}\n' + bytes(512) + b"\n" + bytes(100))
    loop.train(make_config(), workdir)
    assert "The checkpoint of step 12 cannot be read and is now" in caplog.text
    assert "Dropped 2 damaged line(s)" in caplog.text
    assert rows_of(workdir) == rows_of(finished)
    jax.tree.map(np.testing.assert_array_equal, saved_state(workdir, 12), saved_state(finished, 12))
    assert [start["step"] for start in starts_of(workdir)] == [0, 6, 6]


@pytest.mark.slow
def test_sigterm_stops_politely_and_the_schedule_may_change(make_config, tmp_path):
    workdir, rarely = tmp_path / "run", {"train__validate_every_epochs": 1000.0}
    process = start(make_config(train__max_steps=1_000_000, **rarely), workdir)
    wait_for_step(process, workdir, 2)
    process.send_signal(signal.SIGTERM)
    assert "all saved" in finish(process)
    with Checkpoints(workdir) as checkpoints:
        stopped = checkpoints.latest_step()
    # Its last checkpoint was not validated, and the new limit asks for that before another step.
    loop.train(make_config(train__max_steps=stopped, **rarely), workdir)
    assert [row["step"] for row in read_metrics(workdir) if "validation/loss" in row] == [0, stopped]
    loop.train(make_config(train__max_steps=stopped + 2, train__log_every_steps=2, **rarely), workdir)
    assert read_metrics(workdir)[-1]["step"] == stopped + 2


def test_divergence_names_step_term_and_last_good_checkpoint(make_config, tmp_path):
    config = make_config(optimizer__generator_learning_rate=1e30)
    with pytest.raises(
        TrainingDivergedError, match=r"is (nan|inf|-inf) at step \d+. The last good checkpoint is of step 0"
    ):
        loop.train(config, tmp_path / "run")
    generator, _ = load_generator(tmp_path / "run")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(generator))


def test_stops_early_by_the_score_of_choice(make_config, tmp_path, caplog):
    caplog.set_level("INFO", "inpaint_jax")
    still = {"optimizer__generator_learning_rate": 0.0, "train__patience_steps": 4, "train__select_by": "hole_l1"}
    often = {"train__max_steps": 100, "train__validate_every_epochs": 0.8, "train__samples": 0}
    loop.train(make_config(**still, **often), tmp_path / "run")
    assert "the validation's hole_l1 has not fallen for 1.6 epochs since step 0" in caplog.text
    assert read_metrics(tmp_path / "run")[-1]["step"] == 4


def test_what_the_best_is_chosen_by_stays(finished, make_config):
    with pytest.raises(ValueError, match=r"another config \(train.select_by: 'loss' there, 'hole_l1' now\)"):
        loop.train(make_config(train__select_by="hole_l1"), finished)


def test_workdir_of_another_config_is_refused(finished, make_config):
    with pytest.raises(ValueError, match=r"another config \(seed: 0 there, 1 now; model.width: 4 there, 8 now\)"):
        loop.train(make_config(model__width=8, seed=1), finished)
    assert json.loads((finished / "config.json").read_text())["model"]["width"] == 4


def test_a_step_that_is_validated_after_it_was_saved_gets_its_score(make_config, tmp_path):
    """As after Ctrl-C, and a resume that validates more often or ends there."""
    workdir = tmp_path / "run"
    loop.train(make_config(train__max_steps=3, train__validate_every_epochs=0.8, train__samples=0), workdir)
    assert [row["step"] for row in read_metrics(workdir) if "validation/loss" in row] == [0, 2, 3]
    steps = sorted((workdir / "checkpoints").iterdir())
    # What a stop at step 3 would have left: no score, and step 2 as the last that was validated.
    saved = json.loads((steps[-1] / "progress" / "metadata").read_text())
    (steps[-1] / "progress" / "metadata").write_text(
        json.dumps(saved | {"validated_step": 2, "best_step": 0, "best_score": 1e9})
    )
    shutil.rmtree(steps[-1] / "metrics")
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest_step() == 3
    loop.train(make_config(train__max_steps=3, train__validate_every_epochs=0.8, train__samples=0), workdir)
    assert load_generator(workdir)[1] == 3
    assert json.loads((steps[-1] / "progress" / "metadata").read_text())["best_step"] == 3


def test_a_trace_of_some_steps(make_config, tmp_path):
    loop.train(make_config(train__max_steps=4, train__samples=0), tmp_path / "run", profile=True)
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000


@pytest.mark.parametrize("exported", [False, True])
def test_a_run_starts_from_another_model(finished, make_config, tmp_path, exported):
    """Of another image size, too: the critic's dense layers then do not fit."""
    source = finished
    if exported:
        source = tmp_path / "model.safetensors"
        export(finished, source)
    fields = {"optimizer__generator_learning_rate": 0.0, "train__max_steps": 1, "train__samples": 0}
    fields |= {"optimizer__discriminator_learning_rate": 0.0, "train__init_from": str(source)}
    loop.train(make_config(**fields), tmp_path / "run")
    (started, step), (trained, _) = load_generator(tmp_path / "run"), load_generator(finished)
    jax.tree.map(np.testing.assert_array_equal, started, trained)
    if not exported:
        ends = ((tmp_path / "run", step), (finished, load_generator(finished)[1]))
        critics = [saved_state(run, at)["rest"]["discriminator"] for run, at in ends]
        jax.tree.map(np.testing.assert_array_equal, *critics)
        larger = make_system(Config.read(make_config(data__image_size=128)))
        found = load_pretrained(finished, jax.eval_shape(larger.initial_state, jax.random.key(0)))
        assert set(found) == {"generator"}
        jax.tree.map(np.testing.assert_array_equal, found["generator"], trained)
    with pytest.raises(ValueError, match=r"another generator .*wrong shape.*; take its config.model"):
        loop.train(make_config(**fields, model__width=6), tmp_path / "wider")
    assert not (tmp_path / "wider").exists()


def test_missing_vgg_weights_are_an_error_before_anything_starts(make_config, tmp_path, monkeypatch):
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:9")  # nobody listens there: no network, here and anywhere
    with pytest.raises(weights.WeightsUnavailable, match=r"vgg16_weights"):
        loop.train(make_config(loss__perceptual_weight=0.004), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_perceptual_loss_takes_part(make_config, tmp_path, shared):
    path = str(shared / "weights" / "vgg16_oxford_block1.npz")
    config = make_config(loss__perceptual_weight=0.004, loss__vgg_weights=path, train__max_steps=1, train__samples=0)
    loop.train(config, tmp_path / "run")
    row = next(row for row in read_metrics(tmp_path / "run") if "loss/perceptual" in row)
    assert row["loss/perceptual"] > 0.1
    weighted = 1.2 * row["loss/coarse"] + row["loss/refined"] + 0.004 * row["loss/perceptual"]
    assert row["loss/generator"] == pytest.approx(weighted + 0.01 * row["loss/adversarial"], rel=1e-4)


def test_bad_photos_are_named_and_counted_at_the_end(make_config, photos, tmp_path, caplog):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((photos / "train").iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no photo")
    whole = (folder / "00.png").read_bytes()
    (folder / "short.png").write_bytes(whole[: len(whole) // 2])
    loop.train(make_config(data__train=f"folder:{folder}", train__max_steps=3, train__samples=0), tmp_path / "run")
    assert "2 unreadable image(s) were skipped: " in caplog.text
    assert "broken.jpg" in caplog.text
    assert "short.png" in caplog.text


def test_batch_that_does_not_divide_over_the_devices(make_config, tmp_path):
    output = finish(start(make_config(), tmp_path / "run", **several_devices(3)), code=2)
    assert "batch_size 4 does not divide over 3 devices" in output
    assert "--config.batch_size=6" in output


@pytest.mark.slow
def test_quickstart_learns(quickstart_workdir):
    """On photos held out the loss falls, the hole gets better, and the mean colour is 10 dB behind."""
    validations = {row["step"]: row for row in read_metrics(quickstart_workdir) if "validation/loss" in row}
    best = validations[load_generator(quickstart_workdir)[1]]
    assert best["validation/loss"] < validations[0]["validation/loss"] - 0.01
    assert best["validation/hole_psnr"] > validations[0]["validation/hole_psnr"] + 0.1
    assert best["validation/hole_psnr"] > best["validation/hole_psnr_mean_fill"] + 9.5
    assert (quickstart_workdir / "curves.png").exists()
