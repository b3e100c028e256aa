"""All that a system is used for, from training to a filled photo: one test, of every system but the paper's."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, saved_state
from PIL import Image

from inpaint_jax.config import SYSTEMS
from inpaint_jax.training import loop
from inpaint_jax.writers import read_metrics

# What differs from the config of the other tests, which has compiled programs; a new system needs a row.
FIELDS = {
    "deepfillv2": {
        "data__image_size": 64,
        "data__masks": "deepfillv2",
        "loss__coarse_weight": 2.0,
        "loss__refined_weight": 2.0,
        "loss__adversarial_weight": 1.0,
        "optimizer__beta2": 0.999,
        "model__discriminator_features": 1024,
    },
    "parconv": {
        "data__masks": "random_walk",
        "loss__style_weight": 0.0,
        "optimizer__ema_decay": 0.9,
        "model__discriminator_width": 64,
        "model__discriminator_features": 1024,
    },
}


PROGRAM = """
import json, sys
from inpaint_jax.cli import main
for command in json.load(sys.stdin):
    assert main(command) == 0, command
"""


@pytest.mark.slow
@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"mhtma"}))  # of which most other tests are
def test_trains_resumes_evaluates_exports_and_fills(system, make_config, photos, tmp_path):
    every = {"system": system, "name": system, **FIELDS[system]}
    stops = {"train__validate_every_epochs": 0.8, "train__log_every_steps": 1}
    stopped = loop.train(make_config(**every, **stops, train__max_steps=2), tmp_path / "run")
    assert stopped == loop.train(make_config(**every, **stops, train__max_steps=4), tmp_path / "run")
    undisturbed = loop.train(make_config(**every, **stops, train__max_steps=4), tmp_path / "undisturbed")
    jax.tree.map(np.testing.assert_array_equal, saved_state(stopped, 4), saved_state(undisturbed, 4))
    rows = read_metrics(stopped)
    assert [row["step"] for row in rows if "loss/generator" in row] == [1, 2, 3, 4]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    for sheet in ("samples/step_00000004.png", "curves.png"):
        assert np.asarray(Image.open(stopped / sheet)).std() > 10

    exported, photo, hole = tmp_path / "model.safetensors", photos / "val" / "00.png", tmp_path / "hole.png"
    mask = np.zeros((48, 60), bool)
    mask[10:30, 20:40] = True
    Image.fromarray(mask).save(hole)
    fill = ["fill", f"--image={photo}", f"--mask={hole}"]
    evaluate = ["evaluate", f"--workdir={exported}", f"--output={tmp_path / 'eval'}", f"--data=folder:{photos}/val"]
    run_commands(
        ["export", f"--checkpoint={stopped}", f"--output={exported}"],
        [*fill, f"--checkpoint={stopped}", f"--output={tmp_path / 'of_run.png'}"],
        [*fill, f"--checkpoint={exported}", f"--output={tmp_path / 'of_file.png'}"],
        [*evaluate, "--limit=2", "--workers=0", "--fid=off", "--methods=mean", "--samples=1"],
        ["report", str(stopped), f"--output={tmp_path / 'report.html'}"],
    )
    filled, again = (np.asarray(Image.open(tmp_path / name)) for name in ("of_run.png", "of_file.png"))
    given = np.asarray(Image.open(photo))
    np.testing.assert_array_equal(filled, again)
    np.testing.assert_array_equal(filled[~mask], given[~mask])
    assert (filled[mask] != given[mask]).any()
    rows = json.loads((tmp_path / "eval" / "metrics.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"mean", "model"}
    assert all(row["psnr"] > 5 for row in rows if row["count"])
    assert "<svg" in (report := (tmp_path / "report.html").read_text()) or "<img" in report


def run_commands(*commands):
    """Runs commands one after the other in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(commands), cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
