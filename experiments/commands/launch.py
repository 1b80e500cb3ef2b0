"""`es-rl launch`: several processes on this machine, as they would run on a cluster."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, Annotated, Any

import tyro

from envs.errors import UserError
from experiments.flags.parsing import parse


@dataclass(frozen=True)
class LaunchFlags:
    """Run a command in several processes on this machine, which share its cores.

    Example: es-rl launch -n 4 -- train brax/ant. All that follows -- is the command.
    """

    num_processes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 2
    """How many processes."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    flags: LaunchFlags = parse("launch", LaunchFlags, arguments[:split])
    count, command = flags.num_processes, arguments[split + 1 :]
    if count < 1:
        raise UserError(f"num_processes={count}: must be at least 1")
    if not command or command[0] != "train":
        raise UserError(
            f"command={' '.join(command)}: must be a train command after --, as in "
            "es-rl launch -n 4 -- train brax/ant"
        )
    here = [
        sys.executable,
        "-P",
        "-m",
        "experiments.cli",
        *command,
        "--coordinator",
        free_address(),
    ]
    here += ["--num-processes", str(count)]
    # The output of process 0 is shown. The errors of another process are shown if its exit code
    # differs from that of process 0.
    said: list[IO[Any]] = [tempfile.TemporaryFile() for _ in range(1, count)]  # noqa: SIM115
    running: list[subprocess.Popen] = []
    received: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        received.append(number)
        for process in running:
            process.send_signal(number)

    # The processes are in sessions of their own, where no terminal reaches them.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # not every system has SIGHUP
            signal.signal(getattr(signal, name), pass_on)
    for number, error in enumerate([None, *said]):
        running.append(_start([*here, "--process-id", str(number)], _cores(number, count), error))
        if received:  # perhaps before this process was in the list
            running[-1].send_signal(received[-1])
            break
    codes = [process.wait() for process in running]
    for number, (code, error) in enumerate(zip(codes[1:], said, strict=False), 1):
        error.seek(0)
        for line in error.read().decode(errors="replace").splitlines() if code != codes[0] else ():
            print(f"process {number}: {line}", file=sys.stderr)
    # The return code of a process that signal n ended is -n here, and 128 + n in a shell.
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


def free_address() -> str:
    """A free address (host:port) on this machine for a coordinator."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def _start(command: list[str], cores: set[int], error: IO[Any] | None) -> subprocess.Popen:
    options: dict[str, Any] = {
        "stderr": error,
        "start_new_session": True,  # so that only this process forwards Ctrl-C
        "env": {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},  # show only errors of the runtime
    }
    if not hasattr(os, "sched_setaffinity"):
        return subprocess.Popen(command, **options)
    everywhere = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)  # a new process inherits it
        return subprocess.Popen(command, **options)
    finally:
        os.sched_setaffinity(0, everywhere)


def _cores(number: int, count: int) -> set[int]:
    """The cores of one process: equally many per process, and not shared if there are enough."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    every = sorted(os.sched_getaffinity(0))
    share = max(len(every) // count, 1)
    return {every[(number * share + i) % len(every)] for i in range(share)}
