"""Evaluation as a whole: real photos, real files, real processes, kills included."""

import concurrent.futures
import contextlib
import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, several_devices
from PIL import Image
from skimage import metrics as reference

from inpaint_jax import models
from inpaint_jax.data.sources import open_source
from inpaint_jax.errors import UserError
from inpaint_jax.evaluation import fid, output, run, tables
from inpaint_jax.evaluation.methods import Methods
from inpaint_jax.evaluation.pairs import ChosenImages
from inpaint_jax.evaluation.scores import METRICS, Scores, summarise
from inpaint_jax.features import inception
from inpaint_jax.metrics import GaussianStatistics, frechet_distance

CLASSICAL = ("mean", "telea", "navier_stokes", "biharmonic")


def command(output_dir, *flags, **environment):
    """Starts evaluate.py."""
    return subprocess.Popen(
        [sys.executable, "evaluate.py", f"--output={output_dir}", "--fid=off", *flags],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def session_of(process):
    """Numbers of all processes that a command has started (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == process.pid and state != "Z":
                found.append(stat.parent.name)
    return [worker for worker in found if worker != str(process.pid)]


def finish(process, code=0, timeout=300):
    text, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, text
    return text


@pytest.fixture(scope="module")
def evaluated(tiny_workdir, photos, tmp_path_factory):
    """A finished evaluation of five photos in six bins, with all images saved: folder and what was printed."""
    folder = tmp_path_factory.mktemp("evaluated")
    flags = [f"--workdir={tiny_workdir}", f"--data=folder:{photos}/val", f"--methods={','.join(CLASSICAL)}"]
    return folder, finish(command(folder, *flags, "--save_images", "--batch_size=4"))


def rows_of(folder):
    return {(row["method"], row["bin"]): row for row in output.read_rows(folder)}


def test_rows_for_every_method_and_bin(evaluated, tiny_workdir):
    folder, printed = evaluated
    rows = rows_of(folder)
    assert {method for method, _ in rows} == {*CLASSICAL, tiny_workdir.name}
    for (_, label), row in rows.items():
        assert row["count"] == (30 if label == "all" else 5)
        assert (row["fid"], row["fid_note"]) == (None, "switched off.")
    assert (folder / "table.md").read_text() in printed
    with (folder / "metrics.csv").open() as file:
        assert [float(row["psnr"]) for row in csv.DictReader(file)] == [row["psnr"] for row in rows.values()]


def test_figures_agree_with_scikit_image_on_the_saved_pictures(evaluated):
    """Bins, means and metrics once more, from nothing but the PNGs."""
    folder, _ = evaluated
    for (method, label), row in rows_of(folder).items():
        found = []
        pattern = "*" if label == "all" else label.strip("(]").replace(", ", "-")
        for path in (folder / "images" / method).glob(f"{pattern}/*.png"):
            truth = np.asarray(Image.open(folder / "images" / "truth" / path.name)) / 255
            mask = np.asarray(Image.open(folder / "images" / "mask" / path.parent.name / path.name)) > 127
            image = np.asarray(Image.open(path)) / 255
            assert np.array_equal(image[~mask], truth[~mask])
            low, high = (float(end) for end in path.parent.name.split("-"))
            assert low < mask.mean() <= high
            found.append(
                (
                    100 * np.abs(image - truth).mean(),
                    np.abs(image - truth).sum() / (image + truth).sum(),
                    reference.peak_signal_noise_ratio(truth, image, data_range=1),
                    reference.structural_similarity(
                        truth, image, gaussian_weights=True, use_sample_covariance=False, data_range=1, channel_axis=-1
                    ),
                )
            )
        assert len(found) == row["count"]
        np.testing.assert_allclose([row[metric] for metric in METRICS], np.mean(found, axis=0), rtol=1e-5)


def test_pictures_are_written(evaluated):
    folder, _ = evaluated
    assert Image.open(folder / "sheet.png").size == (7 * (32 + 4) + 4, 22 + 6 * (32 + 4))
    plot = np.asarray(Image.open(folder / "metrics_by_ratio.png").convert("RGB"))
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73), (0xCC, 0x79, 0xA7), (0xE6, 0x9F, 0x00)):
        assert (np.abs(plot.astype(int) - colour).sum(axis=-1) < 12).sum() > 100  # a line for each method
    assert not (folder / "unfinished.npz").exists()


def test_means_do_not_depend_on_batches_and_devices(evaluated, tiny_workdir, photos, tmp_path):
    """Photos one at a time, and three at a time on three devices, where batches of five are padded twice."""
    reference_rows = rows_of(evaluated[0])
    settings = run.Settings(data=f"folder:{photos}/val", fid="off", workers=0, batch_size=1, samples=0)
    run.evaluate([tiny_workdir], tmp_path / "one", settings)
    flags = [f"--workdir={tiny_workdir}", f"--data=folder:{photos}/val", "--batch_size=3", "--workers=0"]
    finish(command(tmp_path / "three", *flags, "--samples=0", **several_devices(3)))
    for name in ("one", "three"):
        for key, row in rows_of(tmp_path / name).items():
            for metric in METRICS:
                # Sums in another order may round a pixel to its neighbour value, 1 of 255.
                assert row[metric] == pytest.approx(reference_rows[key][metric], rel=1e-4)
            assert row["count"] == reference_rows[key]["count"]


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_file(evaluated, tiny_workdir, photos, tmp_path, caplog):
    folder = tmp_path / "killed"
    flags = [f"--workdir={tiny_workdir}", f"--data=folder:{photos}/val", f"--methods={','.join(CLASSICAL)}"]
    flags += ["--save_images", "--batch_size=4", "--save_every_seconds=0"]
    process = command(folder, *flags)
    end = time.monotonic() + 240
    while not (folder / "unfinished.npz").exists() or len(list((folder / "images").glob("mean/*/*.png"))) < 12:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)
    workers = session_of(process)
    assert len(workers) >= 2
    os.kill(process.pid, signal.SIGKILL)  # the main process alone: its workers must find out by themselves
    process.wait()
    while workers and time.monotonic() < end:
        workers = [worker for worker in workers if worker in session_of(process)]
        time.sleep(0.05)
    assert not workers
    assert not (folder / "metrics.json").exists()

    settings = run.Settings(
        data=f"folder:{photos}/val", fid="off", classical=list(CLASSICAL), save_images=True, batch_size=4
    )
    with pytest.raises(UserError, match="go on with it by --resume"):
        run.evaluate([tiny_workdir], folder, settings)
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        run.evaluate([tiny_workdir], folder, dataclasses.replace(settings, resume=True, seed=1))

    resumed = finish(command(folder, *flags, "--resume"))
    assert "Going on in bin" in resumed
    assert (folder / "metrics.json").read_text() == (evaluated[0] / "metrics.json").read_text()
    assert (folder / "images.csv").read_text() == (evaluated[0] / "images.csv").read_text()
    caplog.set_level("INFO", "inpaint_jax")
    run.evaluate([tiny_workdir], folder, dataclasses.replace(settings, resume=True))
    assert "Nothing to do" in caplog.text


def test_a_new_run_in_an_old_folder_withdraws_the_old_figures(tiny_workdir, photos, tmp_path, monkeypatch):
    settings = run.Settings(data=f"folder:{photos}/val", fid="off", workers=0, batch_size=5, samples=2)
    settings = dataclasses.replace(settings, save_images=True, save_every_seconds=0)
    run.evaluate([tiny_workdir], tmp_path, settings)
    before = (tmp_path / "metrics.json").read_text()
    calls = iter(range(8))  # the photos of the first bin, and some of the second
    save_images = output.save_images

    def stop_after_some(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        save_images(*args)

    with monkeypatch.context() as patch:
        patch.setattr(output, "save_images", stop_after_some)
        with pytest.raises(KeyboardInterrupt):
            run.evaluate([tiny_workdir], tmp_path, settings)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "unfinished.npz"}
    run.evaluate([tiny_workdir], tmp_path, dataclasses.replace(settings, resume=True))
    assert (tmp_path / "metrics.json").read_text() == before
    assert (tmp_path / "sheet.png").exists()


def test_resume_sees_that_the_files_are_others(tiny_workdir, photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos / "val", folder)
    settings = run.Settings(data=f"folder:{folder}", fid="off", workers=0, limit=2, samples=0, resume=True)
    run.evaluate([tiny_workdir], tmp_path / "out", settings)
    min(folder.iterdir()).rename(folder / "zzz.png")
    with pytest.raises(UserError, match="with other settings"):
        run.evaluate([tiny_workdir], tmp_path / "out", settings)


def test_a_bin_of_broken_photos_stays_empty(tiny_workdir, photos, tmp_path, caplog):
    folder = tmp_path / "photos"
    shutil.copytree(photos / "val", folder)
    (folder / "99.png").write_bytes(b"no photo")  # the sixth, for which the sixth bin is drawn
    settings = run.Settings(data=f"folder:{folder}", fid="off", workers=0, pairing="once", samples=6)
    rows = run.evaluate([tiny_workdir], tmp_path / "out", settings)
    assert [row["count"] for row in rows] == [1, 1, 1, 1, 1, 0, 5]
    assert rows[5]["psnr"] is None
    assert "Bin (0.5, 0.6] stays empty" in caplog.text


def test_a_broken_photo_in_the_first_bin_costs_no_sheet(tiny_workdir, photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos / "val", folder)
    (folder / "!first.png").write_bytes(b"no photo")
    settings = run.Settings(data=f"folder:{folder}", fid="off", workers=0, pairing="once", samples=1)
    run.evaluate([tiny_workdir], tmp_path / "out", settings)
    assert (tmp_path / "out" / "sheet.png").exists()


def test_a_dead_worker_is_an_error_and_no_standstill():
    with Methods(["mean"], {}, 2) as methods:
        image, mask = np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 8, 8), bool)
        methods(image, mask)
        os.kill(next(iter(methods._pool._processes)), signal.SIGKILL)
        end = time.monotonic() + 20
        while not methods._pool._broken and time.monotonic() < end:
            time.sleep(0.01)
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            methods(image, mask)


def test_models_that_share_a_name_with_something_else_go_by_their_path(tiny_workdir, photos, tmp_path, monkeypatch):
    shutil.copytree(tiny_workdir, tmp_path / "truth")
    settings = run.Settings(data=f"folder:{photos}/val", fid="off", workers=0, limit=1, samples=1, save_images=True)
    run.evaluate([tmp_path / "truth"], tmp_path / "out", settings)
    (truth,) = (tmp_path / "out" / "images" / "truth").iterdir()
    with Image.open(truth) as image, Image.open(min((photos / "val").iterdir())) as photo:
        assert abs(np.asarray(image).mean() - np.asarray(photo).mean()) < 10
    assert len(list((tmp_path / "out" / "images").iterdir())) == 3
    settings = dataclasses.replace(settings, classical=["mean"])
    monkeypatch.chdir(tmp_path)
    Path("truth").rename("mean")
    rows = run.evaluate(["mean"], tmp_path / "out2", settings)
    assert {row["method"] for row in rows} == {"mean", str(tmp_path / "mean")}
    with pytest.raises(UserError, match="names of their own"):
        run.evaluate(["mean", tmp_path / "mean"], tmp_path / "out3", settings)


def test_two_models_side_by_side_and_the_config_names_the_data(make_config, tiny_workdir, photos, tmp_path):
    models.export(tiny_workdir, tmp_path / "exported.safetensors")
    finish(
        command(
            tmp_path / "out",
            "--config=configs/default.py",
            f"--config.data.test=folder:{photos}/val",
            "--config.data.image_size=24",
            f"--workdir={tiny_workdir},{tmp_path / 'exported.safetensors'}",
            "--masks=freeform",
            "--pairing=once",
        )
    )
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["settings"]["size"] == 24
    assert list(document["settings"]["models"]) == [tiny_workdir.name, "exported"]
    first, second = (
        [row | {"method": ""} for row in document["rows"] if row["method"] == name]
        for name in document["settings"]["models"]
    )
    assert first == second
    assert first[-1]["count"] == 5


def test_unreadable_photos_are_left_out_and_named(tiny_workdir, photos, tmp_path, caplog):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((photos / "val").iterdir())[:2]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no photo")
    settings = run.Settings(data=f"folder:{folder}", fid="off", workers=0, batch_size=2, samples=3)
    rows = run.evaluate([tiny_workdir], tmp_path / "out", settings)
    assert {row["count"] for row in rows if row["bin"] != "all"} == {2}
    assert "1 unreadable image(s) left out: broken.jpg" in caplog.text


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([], {"classical": ["mean"], "data": None}, "No images to evaluate on; give --data"),
        ([], {}, "nothing to evaluate"),
        ([], {"classical": ["mean"], "data": "folder:nowhere"}, "There is no folder 'nowhere'"),
        ([], {"classical": ["magic"]}, "choose of mean, telea"),
        ([], {"classical": ["mean"], "size": None}, "No size to evaluate at"),
        ([], {"classical": ["mean"], "size": 8}, "--size must be at least 11"),
        ([], {"classical": ["mean"], "limit": 0}, "--limit must be at least 1"),
        ([], {"classical": ["mean"], "seed": -1}, "--seed must be at least 0"),
        ([], {"classical": ["mean"], "batch_size": 0}, "--batch_size must be at least 1"),
        (["nowhere"], {}, "nowhere does not exist; give the workdir"),
        ([], {"classical": ["mean"], "fid": "nowhere.pth"}, "There is no file nowhere.pth"),
    ],
)
def test_wrong_settings_get_one_sentence(tmp_path, models, options, message):
    settings = run.Settings(**{"data": "skimage:validation", "size": 32, "fid": "off", "workers": 0} | options)
    with pytest.raises(UserError, match=re.escape(message)):
        run.evaluate(models, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_wrong_flags_without_a_traceback(tmp_path):
    text = finish(command(tmp_path / "out", "--data=folder:nowhere", "--methods=mean", "--size=32"), code=2)
    assert text.strip().splitlines()[-1] == (
        "inpaint-jax evaluate: There is no folder 'nowhere'; correct the path after folder:."
    )
    assert "Traceback" not in text


# ------------------------------------------------------------------------------------------------------------ FID


@pytest.fixture(scope="module")
def inception_params(inception_state):
    """The real network with reproducible pseudo-random weights: true features, though no FID of the literature."""
    return inception.from_state_dict(inception_state)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_fid_of_every_bin_survives_a_stop(inception_params, cache, tiny_workdir, photos, tmp_path, monkeypatch):
    """Stopped in the second bin and resumed; recomputed from the saved pictures with np.cov."""
    settings = run.Settings(
        data=f"folder:{photos}/val",
        masks="generated",
        limit=2,
        workers=0,
        batch_size=2,
        samples=0,
        save_images=True,
        save_every_seconds=0,
    )
    folder, pictures = tmp_path / "out", 0
    save_images = output.save_images

    def stop_at_the_fourth(*args):
        nonlocal pictures
        pictures += 1
        if pictures == 4:
            raise KeyboardInterrupt
        save_images(*args)

    with monkeypatch.context() as patch:
        patch.setattr(output, "save_images", stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            run.evaluate([tiny_workdir], folder, settings, inception_params=inception_params)
    assert pictures == 4
    (saved,) = (cache / "truth_statistics").iterdir()
    stamp = saved.stat().st_mtime_ns
    settings = dataclasses.replace(settings, resume=True)
    rows = run.evaluate([tiny_workdir], folder, settings, inception_params=inception_params)
    assert [path.stat().st_mtime_ns for path in (cache / "truth_statistics").iterdir()] == [stamp]

    # By twos, the batches of the evaluation; bins in their order.
    pool3 = jax.jit(inception.pool3)

    def features_of(pattern):
        images = np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "images").glob(pattern))])
        pairs = np.split(images / np.float32(255), len(images) // 2)
        return np.concatenate([pool3(inception_params, pair) for pair in pairs]).astype(np.float64)

    truth, made = features_of("truth/*.png"), features_of(f"{tiny_workdir.name}/*/*.png")
    assert [row["bin"] for row in rows] == [*sorted({row["bin"] for row in rows[:-1]}), "all"]
    for number, row in enumerate(rows):
        completed = made if row["bin"] == "all" else made[2 * number : 2 * number + 2]
        assert len(completed) == row["count"] == (12 if row["bin"] == "all" else 2)
        expected = frechet_distance(truth.mean(0), np.cov(truth.T), completed.mean(0), np.cov(completed.T))
        assert row["fid"] == pytest.approx(expected, rel=1e-4)
        assert "2 images do not determine a covariance" in row["fid_note"]
    assert "do not determine a covariance" in (folder / "table.md").read_text()


def test_truth_is_counted_anew_for_other_photos(inception_params, cache, photos):
    extract = fid.FeatureExtractor(inception_params)
    everything = open_source(f"folder:{photos}/val")
    source = ChosenImages(everything, (0, 1))
    options = {"size": 32, "resize": "shortest", "batch_size": 2}
    first = fid.truth_statistics(extract, source, **options)
    assert first.count == 2
    again = fid.truth_statistics(extract, source, **options)
    assert np.array_equal(first.second_moment, again.second_moment)
    assert len(list((cache / "truth_statistics").iterdir())) == 1
    fid.truth_statistics(extract, ChosenImages(everything, (1, 0)), **options)
    assert len(list((cache / "truth_statistics").iterdir())) == 2
    for path in (cache / "truth_statistics").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    repaired = fid.truth_statistics(extract, source, **options)
    assert np.array_equal(first.second_moment, repaired.second_moment)


def test_fid_of_a_single_image_has_a_reason_instead_of_a_number():
    one, two = GaussianStatistics(4), GaussianStatistics(4)
    one.update(np.ones((1, 4)))
    two.update(np.eye(4))
    assert fid.distance(one, two) == {"fid": None, "fid_note": "a covariance needs at least 2 images, and a bin has 1."}


# ------------------------------------------------------------------------------------------------- scores and tables


def scores_of(psnrs, method="ours", label="(0.0, 0.1]"):
    scores = Scores()
    for number, psnr in enumerate(psnrs):
        values = {"mae": 1.0 + number, "mae_relative": 0.1, "psnr": psnr, "ssim": 0.9}
        scores.add(method=method, bin=label, image=number, name=f"{number}.png", mask_ratio=0.05, **values)
    return scores


def test_perfect_images_are_counted_and_left_out_of_the_mean_psnr():
    rows = summarise(scores_of([20.0, np.inf, 30.0]), ["ours"], ["(0.0, 0.1]"], fid=NoFid())
    assert [row["psnr"] for row in rows] == [25.0, 25.0]
    assert [row["psnr_infinite"] for row in rows] == [1, 1]
    assert rows[0]["mae"] == 2.0
    assert "1 of 3 images of ours, (0.0, 0.1], are perfect" in tables.to_markdown(rows)
    json.loads(json.dumps(rows, allow_nan=False))


def test_all_images_perfect():
    (row, _) = summarise(scores_of([np.inf]), ["ours"], ["(0.0, 0.1]"], fid=NoFid())
    assert (row["psnr"], row["psnr_infinite"]) == (None, 1)
    assert "PSNR (dB)" not in tables.to_markdown([row])
    both = [*summarise(scores_of([20.0], "first"), ["first"], [], fid=NoFid()), row | {"bin": "all"}]
    assert "| PSNR (dB) ↑ | all | 1 | **20.00** | – |" in tables.to_markdown(both)


def test_scores_come_back_from_text_bit_for_bit():
    scores = scores_of([1 / 3, np.inf, 1e-17])
    assert Scores.from_csv(scores.to_csv()).rows == scores.rows


def test_best_of_a_line_is_bold():
    scores = scores_of([20.0], "first")
    scores.rows += scores_of([21.0], "second").rows
    text = tables.to_markdown(summarise(scores, ["first", "second"], ["(0.0, 0.1]"], fid=NoFid()))
    assert "| PSNR (dB) ↑ | (0.0, 0.1] | 1 | 20.00 | **21.00** |" in text
    assert "| MAE ↓ | (0.0, 0.1] | 1 | **1.000 %** | **1.000 %** |" in text


class NoFid(dict):
    """No distance for any method and bin."""

    def __missing__(self, key):
        return {"fid": None, "fid_note": "switched off."}
