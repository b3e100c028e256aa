"""The benchmarks as commands, at their tiniest: figures are finite and positive, plots are pictures. Never the time."""

import json
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from inpaint_jax.nets.attention import masked_patch_attention
from inpaint_jax.writers import read_metrics

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import counting

    return counting


def run(script, tmp_path, *flags, plot=True, peak=True):
    """Runs a benchmark; gives what it printed, and its JSON. The plot is checked here."""
    files = {"json": tmp_path / "figures.json"} | ({"plot": tmp_path / "plot.png"} if plot else {})
    result = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *flags, *(f"--{kind}={file}" for kind, file in files.items())],
        cwd=tmp_path,
        # The commands run from anywhere, on this checkout.
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout
    if plot:
        assert Image.open(files["plot"]).format == "PNG"
    figures = json.loads(files["json"].read_text())
    assert figures["versions"]["jax"] == jax.__version__
    if peak:
        check_positive(figures["peak"])
    assert figures["device"]
    return result.stdout, figures


def check_positive(figures, *names):
    """Finite and above 0: the named ones, or all; a summary of seconds counts with all that it holds."""
    for name in names or figures:
        value = figures[name]
        if isinstance(value, dict):
            check_positive(value)
        else:
            assert math.isfinite(value), name
            assert value > 0, name


RATES = ("gflop", "gflop_per_second", "share_of_matrix_peak", "gbyte", "gbyte_per_second", "share_of_copy_peak")


def test_attention(tmp_path):
    _, figures = run("attention.py", tmp_path, "--sizes=6", "--batches=2", "--channels=4", "--repeats=2")
    rows = figures["rows"]
    methods = {"loop", "batched", "unrolled", "gram", "blocked", "auto"}
    settings = {(row["size"], row["batch_size"], row["direction"], row["method"]) for row in rows}
    assert settings == {(6, 2, d, m) for d in ("forward", "forward+backward") for m in methods}
    for row in rows:
        check_positive(row, "seconds", "memory_gib", "times_as_fast_as_loop", *RATES)
        assert row["seconds"]["calls"] == 2


@pytest.mark.parametrize(
    ("flag", "reason"), [("--memory-limit=1e-9", "needs "), ("--time-limit=1e-12", "would take about ")]
)
def test_attention_leaves_out_what_is_beyond_its_limits(tmp_path, flag, reason):
    flags = ("--sizes=6", "--batches=1", "--methods=gram", "--directions=forward", flag)
    out, figures = run("attention.py", tmp_path, *flags, plot=False)
    assert [row["skipped"].startswith(reason) for row in figures["rows"]] == [True]
    assert f"skipped: {reason}" in out


@pytest.mark.slow
def test_inpainting(tmp_path, photos):
    _, figures = run("inpainting.py", tmp_path, "--sizes=40x32x2", "--repeats=1", f"--photo={photos}/val/00.png")
    assert [(row["size"], row["batch_size"]) for row in figures["sizes"]] == [("40x32", 2)]
    for row in figures["sizes"]:
        check_positive(row, "first_call", "seconds", "host_memory_peak_gib", "hole", *RATES)


TINY_STEP = ("--size=32", "--width=4", "--discriminator-width=4", "--discriminator-features=16", "--vgg-weights=")


@pytest.mark.slow
def test_train_step(tmp_path, photos):
    """In two rounds, by two devices, of which a batch of one does not divide."""
    flags = (*TINY_STEP, f"--folder={photos}/train", "--steps=1", "--rounds=2", "--batch-sizes=1,2", "--devices=2")
    out, figures = run("train_step.py", tmp_path, *flags)
    rows = figures["rows"]
    assert [(row["batch_size"], row["devices"], row["adversarial"]) for row in rows] == [(2, 2, "hinge")]
    assert out.count("does not divide") == 1
    for row in rows:
        assert row["seconds_per_step"]["calls"] == 2
        check_positive(row, "seconds_per_step", "images_per_second", "batches_per_minute", *RATES)
        check_positive(row, "program_memory_gib", "host_memory_peak_gib")


