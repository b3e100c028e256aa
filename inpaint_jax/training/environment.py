"""What a run is computed with: kinds of hardware and versions of libraries, no names of machines."""

import importlib.metadata
import os
import platform
import resource
import sys
from typing import Any

import jax

from inpaint_jax import __version__

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")  # recorded where installed


def describe_environment() -> dict[str, Any]:
    """Hardware and versions of this process, and the devices of all.

    Returns:
        devices ("2 x NVIDIA H200"), platform ("gpu"), processes, cpus and machine ("x86_64") of this host, memory_gib
        of this host (None where the system does not tell), and versions, name -> version (None for a library that is
        installed under another distribution's name).
    """
    versions = {"inpaint_jax": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in _LIBRARIES}
    versions |= {name: version for name in _PLUGINS if (version := _version(name))}
    return {
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": jax.default_backend(),
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "memory_gib": _memory(),
        "versions": versions,
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def peak_memory() -> float:
    """The most memory that this process has held so far, in GiB (workers not counted)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
