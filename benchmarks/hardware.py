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


def describe_devices() -> dict[str, Any]:
    """{"device": "1 x cpu"}, of this process; the first call takes hold of the devices."""
    import jax

    return {"device": f"{jax.device_count()} x {jax.devices()[0].device_kind}"}


def device_memory_peak() -> float | None:
    """GiB of the first device's own memory that were in use at most, None where it uses the host's."""
    import jax

    statistics = jax.local_devices()[0].memory_stats()
    return round(statistics["peak_bytes_in_use"] / 2**30, 2) if statistics else None


def host_memory_peak() -> float:
    """GiB that this process held at most."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def memory_size() -> float:
    """GiB of the first device, or of the host where the device uses that."""
    import jax

    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] / 2**30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def program_memory(compiled: Any) -> float:
    """GiB that one call of a compiled program needs: arguments, results, and what lies between.

    Args:
        compiled: of `jax.jit(...).lower(...).compile()`; figures are per device.
    """
    sizes = compiled.memory_analysis()
    total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return (total - sizes.alias_size_in_bytes) / 2**30
