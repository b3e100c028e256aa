"""What a run records of hardware and versions."""

import importlib.metadata

import jax
import pytest

from inpaint_jax.training import environment
from inpaint_jax.training.environment import describe_environment


@pytest.mark.parametrize("cuda", [12, 13])
def test_libraries_are_recorded_by_their_distributions(tmp_path, monkeypatch, cuda):
    """One installed under another distribution's name stops nothing; a plugin is recorded where there is one."""
    assert "python" in describe_environment()["versions"]
    monkeypatch.setattr(environment, "_LIBRARIES", ("jax", "jax-under-another-name"))
    installed = tmp_path / f"jax_cuda{cuda}_plugin-0.0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: jax-cuda{cuda}-plugin\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    versions = describe_environment()["versions"]
    assert versions["jax"] == jax.__version__ == importlib.metadata.version("jax")
    assert versions["jax-under-another-name"] is None
    assert versions[f"jax-cuda{cuda}-plugin"] == "0.0.1"
