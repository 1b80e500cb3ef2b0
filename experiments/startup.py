"""The start of a command: JAX, the modules of the user, and facts about the machine."""

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from platformdirs import user_cache_path

import envs
from envs.errors import UserError
from envs.registry import split_id
from es_rl.devices import use_cpu_devices

_MOST_DEVICES = 1024
"""The most devices that a CPU is split into; JAX itself has no limit."""
_OWN_CHOICE = "xla_force_host_platform_device_count"


def start_jax(devices: int | None = None) -> None:
    """Use every core of a CPU, and cache compiled programs for later starts.

    Compiled programs are stored in the user's cache folder. JAX_COMPILATION_CACHE_DIR sets another
    folder, and JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.

    Args:
      devices: the number of devices that the CPU is split into; one per core unless given.

    Raises:
      UserError: there are more devices than any machine has cores.
    """
    if devices is not None and devices > _MOST_DEVICES:
        raise UserError(f"devices={devices}: must be at most {_MOST_DEVICES}")
    config: Any = jax.config  # its options are declared at run time
    if config.jax_compilation_cache_dir is None:
        folder = str(user_cache_path("es-rl", appauthor=False) / "compiled")
        config.update("jax_compilation_cache_dir", folder)
        config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # Run programs in the calling thread: for the small programs that compute actions for host
    # environments, a handover to another thread takes as long as the program (32 lanes of Pendulum:
    # 30,000 steps/s instead of 40,000).
    config.update("jax_cpu_enable_async_dispatch", False)
    chosen = config.jax_num_cpu_devices > 0
    chosen = chosen or _OWN_CHOICE in os.environ.get("XLA_FLAGS", "")
    if devices is not None or not chosen:
        # If a notebook calls a command, JAX may have started already; it then keeps its devices.
        with contextlib.suppress(RuntimeError):
            use_cpu_devices(devices)


def import_modules(modules: Sequence[str], env_id: str = "") -> None:
    """Import modules that register environments or agents; they may be in the working directory.

    If no module is named, that directory is not added to the path. Its files may be untrusted, and
    libraries try to import optional packages, which a file there could replace.

    Args:
      modules: the names of the modules, as typed by the user.
      env_id: the id of an environment, if typed by the user; it may name a module.

    Raises:
      UserError: a module cannot be imported.
    """
    if not modules and split_id(env_id)[0] is None:
        return
    here = os.getcwd()
    if here not in sys.path:  # a console script's path does not contain it
        sys.path.append(here)
    for module in modules:
        try:
            envs.import_module(module)
        except UserError as error:
            raise UserError(f"{error}{_hidden(here, error.__cause__)}") from error.__cause__


def _hidden(here: str, error: BaseException | None) -> str:
    """Advice if a module of the user's needs a package that has the name of one of ours."""
    name = (isinstance(error, ImportError) and error.name or "").split(".")[0]
    folder = Path(here, name)
    if name not in ("agents", "envs", "es_rl", "experiments") or not folder.is_dir():
        return ""
    return f"; {folder} has the name of a package of es-rl, which comes first: rename it"


def machine() -> dict[str, str]:
    """The machine: facts that are saved with measurements."""
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
