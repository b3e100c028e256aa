"""The pack of photos, and the day on a GPU as far as seconds on a CPU show it; --rehearsal runs the whole."""

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from inpaint_jax.data.sources import open_source

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Calls give a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_a_pack_takes_of_all_folders_and_keeps_their_parts_apart(benchmark, photos, tmp_path):
    """Two data sets, the second with twice the photos: half of the bytes take about half of each."""
    few = tmp_path / "few"
    for part, step in (("train", 2), ("val", 1)):
        (few / part).mkdir(parents=True)
        for file in sorted((photos / part).iterdir())[::step]:
            os.symlink(file, few / part / file.name)
    pack = benchmark("pack_photos").pack
    settings = {"side": 32, "quality": 75, "validation": 2}
    whole = pack([few, photos], tmp_path / "whole", size=10**9, **settings)
    assert whole["train"] == {"few": 5, "photos": 10}
    assert whole["val"] == {"few": 2, "photos": 2}
    files = sorted((tmp_path / "whole").glob("*/*.jpg"))
    size = sum(file.stat().st_size for file in files)
    validation = sum(file.stat().st_size for file in files if file.parent.name == "val")

    half = pack([few, photos], tmp_path / "half", size=(size + validation) // 2, **settings)
    assert half["val"] == whole["val"]
    assert 1 <= half["train"]["few"] <= 4
    assert 3 <= half["train"]["photos"] <= 7
    assert json.loads((tmp_path / "half" / "pack.json").read_text()) == half
    for part in ("train", "val"):
        source = open_source(f"folder:{tmp_path / 'half' / part}")
        assert len(source) == sum(half[part].values())
        assert all(min(source[i].shape[:2]) == 32 for i in range(len(source)))
        for index in range(len(source)):  # each is the photo of its name, in the part that it was in
            _, folder, name = os.path.basename(source.name(index)).removesuffix(".jpg").split("_")
            with Image.open(photos / part / f"{name}.png") as original:
                shown = np.asarray(original.convert("RGB").resize(source[index].shape[1::-1], Image.Resampling.LANCZOS))
            assert folder in ("few", "photos")
            assert np.abs(shown.astype(int) - source[index]).mean() < 12
    with pytest.raises(SystemExit, match="val/ alone"):
        pack([photos], tmp_path / "none", size=100, **settings)


def test_the_time_is_divided_as_is_said(benchmark):
    """Boxes of fixed length from ten minutes on, shares of less; the training has the rest, if that is of any use."""
    plan = benchmark("day_plan")
    assert plan.divide(600, plan.STAGES, plan.DAY) == {"checks": 90, "speed": 150, "training": 360}
    assert plan.divide(900, plan.STAGES, plan.DAY)["training"] == 660
    assert plan.divide(300, plan.STAGES, plan.DAY) == {"checks": 45, "speed": 75, "training": 180}
    assert plan.divide(300, ["training"], plan.DAY) == {"training": 300}
    assert plan.divide(300, ["checks"], plan.DAY) == {"checks": 300}
    assert plan.divide(600, ["checks", "speed"], plan.DAY) == pytest.approx({"checks": 225, "speed": 375})
    with pytest.raises(SystemExit, match="more --minutes or fewer --stages"):
        plan.divide(60, plan.STAGES, plan.DAY)


@pytest.fixture
def day(benchmark, photos, tmp_path):
    """Calls give a rehearsal with so many minutes left, and its arguments."""
    gpu_day, plan = benchmark("gpu_day"), benchmark("day_plan")
    days = []

    def make(minutes, stages, pack=photos):
        names = {"photos": pack, "output": tmp_path / "out", "wheels": None, "init_from": None, "vgg_weights": None}
        arguments = argparse.Namespace(minutes=minutes, stages=stages, rehearsal=True, **names)
        days.append(gpu_day.Day(arguments, plan.REHEARSAL))
        return days[-1], arguments

    yield make
    for each in days:
        each.close()
        assert not each.work.exists()


def test_jobs_that_fail_or_take_too_long_are_ended_and_told(benchmark, day, tmp_path):
    """The one that takes too long has a child that heeds no SIGTERM; neither is there afterwards."""
    job, (a_day, _) = benchmark("day_plan").Job, day(1, ["speed"])
    (tmp_path / "child.py").write_text(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(100)\n"
    )
    child = str(tmp_path / "child.py")
    parent = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, {child!r}])"
    write = "import pathlib; pathlib.Path('{folder}', 'good.json').write_text('{\"rows\": 3}')"
    a_day.run("speed", job("bad", 30, (sys.executable, "-c", "print('here'); raise ValueError('why it failed')")))
    begin = time.monotonic()
    a_day.run("speed", job("long", 2, (sys.executable, "-c", parent)))
    assert time.monotonic() - begin < 15
    a_day.run("speed", job("good", 30, (sys.executable, "-c", write)))
    a_day.report.publish()
    assert a_day.report.failures() == ["bad"]

    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):  # until whoever adopted it has collected it
        if not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("a child is still running")

    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == ["speed.zip", "summary.json", "summary.md"]
    summary = json.loads((out / "summary.json").read_text())
    assert [entry["status"] for entry in summary["jobs"]] == ["failed: exit code 1", "cut off", "ok"]
    assert summary["figures"] == {"good": {"rows": 3}}
    text = (out / "summary.md").read_text()
    assert "ValueError: why it failed" in text
    assert "begun" in text
    with zipfile.ZipFile(out / "speed.zip") as archive:
        assert "ValueError: why it failed" in archive.read("bad.log").decode()
        assert archive.read("bad.txt") == b"here\n"


def test_a_stage_that_fails_does_not_stop_the_others(benchmark, day, photos, tmp_path):
    """Without photos in val/ nothing can be filled; the checks have their turn all the same, and the exit code is 1."""
    (tmp_path / "pack" / "val").mkdir(parents=True)
    os.symlink(photos / "train", tmp_path / "pack" / "train")
    a_day, arguments = day(5, ["speed", "checks"], tmp_path / "pack")
    a_day.scale = dataclasses.replace(a_day.scale, shares={"speed": 0.1, "checks": 1e-3})  # too little to begin one
    assert benchmark("gpu_day").run(a_day, arguments) == 1
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "day_plan.py" in text  # the traceback
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    jobs = {(job["stage"], job["job"]): job["status"] for job in summary["jobs"]}
    assert jobs["setup", "device"] == "ok"
    assert jobs["speed", "speed"] == "failed"
    assert {status for (stage, _), status in jobs.items() if stage == "checks"} == {"skipped: no time left"}


def test_what_to_carry_is_said(benchmark):
    """By Python alone, where nothing of ours is installed; in versions that this environment works with."""
    command = [sys.executable, "-S", str(BENCHMARKS / "gpu_day.py"), "--list_wheels"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    pins = dict(line.split("==") for line in listed.splitlines())
    assert pins == benchmark("gpu_day").WHEELS
    assert {"grain", "clu", "ml_collections"} <= pins.keys()
    for name in pins:
        importlib.metadata.version(name)


def test_no_import_takes_hold_of_a_device():
    """A process that holds a GPU takes most of its memory: those that only start others, and workers, must not."""
    code = """
import sys
from jax._src import xla_bridge
import inpaint_jax.cli.train, inpaint_jax.training.loop, inpaint_jax.inference, inpaint_jax.evaluation.run
import attention, inpainting, machine_peak, pack_photos, train_step
sys.exit(xla_bridge.backends_are_initialized())
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(BENCHMARKS)])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
