"""What the commands set before JAX starts."""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
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
    # Run programs in the thread that calls them: handing over the small ones that compute actions
    # for the host costs as much as they do (32 lanes of Pendulum: 40,000 steps/s, not 30,000).
    config.update("jax_cpu_enable_async_dispatch", False)
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


def env_kwargs(pairs: Iterable[str], taken: Iterable[str] = ()) -> dict[str, Any]:
    """What `--env-kwargs` says: name=value pairs, the values JSON or else text.

    Args:
      pairs: as they were typed.
      taken: names that other flags have given already.

    Raises:
      ValueError: a pair has no name, or a name comes twice.
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"env_kwargs={pair}: must be name=value")
        if name in kwargs or name in taken:
            raise ValueError(f"env_kwargs={pair}: {name} is given twice")
        try:
            kwargs[name] = json.loads(value)
        except ValueError:
            kwargs[name] = value
    return kwargs


def machine() -> dict[str, str]:
    """What measurements were made on."""
    device = jax.devices()[0]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "devices": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }


def _processor() -> str:
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if names:
            return f"{len(names)} x {names[0]}"
    return platform.processor()
