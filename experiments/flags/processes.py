"""Flags of a run in several processes."""

import os
import re
import sys
from dataclasses import dataclass

from envs.errors import UserError
from es_rl import processes
from experiments.flags.parsing import dashed


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
            raise UserError(f"distributed=True: finds out itself, so no --{dashed(given[0])}")
        if 0 < len(given) < len(triple):
            missing = " and ".join(f"--{dashed(name)}" for name in triple if name not in given)
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
