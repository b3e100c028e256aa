"""What all tests share: the platform, the flags, and the folder of shared data."""

import os
from pathlib import Path

import pytest
from absl import flags

# Before a test imports jax; who wants to run them on another platform sets the variable.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# grain's worker processes read absl flags, which only an absl app would have parsed.
flags.FLAGS.mark_as_parsed()

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photos, masks, weights and reference outputs (`INPAINT_JAX_SHARED`, else ../shared), or a skip."""
    folder = Path(os.environ.get("INPAINT_JAX_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"shared data not found at {folder}; set INPAINT_JAX_SHARED to its folder")
    return folder
