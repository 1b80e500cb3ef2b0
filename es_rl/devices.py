"""Devices: which devices a run uses, how many lanes each device steps, and compilation.

A lane is one environment among those that are stepped side by side.
"""

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
    """Make JAX treat the CPU as `count` devices, by default one per core.

    On Brax, one device keeps 1.4 to 2 of 4 cores busy, and one device per core keeps all of them
    busy. Call this function before anything else asks JAX for its devices. Accelerators are not
    affected.

    Raises:
      RuntimeError: JAX has already started.
    """
    jax.config.update("jax_num_cpu_devices", count or _cores())


def _cores() -> int:
    # Where the system supports it, count only the cores that this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_mesh(count: int | None = None, *, local: bool = False) -> Mesh:
    """Make a mesh with one axis over devices of the default backend, ordered by process.

    Args:
      count: how many devices of each process to use, from the first on; all of them unless given.
      local: whether to use the devices of this process only.

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
    """Return the total memory of a mesh's devices in bytes; infinite if it is not known."""
    parts = [device.memory_stats() for device in mesh.local_devices]
    if all(parts):
        return mesh.size * min(part.get("bytes_limit", math.inf) for part in parts if part)
    if mesh.devices.flat[0].platform == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        processes = mesh.size / len(mesh.local_devices)
        return processes * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return math.inf


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding with which every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def spread(mesh: Mesh) -> NamedSharding:
    """Return the sharding with which every device holds its part of the first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def lanes_per_device(jobs: int, mesh: Mesh, lanes: int | None = None) -> int:
    """Return how many environments each device steps side by side in a rollout.

    Args:
      jobs: the number of episodes to play.
      mesh: the devices.
      lanes: the number of lanes on all devices together; chosen from the kind of device and the
        number of jobs unless given.
    """
    share = -(-jobs // mesh.size)
    if lanes is not None:
        return min(share, -(-lanes // mesh.size))
    # On a CPU core 64 lanes step up to a tenth faster than 32, and more lanes hardly help. With few
    # jobs per lane, many lanes idle at the end. An accelerator needs thousands of lanes to be busy.
    return min(share, max(32, min(64, share // 4)) if _on_cpu(mesh) else 2048)


def tail_lanes(lanes: int, mesh: Mesh) -> int:
    """Return `Rollout.tail` for this many lanes: how few of them are finished one by one."""
    # On a CPU a step of one lane costs an eighth of a step of 32 lanes on Brax, and a fifth on
    # CartPole. On an accelerator it costs hardly less than a step of all lanes.
    return lanes // 8 if _on_cpu(mesh) else 0


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


class Program:
    """A jitted function that can be compiled before its first call, in parallel with others."""

    def __init__(self, function: Callable[..., Any], **options: Any):
        self._jitted = jax.jit(function, **options)
        self._compiled: Callable[..., Any] | None = None

    def shapes(self, *args: Any) -> Any:
        """Return the shapes of the results. `compile` with these arguments traces no more."""
        return self._jitted.eval_shape(*args)

    def compile(self, *args: Any) -> None:
        """Compile for arguments of these shapes and placements; later calls must have the same."""
        if self._compiled is None:
            self._compiled = self._jitted.lower(*args).compile()

    def __call__(self, *args: Any) -> Any:
        return (self._compiled or self._jitted)(*args)


def all_at_once(*tasks: Callable[[], Any]) -> list[Any]:
    """Run tasks in parallel threads, and return their results.

    This is meant for compilations, which hold Python's global lock only for a small part of their
    time.
    """
    x64 = jax.config.jax_enable_x64  # type: ignore[attr-defined]

    def run(task: Callable[[], Any]) -> Any:
        with jax.enable_x64(x64):  # the setting of the caller's thread does not apply to others
            return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))
