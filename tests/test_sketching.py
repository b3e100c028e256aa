"""The sketching as a whole: real photos, the real network, real processes, kills included."""

import concurrent.futures
import dataclasses
import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from inpaint_jax.data.images import resize_only
from inpaint_jax.data.sketches import MissingSketch, sketch_from_edges
from inpaint_jax.data.sources import open_source
from inpaint_jax.errors import UserError
from inpaint_jax.features import pidinet
from inpaint_jax.sketching import make

BROKEN = 3


@pytest.fixture(scope="module")
def weights(shared):
    return shared / "weights" / pidinet.PIDINET.name


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photos of three shapes, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    source = open_source("skimage:train")
    for i in range(24):
        size = [(64, 64), (100, 64), (64, 80)][i % 3]
        Image.fromarray(source[i]).resize(size).save(folder / f"{i:02d}.png")
    (folder / f"{BROKEN:02d}.png").write_bytes(b"no photo")
    return f"folder:{folder}"


@pytest.fixture
def settings(data, weights):
    return make.Settings(data, size=64, min_size=200, weights=weights, workers=0)


@pytest.fixture(scope="module")
def undisturbed(data, weights, tmp_path_factory):
    """A run in this process."""
    settings = make.Settings(data, size=64, min_size=200, weights=weights, workers=0)
    return make.make_sketches(tmp_path_factory.mktemp("undisturbed") / "sketches", settings)


def command(output, data, weights, *flags):
    flags = [f"--data={data}", f"--output={output}", f"--weights={weights}", "--size=64", "--min_size=200", *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "inpaint_jax.sketching", *flags],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0):
    text, _ = process.communicate(timeout=120)
    assert process.returncode == code, text
    return text


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_a_killed_command_goes_on_and_ends_alike(tmp_path, data, weights, undisturbed):
    """A photo that never comes, a pipe that nobody writes to, holds the command in its midst."""
    output = tmp_path / "sketches"
    photo = Path(data.removeprefix("folder:")) / "12.png"
    content = photo.read_bytes()
    photo.unlink()
    os.mkfifo(photo)
    process = command(output, data, weights, "--workers=1")
    try:
        while not list(output.glob("0000/*.png")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate(timeout=60)  # until the worker, which shares the pipe, is gone as well
        photo.unlink()
        photo.write_bytes(content)
    done = len(list(output.glob("0000/*.png")))
    assert 1 <= done <= 12

    printed = finish(command(output, data, weights, "--workers=1"))
    assert f"{done} of 24 sketches are there" in printed
    assert "Skipped 03.png" in printed
    assert contents(output) == contents(undisturbed.folder)

    refused = finish(command(output, data, weights, "--threshold=0.5"), code=2)
    assert f"{output} holds sketches of other photos or settings (threshold: 0.65 there, 0.5 now)" in refused
    assert "Traceback" not in refused


def test_every_sketch_is_that_of_its_photo(data, weights, undisturbed):
    """One by one; behind sides that are no multiples of 64 there is the mirror image."""
    source, params = open_source(data), pidinet.load(weights)
    undisturbed.check(source, size=64, resize="shortest")
    lines = 0
    for i in range(len(source)):
        if i == BROKEN:
            with pytest.raises(MissingSketch, match="number 3 "):
                undisturbed[i]
            continue
        photo = resize_only(source[i], 64)
        assert undisturbed[i].shape == photo.shape[:2]
        height, width = photo.shape[:2]
        padded = np.pad(photo, ((0, -height % 64), (0, -width % 64), (0, 0)), mode="symmetric")
        edges = np.asarray(pidinet.edge_map(params, padded[None] / np.float32(255)))[0, :height, :width]
        np.testing.assert_array_equal(undisturbed[i], sketch_from_edges(edges, min_size=200 / 16))
        lines += undisturbed[i].any()
    assert lines > 12


def test_batches_change_nothing(tmp_path, settings, undisturbed):
    batches = make.make_sketches(tmp_path, dataclasses.replace(settings, batch_size=4))
    for i in set(range(24)) - {BROKEN}:
        assert (undisturbed[i] != batches[i]).mean() < 0.002  # a last bit may lift a pixel over the threshold


def test_stretched_photos_are_square_and_the_first_may_be_enough(tmp_path, settings):
    store = make.make_sketches(tmp_path, dataclasses.replace(settings, resize="stretch", limit=3))
    assert [store[i].shape for i in range(len(store))] == 3 * [(64, 64)]


def test_two_at_once_in_one_process(tmp_path, settings, undisturbed):
    """Threads of one run read no photos of the other."""
    others = dataclasses.replace(settings, data="skimage:validation", limit=6)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        _, other = pool.map(make.make_sketches, (tmp_path / "one", tmp_path / "other"), (settings, others))
    assert contents(tmp_path / "one") == contents(undisturbed.folder)
    alone = make.make_sketches(tmp_path / "alone", others)
    assert all((other[i] == alone[i]).all() for i in range(6))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data": "folder:nowhere"}, "no folder 'nowhere'"),
        ({"weights": "nowhere.pth"}, "no file nowhere.pth"),
        ({"resize": "crop"}, "shortest"),
        ({"size": 7}, "size must be at least 8, not 7"),
        ({"threshold": 1.0}, "below 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"limit": 6}, "count: 24 there, 6 now"),
        ({"size": 128}, "[(]size: 64 there, 128 now"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(settings, undisturbed, fields, words):
    before = contents(undisturbed.folder)
    with pytest.raises(UserError, match=words) as error:
        make.make_sketches(undisturbed.folder, dataclasses.replace(settings, **fields))
    assert "\n" not in str(error.value)
    assert contents(undisturbed.folder) == before


def test_photos_of_which_none_can_be_read_are_refused(tmp_path, settings):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_bytes(b"no photo")
    with pytest.raises(UserError, match="Not one of the 1 photos"):
        make.make_sketches(tmp_path / "out", dataclasses.replace(settings, data=f"folder:{tmp_path / 'photos'}"))


@pytest.mark.parametrize(
    ("module", "name", "fault", "words"),
    [
        (
            make.tasks,
            "draw",
            BrokenProcessPool("it was killed"),
            "A worker process died.*--config.data.workers.* goes on",
        ),
        (make.tasks, "write_sketch", OSError(28, "No space left on device"), "No space left on device.*goes on"),
        (
            make.pidinet,
            "edge_map",
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 GB"),
            "with a smaller --batch_size",
        ),
    ],
)
def test_what_stops_a_run_is_one_sentence(tmp_path, monkeypatch, settings, undisturbed, module, name, fault, words):
    calls, untouched = iter(range(7)), getattr(module, name)

    def fail_at_the_eighth(*args):
        if next(calls, None) is None:
            raise fault
        return untouched(*args)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, fail_at_the_eighth)
        with pytest.raises(UserError, match=words):
            make.make_sketches(tmp_path, settings)
    assert len(contents(tmp_path)) > 5
    make.make_sketches(tmp_path, settings)
    assert contents(tmp_path) == contents(undisturbed.folder)
