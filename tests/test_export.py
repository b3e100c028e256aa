"""The file to publish: exact round trip, and a sentence for every file that is something else."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from conftest import REPOSITORY

from inpaint_jax import __version__
from inpaint_jax.checkpoints import load_generator
from inpaint_jax.errors import UserError
from inpaint_jax.models import FORMAT, export, read_model, write_model

PARAMS = {
    "coarse": {"GatedConv_0": {"conv": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}}},
    "a.b": {"bias": np.float32(0.1) * np.ones(3, np.float32), "scalar": np.array(2, np.int32)},
}
CONFIG = {"name": "tiny", "data": {"test": None, "size": 32, "flip": 0.5}, "list": [1, 2]}


def test_round_trip_is_exact(tmp_path):
    write_model(tmp_path / "new" / "m.safetensors", PARAMS, CONFIG, 12)
    params, config, step = read_model(tmp_path / "new" / "m.safetensors")
    assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, params, PARAMS)
    assert all(a.dtype == b.dtype for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(PARAMS)))
    assert (config, step) == (CONFIG, 12)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.safetensors"]


def test_arrays_that_are_views_are_written_as_they_look(tmp_path):
    transposed = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T, "column": np.eye(3, dtype=np.float32)[:, 1]}
    write_model(tmp_path / "m.safetensors", transposed, CONFIG, 0)
    jax.tree.map(np.testing.assert_array_equal, read_model(tmp_path / "m.safetensors")[0], transposed)


def test_the_command_exports_a_run(tiny_workdir, tmp_path):
    file = tmp_path / "tiny.safetensors"
    command = [sys.executable, "-m", "inpaint_jax", "export", f"--checkpoint={tiny_workdir}", f"--output={file}"]
    result = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    params, step = load_generator(tiny_workdir)
    assert f"Wrote the generator of step {step} to {file}" in result.stderr
    saved, config, saved_step = read_model(file)
    jax.tree.map(np.testing.assert_array_equal, saved, params)
    assert (config, saved_step) == (json.loads((tiny_workdir / "config.json").read_text()), step)

    with safetensors.safe_open(file, framework="numpy") as opened:  # what others find in it
        metadata = opened.metadata()
        assert "coarse/GatedConv_0/conv/kernel" in opened.keys()  # noqa: SIM118
    assert json.loads(metadata["config"])["model"]["width"] == 4
    assert (metadata["format"], metadata["inpaint_jax"]) == (FORMAT, __version__)

    command = [*command[:4], f"--checkpoint={tmp_path}/nowhere", f"--output={file}"]
    result = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert (
        result.stderr.strip()
        == f"inpaint-jax export: {tmp_path}/nowhere does not exist; give the workdir of a training run."
    )


def test_a_step_of_choice(tiny_workdir, tmp_path):
    assert export(tiny_workdir, tmp_path / "m.safetensors", step=2) == 2
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 77"):
        export(tiny_workdir, tmp_path / "n.safetensors", step=77)
    assert not (tmp_path / "n.safetensors").exists()


def test_other_files_get_a_sentence(tmp_path):
    file = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError):
        read_model(file)

    for content in (b"", b"PNG", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"m.safetensors is no exported model .*; give the workdir of a run"):
            read_model(file)

    safetensors.numpy.save_file({"weight": np.zeros(3)}, file)
    with pytest.raises(UserError, match="holds tensors, but not those of a generator"):
        read_model(file)

    write_model(file, PARAMS, CONFIG, 0)
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(UserError, match="is no exported model"):
        read_model(file)

    file.write_bytes(whole.replace(b'"format_version":"1"', b'"format_version":"2"'))
    with pytest.raises(UserError, match=r"has format 2, .* reads format 1: update inpaint_jax"):
        read_model(file)