def test_products_are_counted_as_by_hand(counting):
    features = jax.ShapeDtypeStruct((2, 8, 9, 4), np.float32)
    mask = jax.ShapeDtypeStruct((2, 8, 9), np.float32)
    temperature = jax.ShapeDtypeStruct((2,), np.float32)
    pixels, keys = 8 * 9, 6 * 7
    padded = 10 * 11
    expected = {
        "gram": 2 * 2 * 4 * (padded * pixels + pixels * pixels),
        "unrolled": 2 * 2 * 9 * 4 * 2 * pixels * keys,
    }
    for method, flops in expected.items():
        work = counting.count(
            lambda f, m, t, method=method: masked_patch_attention(f, m, t, method=method), features, mask, temperature
        )
        assert work.flops == flops


def test_loops_and_convolutions_are_counted(counting):
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 5), np.float32)

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    once = 2 * 4 * 4 * 5 * 27
    assert counting.count(convolve, x, kernel).flops == once
    # both gradients are as much work as the convolution
    assert counting.count(lambda *a: jax.vjp(convolve, *a)[1](jnp.ones((1, 4, 4, 5))), x, kernel).flops == 3 * once
    looped = counting.count(lambda x, k: jax.lax.map(lambda _: convolve(x, k), jnp.arange(7)), x, kernel)
    assert looped.flops == 7 * once
    assert looped.bytes == 7 * 4 * (8 * 8 * 3 + 27 * 5 + 4 * 4 * 5)
    with pytest.raises(ValueError, match="while"):
        counting.count(lambda a: jax.lax.while_loop(lambda s: s.sum() > 0, lambda s: s @ s, a), jnp.ones((2, 2)))


@pytest.mark.slow
def test_ablation(tmp_path, photos):
    """A row of what evaluate.py and validation say of the same checkpoint."""
    command = [sys.executable, str(BENCHMARKS / "ablation.py"), "--variants=contextual", "--vgg-weights="]
    flags = [f"--train=folder:{photos}/train", f"--validation=folder:{photos}/val", f"--output={tmp_path / 'runs'}"]
    tiny = ["--seeds=1", "--steps=2", "--size=32", "--width=4", "--batch-size=2"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for _ in range(2):  # the second time everything is there
        subprocess.run([*command, *flags, *tiny], env=environment, check=True, timeout=900)
    result = json.loads((tmp_path / "runs" / "ablation.json").read_text())
    evaluated = json.loads((tmp_path / "runs" / "metrics.json").read_text())["rows"]
    (row,) = result["rows"]
    assert row["changes"] == {"model.attention": "contextual"}
    (overall,) = (r for r in evaluated if (r["method"], r["bin"]) == ("contextual_1", "all"))
    lines = read_metrics(tmp_path / "runs" / "contextual_1")
    (best,) = (line for line in lines if line["step"] == row["step"][0] and "validation/loss" in line)
    assert best["validation/loss"] == min(line["validation/loss"] for line in lines if "validation/loss" in line)
    assert (row["psnr"], row["hole_psnr"]) == ([overall["psnr"]], [best["validation/hole_psnr"]])
    assert row["temperatures"][0] == pytest.approx([0.1])
    assert Image.open(tmp_path / "runs" / "temperatures.png").format == "PNG"
    assert (tmp_path / "runs" / "table.md").read_text().count("\n") == 3


def test_fill(tmp_path):
    """The spline between its two limits: better than the harmonic fill, and than each classical method."""
    flags = ["--limit=6", "--size=48", "--stiffness=0,4", "--width=4"]
    printed, figures = run("fill.py", tmp_path, *flags, plot=False, peak=False)
    means = {name: np.mean([row[0] for row in rows]) for name, rows in figures["quality"].items()}
    assert max(means, key=means.get) == "stiffness 4"
    assert len(means) == 5
    assert all(len(rows) == 6 for rows in figures["quality"].values())
    assert "| stiffness 4 |" in printed
    check_positive(figures["seconds"])
