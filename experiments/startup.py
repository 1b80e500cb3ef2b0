"""What the commands set before JAX starts."""

import ast
import contextlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from platformdirs import user_cache_path

import envs
from envs.base import Env, HostEnv
from envs.errors import UserError
from envs.registry import split_id
from envs.values import is_json, plain
from es_rl import processes
from es_rl.devices import use_cpu_devices

_MOST_DEVICES = 1024
"""Of a CPU: JAX would make as many as it is told."""
_OWN_CHOICE = "xla_force_host_platform_device_count"


def start_jax(devices: int | None = None) -> None:
    """Use every core of a CPU, and keep what is compiled for the next start.

    Compiled programs go to the user's cache folder; JAX_COMPILATION_CACHE_DIR names another one,
    and JAX_ENABLE_COMPILATION_CACHE=false keeps none.

    Args:
      devices: how many devices to make of the CPU; one per core unless given.

    Raises:
      UserError: these are more than any machine has cores.
    """
    if devices is not None and devices > _MOST_DEVICES:
        raise UserError(f"devices={devices}: must be at most {_MOST_DEVICES}")
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


@dataclass(frozen=True, kw_only=True)
class ProcessFlags:
    """How one of several processes finds the others."""

    distributed: bool = False
    """Join the other processes of the job, which SLURM, Kubernetes, Open MPI or a TPU pod names."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where nobody names them; with --num-processes and --process-id."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which one this is, from 0."""
    heartbeat_seconds: int = processes.HEARTBEAT_SECONDS
    """After so long a silent process counts as gone, and the others end."""
    start_seconds: int = processes.START_SECONDS
    """How long to wait for the others at the start."""

    def check(self) -> None:
        """Refuse what cannot be, before any work is done.

        Raises:
          UserError: a flag is out of range, or lacks another one.
        """
        for name in ("heartbeat_seconds", "start_seconds", "num_processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        if self.coordinator is not None and not re.fullmatch(r".+:\d{1,5}", self.coordinator):
            raise UserError(f"coordinator={self.coordinator}: must be HOST:PORT")
        if self.process_id is not None:
            count = self.num_processes
            if self.process_id < 0 or (count is not None and self.process_id >= count):
                accepted = "at least 0" if count is None else f"from 0 to {count - 1}"
                raise UserError(f"process_id={self.process_id}: must be {accepted}")
        triple = ("coordinator", "num_processes", "process_id")
        given = [name for name in triple if getattr(self, name) is not None]
        if self.distributed and given:
            raise UserError(f"distributed=True: finds out itself, so no --{_dashed(given[0])}")
        if 0 < len(given) < len(triple):
            missing = " and ".join(f"--{_dashed(name)}" for name in triple if name not in given)
            raise UserError(f"{given[0]}={getattr(self, given[0])}: must come with {missing}")

    def join(self) -> None:
        """Wait for the other processes, if there are any; before JAX starts."""
        if not self.distributed and self.coordinator is None:
            return
        # What carries numbers between CPUs, Gloo, prints beneath Python.
        sys.stdout.flush()
        own, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        sys.stdout = os.fdopen(own, "w", buffering=1)
        processes.start(
            self.coordinator,
            self.num_processes,
            self.process_id,
            heartbeat_seconds=self.heartbeat_seconds,
            start_seconds=self.start_seconds,
        )


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def import_modules(modules: Sequence[str], env_id: str = "") -> None:
    """Import modules that register environments or agents, from the working directory too.

    Where no module is named, that directory stays off the path: it may be a stranger's, and
    libraries try to import others that are not installed.

    Args:
      modules: their names, as a person typed them.
      env_id: of an environment, if a person typed it: it may name a module.

    Raises:
      UserError: one of them cannot be imported.
    """
    if not modules and split_id(env_id)[0] is None:
        return
    here = os.getcwd()
    if here not in sys.path:  # a console script does not have it
        sys.path.append(here)
    for module in modules:
        try:
            envs.import_module(module)
        except UserError as error:
            raise UserError(f"{error}{_hidden(here, error.__cause__)}") from error.__cause__


def _hidden(here: str, error: BaseException | None) -> str:
    """What to do where a module of the user's needs a package that has the name of one of ours."""
    name = (isinstance(error, ImportError) and error.name or "").split(".")[0]
    folder = Path(here, name)
    if name not in ("agents", "envs", "es_rl", "experiments") or not folder.is_dir():
        return ""
    return f"; {folder} has the name of a package of es-rl, which comes first: rename it"


def env_kwargs(pairs: Iterable[str], taken: Iterable[str] = ()) -> dict[str, Any]:
    """What `--env-kwargs` says: name=value pairs, the values Python's or JSON, or else text.

    Args:
      pairs: as they were typed.
      taken: names that other flags have given already.

    Raises:
      UserError: a pair has no name, or a name comes twice.
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"env_kwargs={pair}: must be name=value")
        if name in kwargs or name in taken:
            raise UserError(f"env_kwargs={pair}: {name} is given twice")
        kwargs[name] = _value(value)
    return kwargs


def make_env(env_id: str, chosen: dict[str, Any], pairs: Iterable[str]) -> Env | HostEnv:
    """Make an environment with the arguments that flags say.

    Args:
      env_id: of the environment.
      chosen: arguments that have flags of their own.
      pairs: what `--env-kwargs` says.

    Raises:
      UserError: the environment or an argument is wrong; the message names the flag.
    """
    kwargs = env_kwargs(pairs, chosen)
    try:
        return envs.make(env_id, **chosen, **kwargs)
    except UserError as error:
        if str(error).partition("=")[0] in kwargs:
            raise UserError(f"env_kwargs={error}") from error
        raise


def _value(text: str) -> Any:
    """What Python takes the text for, or else JSON (true, null), or else the text itself."""
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = plain(read(text))
            if is_json(value):
                return value
    return text


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
