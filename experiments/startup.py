"""Settings of JAX, processes and environments that the commands share, and their flags."""

import ast
import contextlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
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


@dataclass(frozen=True, kw_only=True)
class ProcessFlags:
    """Flags with which one of several processes finds the others."""

    distributed: bool = False
    """Join the other processes of a job of SLURM, Kubernetes, Open MPI or a TPU pod."""
    coordinator: str | None = None
    """HOST:PORT of process 0, if --distributed cannot find it; with --num-processes and
    --process-id."""
    num_processes: int | None = None
    """The number of processes."""
    process_id: int | None = None
    """The number of this process, counted from 0."""
    heartbeat_seconds: int = processes.HEARTBEAT_SECONDS
    """Seconds without a message after which a process counts as lost, and the others end."""
    start_seconds: int = processes.START_SECONDS
    """Seconds to wait for the other processes at the start."""

    def check(self) -> None:
        """Refuse invalid combinations of flags, before any work is done.

        Raises:
          UserError: a flag is out of range, or a flag that it needs is missing.
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
        """Wait for the other processes, if there are any; call it before JAX starts."""
        if not self.distributed and self.coordinator is None:
            return
        # Gloo, the library that connects CPUs, prints to the file descriptor directly.
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


def env_kwargs(
    pairs: Iterable[str], taken: Iterable[str] = (), flag: str = "env_kwargs"
) -> dict[str, Any]:
    """Parse `--env-kwargs`, or a flag like it: name=value pairs, whose values are Python or JSON
    literals, or else text.

    Args:
      pairs: the pairs as typed by the user.
      taken: names that other flags set already.
      flag: the name of the flag, for messages.

    Raises:
      UserError: a pair has no name, or a name comes twice.
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"{flag}={pair}: must be name=value")
        if name in kwargs or name in taken:
            raise UserError(f"{flag}={pair}: {name} is given twice")
        kwargs[name] = _value(value)
    return kwargs


def make_env(env_id: str, chosen: dict[str, Any], pairs: Iterable[str]) -> Env | HostEnv:
    """Make an environment with the arguments from flags.

    Args:
      env_id: the id of the environment.
      chosen: arguments that have flags of their own.
      pairs: the values of `--env-kwargs`.

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


def make_envs(
    env_id: str, chosen: dict[str, Any], pairs: Iterable[str], train_pairs: Sequence[str]
) -> tuple[Env | HostEnv, Env | HostEnv | None]:
    """Make an environment, and that of training if it has arguments of its own.

    Args:
      env_id: the id of the environment.
      chosen: arguments of both that have flags of their own.
      pairs: the values of `--env-kwargs`.
      train_pairs: the values of `--train-env-kwargs`.

    Raises:
      UserError: the environment or an argument is wrong; the message names the flag.
    """
    env = make_env(env_id, chosen, pairs)
    own = env_kwargs(train_pairs, flag="train_env_kwargs")
    if not own:
        return env, None
    with blamed_on(given_for_training(train_pairs)):
        return env, envs.make(env_id, **{**chosen, **env_kwargs(pairs), **own})


def given_for_training(train_pairs: Sequence[str]) -> str:
    """The flag `--train-env-kwargs` with its values, for `blamed_on`."""
    return f"train_env_kwargs={' '.join(train_pairs)}"


@contextlib.contextmanager
def blamed_on(given: str, beginning: str = "") -> Iterator[None]:
    """Let errors about the environment of training say what gave it its arguments.

    Args:
      given: the start of their message: a flag with its value, or a file.
      beginning: errors whose message does not begin like this are left as they are.
    """
    try:
        yield
    except UserError as error:
        said = str(error)
        if not said.startswith(beginning):
            raise
        name, _, rest = said.partition("=")
        if name in ("env", "train_env", "env_kwargs"):  # no flag that was given has these names
            said = rest.partition(": ")[2]
        raise UserError(f"{given}: {said}") from error


def _value(text: str) -> Any:
    """The value of the text as a Python literal, or else as JSON (true, null), or else the text
    itself."""
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = plain(read(text))
            if is_json(value):
                return value
    return text


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
