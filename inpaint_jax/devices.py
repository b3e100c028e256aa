"""Devices: one mesh axis `data`, parameters everywhere, batches split. One CPU, N devices and several hosts alike."""

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from inpaint_jax.errors import UserError


class Hosts(NamedTuple):
    """Where this process stands among several.

    Attributes:
        coordinator: host:port of process 0.
        processes: how many take part.
        process: which of them this is, from 0.
    """

    coordinator: str
    processes: int
    process: int


def data_mesh() -> Mesh:
    """All devices of all hosts along the axis `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: parameters, optimizer state, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's part of a batch.

    Args:
        batch: name -> [B / processes, ...].
        mesh: of all devices.

    Returns:
        name -> [B, ...], split over the devices.
    """
    sharding = split(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def put_everywhere(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree of host arrays, the same on every process, to all devices."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def check_batch_size(batch_size: int) -> None:
    """Says what to do if a batch does not divide over the devices.

    Raises:
        UserError: it does not.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise UserError(
            f"batch_size {batch_size} does not divide over {devices} devices; "
            f"take a multiple of {devices}, for example --config.batch_size={-(-batch_size // devices) * devices}."
        )


def wait_for_all_hosts(name: str) -> None:
    """Returns once every process has called it.

    Args:
        name: of the meeting point.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def is_same_on_all_hosts(text: str) -> bool:
    """Whether every process gives the same text; returns once all have called it, and the same to all.

    Args:
        text: of this process.
    """
    if jax.process_count() == 1:
        return True
    checksums = multihost_utils.process_allgather(np.uint32(zlib.crc32(text.encode())))
    return bool((checksums == checksums[0]).all())


def join_hosts(hosts: Hosts) -> None:
    """Connects this process to the others; call it before anything else touches the devices.

    Args:
        hosts: see there.

    Raises:
        UserError: a part is missing, or makes no sense.
    """
    if None in hosts:
        raise UserError(f"Several hosts need all of --coordinator, --processes and --process, not {tuple(hosts)}.")
    if not 0 <= hosts.process < hosts.processes:
        raise UserError(f"--process must be from 0 to {hosts.processes - 1}, one less than --processes.")
    if not hosts.coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"--coordinator must be host:port, not {hosts.coordinator!r}.")
    jax.distributed.initialize(hosts.coordinator, hosts.processes, hosts.process)
