"""Compiled programs are kept on disk, so that a command's second start takes seconds."""

import hashlib
import os
import platform
from pathlib import Path

import jax

from inpaint_jax.files import cache_folder


def keep_programs() -> Path | None:
    """Turns on jax's persistent compilation cache, below the folder of downloaded weights; for entry scripts.

    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=false` turns it off. It may be
    deleted at any time.

    Returns:
        the folder, or None where jax was told already what to do.
    """
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not enabled:
        return None
    folder = cache_folder() / "programs" / _processor()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _processor() -> str:
    """Names the kind of CPU: programs use its instructions, and a home folder may be shared with another kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        what = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        what = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
