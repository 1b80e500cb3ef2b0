"""What the commands set before JAX starts."""

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Any

import jax
from platformdirs import user_cache_path

import envs
from es_rl.devices import use_cpu_devices

_OWN_CHOICE = "xla_force_host_platform_device_count"


def start_jax(devices: int | None = None) -> None:
    """Use every core of a CPU, and keep what is compiled for the next start.

    Compiled programs go to the user's cache folder; JAX_COMPILATION_CACHE_DIR names another one,
    and JAX_ENABLE_COMPILATION_CACHE=false keeps none.

    Args:
      devices: how many devices to make of the CPU; one per core unless given.
    """
    config: Any = jax.config  # which declares its options at run time
    if config.jax_compilation_cache_dir is None:
        folder = str(user_cache_path("es-rl", appauthor=False) / "compiled")
        config.update("jax_compilation_cache_dir", folder)
        config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    chosen = config.jax_num_cpu_devices > 0
    chosen = chosen or _OWN_CHOICE in os.environ.get("XLA_FLAGS", "")
    if devices is not None or not chosen:
        # JAX runs already when a notebook calls a command; it then keeps the devices that it has.
        with contextlib.suppress(RuntimeError):
            use_cpu_devices(devices)


def import_modules(modules: Iterable[str]) -> None:
    """Import modules that register environments, from the working directory too.

    Raises:
      ValueError: one of them cannot be imported.
    """
    here = os.getcwd()
    if here not in sys.path:  # a console script does not have it, for "module:id" neither
        sys.path.append(here)
    for module in modules:
        envs.import_module(module)
