"""Devices: how many a run uses, how many lanes each of them steps, and compiling for them."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from envs.errors import UserError

AXIS = "devices"
"""The mesh axis over which the population is spread."""


def use_cpu_devices(count: int | None = None) -> None:
    """Make JAX see the CPU as `count` devices, one per core unless given.

    One device uses 1.4 to 2 of 4 cores on Brax; one device per core uses them all. Call this
    before anything else asks JAX for its devices. Accelerators are not affected.

    Raises:
      RuntimeError: JAX has started already.
    """
    jax.config.update("jax_num_cpu_devices", count or _cores())


def _cores() -> int:
    # Where the system knows, those that this process may run on.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_mesh(count: int | None = None, *, local: bool = False) -> Mesh:
    """A mesh with one axis over devices of the default backend, process after process.

    Args:
      count: how many of each process, the first ones; all unless given.
      local: of this process alone.

    Raises:
      UserError: there are fewer devices.
    """
    here = jax.local_device_count()
    if count is not None and not 1 <= count <= here:
        raise UserError(f"devices={count}: must be from 1 to {here}, the devices here")
    processes = [jax.process_index()] if local else range(jax.process_count())
    devices = [d for process in processes for d in jax.local_devices(process)[:count]]
    return Mesh(np.array(devices), (AXIS,))


def memory(mesh: Mesh) -> float:
    """Bytes that the devices of a mesh have together; infinite where nobody knows."""
    parts = [device.memory_stats() for device in mesh.local_devices]
    if all(parts):
        return mesh.size * min(part.get("bytes_limit", math.inf) for part in parts if part)
    if mesh.devices.flat[0].platform == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        processes = mesh.size / len(mesh.local_devices)
        return processes * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return math.inf


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def spread(mesh: Mesh) -> NamedSharding:
    """Every device has its part of the first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def lanes_per_device(jobs: int, mesh: Mesh, lanes: int | None = None) -> int:
    """How many environments each device steps side by side in a rollout.

    Args:
      jobs: how many episodes are to be played.
      mesh: the devices.
      lanes: on all devices together; chosen from the device and the jobs unless given.
    """
    share = -(-jobs // mesh.size)
    if lanes is not None:
        return min(share, -(-lanes // mesh.size))
    # On a CPU core 64 lanes step up to a tenth faster than 32, and more hardly help; but with few
    # jobs for each they idle at the end. An accelerator needs thousands to be busy.
    return min(share, max(32, min(64, share // 4)) if _on_cpu(mesh) else 2048)


def tail_lanes(lanes: int, mesh: Mesh) -> int:
    """How few of `lanes` may be left before they go on one by one: see `Rollout.tail`."""
    # On a CPU a step of one lane costs an eighth of a step of 32 on Brax, a fifth on CartPole; on
    # an accelerator hardly less.
    return lanes // 8 if _on_cpu(mesh) else 0


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


class Program:
    """A jitted function that can be compiled before its first call, beside others."""

    def __init__(self, function: Callable[..., Any], **options: Any):
        self._jitted = jax.jit(function, **options)
        self._compiled: Callable[..., Any] | None = None

    def compile(self, *args: Any) -> None:
        """Compile for arguments of these shapes and placements; only those may follow."""
        if self._compiled is None:
            self._compiled = self._jitted.lower(*args).compile()

    def __call__(self, *args: Any) -> Any:
        return (self._compiled or self._jitted)(*args)


def all_at_once(*tasks: Callable[[], Any]) -> list[Any]:
    """Run tasks in threads, as compilations, which leave Python alone for most of their time."""
    x64 = jax.config.jax_enable_x64  # type: ignore[attr-defined]

    def run(task: Callable[[], Any]) -> Any:
        with jax.enable_x64(x64):  # which each thread has for itself
            return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))
