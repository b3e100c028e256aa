"""Edges of a result against the lines that it was to follow."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from inpaint_jax.evaluation.guidance import Agreement, edge_agreement
from inpaint_jax.features import pidinet


def slow_agreement(edges, lines, hole, tolerance):
    """By all pairs of pixels."""

    def near(pixels, others):
        others = np.argwhere(others)
        return sum(
            any(math.dist(pixel, other) <= tolerance for other in others) for pixel in np.argwhere(pixels & hole)
        )

    return Agreement(int((edges & hole).sum()), near(edges, lines), int((lines & hole).sum()), near(lines, edges))


@pytest.mark.parametrize("tolerance", [0, 1, 3])
def test_agrees_with_all_pairs(tolerance):
    rng = np.random.default_rng(0)
    edges, lines = (rng.random((20, 24)) < 0.05 for _ in range(2))
    hole = rng.random((20, 24)) < 0.6
    assert edge_agreement(edges, lines, hole, tolerance) == slow_agreement(edges, lines, hole, tolerance)


def test_shifted_line_is_found_within_the_tolerance():
    lines = np.zeros((32, 32), bool)
    lines[16] = True
    hole = np.zeros((32, 32), bool)
    hole[:, 8:24] = True
    for shift, share in ((0, 1.0), (3, 1.0), (4, 0.0)):
        agreement = edge_agreement(np.roll(lines, shift, axis=0), lines, hole)
        assert (agreement.precision, agreement.recall, agreement.f1) == (share,) * 3
        assert agreement.drawn == 16


def test_half_the_lines_and_as_many_edges_elsewhere():
    hole = np.ones((40, 40), bool)
    lines, edges = np.zeros((2, 40, 40), bool)
    lines[5] = lines[35] = True
    edges[5] = edges[20] = edges[28] = True
    agreement = edge_agreement(edges, lines, hole)
    assert (agreement.precision, agreement.recall) == (pytest.approx(1 / 3), 0.5)
    assert agreement.f1 == pytest.approx(0.4)


def test_sums_and_empty_ones():
    empty = np.zeros((8, 8), bool)
    nothing = edge_agreement(empty, empty, ~empty)
    assert math.isnan(nothing.precision)
    assert math.isnan(nothing.recall)
    assert math.isnan(nothing.f1)
    assert nothing + Agreement(4, 2, 8, 6) == Agreement(4, 2, 8, 6)
    assert sum([Agreement(1, 1, 1, 0)] * 3, Agreement()) == Agreement(3, 3, 3, 0)
    assert edge_agreement(empty, ~empty, ~empty).f1 == 0
    with pytest.raises(ValueError, match="one shape"):
        edge_agreement(empty, empty, empty[:4])


def test_command(guided_workdir, shared, tmp_path):
    files = {"--json": tmp_path / "guidance.json", "--sheet": tmp_path / "sheet.png"}
    arguments = [f"--checkpoint={guided_workdir}", "--data=skimage:validation", "--limit=3", "--rows=2"]
    arguments += [f"--weights={shared / 'weights' / pidinet.PIDINET.name}", "--thresholds=0.65,0.3"]
    command = [sys.executable, "benchmarks/sketch_guidance.py", *arguments, *(f"{k}={v}" for k, v in files.items())]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = {(row["result"], row["threshold"]): row for row in json.loads(files["--json"].read_text())["rows"]}
    assert len(rows) == 8
    photo = rows["photo", 0.65]
    assert photo["precision"] == photo["recall"] == photo["f1"] == 1
    assert photo["edge_pixels"] == photo["line_pixels"] > 0
    assert rows["with the sketch", 0.65]["hole_psnr"] != rows["without it", 0.65]["hole_psnr"]
    assert Image.open(files["--sheet"]).size == (4 * 36 + 4, 22 + 2 * 36)
