"""What a measurement was made on: kinds of hardware and versions of libraries, no names of machines."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any


def describe(libraries: Sequence[str]) -> dict[str, Any]:
    """Hardware, load and versions, for the JSON of a benchmark.

    Args:
        libraries: names of distributions.

    Returns:
        {"hardware": …, "versions": …}.
    """
    hardware = {"cpus": os.cpu_count(), "machine": platform.machine(), "load": round(os.getloadavg()[0], 2)}
    versions = {name: importlib.metadata.version(name) for name in libraries}
    return {"hardware": hardware, "versions": {"python": platform.python_version()} | versions}
