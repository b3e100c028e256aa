"""Programs are kept where they were asked to be, and a second process takes them from there."""

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

PROGRAM = """
import jax, logging
logging.basicConfig(level=logging.DEBUG)
from inpaint_jax.compilation import keep_programs
print("folder", keep_programs())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones((4, 4)))
"""


def run(cache, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = {**kept, "JAX_PLATFORMS": "cpu", "INPAINT_JAX_CACHE": str(cache), "PYTHONPATH": ".", **environment}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    run(tmp_path)
    (folder,) = (tmp_path / "programs").iterdir()
    kept = {path.name for path in folder.iterdir() if path.name.endswith("-cache")}
    assert kept
    again = run(tmp_path)
    assert "Persistent compilation cache hit" in again.stderr
    assert {path.name for path in folder.iterdir() if path.name.endswith("-cache")} == kept


@pytest.mark.parametrize("setting", ["JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_what_jax_was_told_stands(tmp_path, setting):
    value = "false" if "ENABLE" in setting else str(tmp_path / "mine")
    done = run(tmp_path / "ours", **{setting: value})
    assert "folder None" in done.stdout
    assert not (tmp_path / "ours").exists()
