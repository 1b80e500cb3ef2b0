"""Host environments in worker processes, over shared memory."""

import json
import logging
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NoReturn

import cloudpickle
import gymnasium
import numpy as np

from envs.base import EnvSpec, Received
from envs.errors import UserError, environment_error
from envs.host import worker
from envs.host.interface import Interface
from envs.host.worker import Fault

START_SECONDS = 120.0
"""The seconds that a worker may take to start, imports included, or to make an environment."""
_PATIENCE_SECONDS = 10.0
"""The seconds between two warnings while the pool waits for an environment to be made."""
_CLOSE_SECONDS = 2.0
"""The seconds that a worker may take to close its environments."""
_STARTS_IN_VAIN = 3
"""A worker that ends this often in a row, outside any environment, is not started again."""
_TURNS_TIMED = 64
"""The number of turns that are timed before the pool decides how many workers to use."""

_log = logging.getLogger("es_rl")


class WorkerPool:
    """A `LanePool` (see `envs.base`) that is spread over worker processes.

    A worker is replaced if its environment raises, if it ends, or if it stops making progress; its
    lanes are reported as lost. Workers end with the process that made them, however it ends.

    If environments step in microseconds, waking another worker costs more time than it saves. With
    `or_fewer` the pool times its first turns, and then uses only so many workers that each works as
    long per turn as the caller. Lanes of unused workers move when their next episodes start.
    """

    def __init__(
        self,
        spec: EnvSpec,
        make: Callable[[], gymnasium.Env],
        *,
        count: int,
        busy: int | None = None,
        workers: int,
        or_fewer: bool,
        step_timeout: float,
        start_timeout: float = START_SECONDS,
        imports: Sequence[str] = (),
    ):
        """Start the workers. The pool waits for each of them when it is first needed.

        Args:
          spec: the description of the environment.
          make: builds one environment. It is pickled, so it should not refer to slow imports.
          count: the number of lanes.
          busy: the most lanes that are used at the same time; all of them unless given.
          workers: the number of worker processes; at most `busy` of them are started.
          or_fewer: whether to use fewer workers if that is faster.
          step_timeout: the seconds after which a step or reset counts as hanging.
          start_timeout: the seconds that a worker may take to start, or to make an environment.
          imports: the modules that a worker imports first.

        Raises:
          UserError: `make` cannot be pickled.
        """
        returned = spec.raw_observation_space or spec.observation_space
        try:
            self._pickled = cloudpickle.dumps((make, Interface(returned, spec.info_keys)))
        except Exception as error:
            raise UserError(f"env={spec.id!r}: cannot be sent to a worker: {error}") from error
        self.count, self.busy, self.begun = count, busy or count, 0
        self._id = spec.id
        self._timeout, self._start_timeout = step_timeout, start_timeout
        self._imports = list(imports)
        workers = min(workers, self.busy)
        self._layout, self._size = _layout(spec, count, workers)
        self._file = _anonymous_file(self._size)
        self._shared = worker.arrays(mmap.mmap(self._file, self._size), self._layout)
        self._shared["owner"][:] = np.arange(count) % workers
        self._used = workers
        self._received: tuple[float, float] | None = None
        """The time of the last `receive`, and the seconds that all workers together worked."""
        self._turns: list[tuple[float, float]] | None = [] if or_fewer and workers > 1 else None
        """(caller's seconds, workers' seconds) of each timed turn; None once timing has ended."""
        self._lost = np.zeros(count, bool)
        self._faults: dict[int, Fault] = {}
        self._workers = [_Process(number) for number in range(workers)]
        self._finalizer = weakref.finalize(self, _end, self._workers, os.getpid(), self._file)
        for process in self._workers:
            self._start(process)

    def begin(self) -> None:
        self.begun += 1
        for process in self._workers:
            if process.asked:  # an interrupted rollout has left requests unanswered
                self._replace(process)
        self._lost[:] = False
        self._faults.clear()

    def send(
        self, span: slice, command: np.ndarray, seeds: np.ndarray, actions: np.ndarray | None
    ) -> None:
        shared, lost = self._shared, self._lost[span]
        lost &= command != worker.RESET
        command = np.where(lost, worker.IDLE, command)
        owner = shared["owner"][span]
        if self._used < len(self._workers):
            # Only lanes that are reset may move: the others need the environment of their episode.
            moved = (command == worker.RESET) & (owner >= self._used)
            owner[moved] = np.arange(span.start, span.stop)[moved] % self._used
        shared["command"][span] = command
        shared["seed"][span] = seeds
        if actions is not None:
            shared["action"][span] = actions
        request = worker.SPAN.pack(span.start, span.stop)
        for number in set(owner[command != worker.IDLE].tolist()):
            process = self._workers[number]
            if not process.ready:
                self._wait_until_ready(process)
            process.asked.append(span)
            # `receive` notices a worker that has ended.
            with suppress(ConnectionError):
                process.connection.sendall(request)
        # Turns in which less than a quarter of the lanes play are not representative.
        timed = self._turns is not None and 4 * np.count_nonzero(command) >= len(command)
        if timed and self._turns is not None and self._received is not None:
            self._note_turn(self._turns, *self._received)

    def receive(self, span: slice) -> Received:
        shared, taken = self._shared, 0.0
        for process in self._workers:
            while span in process.asked:
                self._receive_from(process)
                taken += float(shared["seconds"][process.number])
        self._received = time.perf_counter(), taken
        lost = self._lost[span].copy()
        self._lost[span] = False
        lanes = [lane for lane in self._faults if span.start <= lane < span.stop]
        faults = {lane: self._faults.pop(lane) for lane in lanes}
        terminated, truncated = shared["ended"][span].T.astype(bool)
        return Received(
            shared["obs"][span],  # no copy: images are large
            shared["reward"][span].copy(),
            terminated,
            truncated & ~terminated,
            shared["info"][span].copy(),
            lost,
            faults,
        )

    def _note_turn(
        self, turns: list[tuple[float, float]], received_at: float, workers: float
    ) -> None:
        turns.append((time.perf_counter() - received_at, workers))
        if len(turns) == _TURNS_TIMED:
            # A low quantile, not the mean: in some turns the caller also updates a policy, or the
            # processes compete for too few cores.
            own, theirs = np.quantile(turns, 0.25, axis=0)
            self._used = min(max(int(theirs / own), 1), len(self._workers))
            self._turns = None

    def close(self) -> None:
        """End the workers. The pool cannot be used afterwards."""
        self._finalizer()

    @property
    def pids(self) -> list[int]:
        """The process id of each worker."""
        return [process.popen.pid for process in self._workers]

    def _start(self, process: "_Process") -> None:
        setup = {
            # Leave out entries of other types, which Python ignores as well.
            "path": [os.fsdecode(p) for p in sys.path if isinstance(p, str | bytes | os.PathLike)],
            "imports": self._imports,
            "make_size": len(self._pickled),
            "memory": self._file,
            "memory_size": self._size,
            "arrays": self._layout,
            "number": process.number,
        }
        self._shared["at"][process.number] = -1
        self._shared["making"][process.number] = 1
        process.start(setup, self._file, self._pickled)

    def _wait_until_ready(self, process: "_Process") -> None:
        answer = self._answer(process)
        if answer != worker.READY:
            self._give_up(process, answer, "a worker could not start")
        process.ready = True

    def _answer(self, process: "_Process") -> bytes | None:
        """Wait for a worker's answer; None if it makes no progress for too long.

        A worker makes progress when it moves on to another lane or has made an environment.
        """
        number, seen, since = process.number, None, time.monotonic()
        while True:
            sign = int(self._shared["at"][number]), int(self._shared["making"][number])
            if sign != seen:
                seen, since = sign, time.monotonic()
            making = bool(sign[1])
            limit = self._start_timeout if making else self._timeout
            waited = time.monotonic() - since
            if waited >= limit:
                return None
            answer = process.answer(min(limit - waited, _PATIENCE_SECONDS))
            if answer is not None:
                return answer
            if making:
                _log.warning(
                    "%s: an environment is being made for %.0f s (at most %g: start_timeout)",
                    *(self._id, time.monotonic() - since, limit),
                )

    def _receive_from(self, process: "_Process") -> None:
        """Wait for a worker to answer its oldest request, or replace it if it failed."""
        answer = self._answer(process)
        if answer == worker.DONE:
            process.asked.popleft()
            process.starts_in_vain = 0
            return
        making = self._shared["making"][process.number] and answer in (None, worker.FAILED)
        if answer == worker.REFUSED or making:
            self._give_up(process, answer, "an environment could not be made")
        fault = process.fault(answer, self._timeout)
        lane = int(self._shared["at"][process.number])
        if lane >= 0:
            self._faults[lane] = fault
        else:
            process.starts_in_vain += 1
        if process.starts_in_vain == _STARTS_IN_VAIN:
            message = f"{self._id}: a worker ended again and again"
            raise environment_error(message, fault)
        self._replace(process)

    def _give_up(self, process: "_Process", answer: bytes | None, what: str) -> NoReturn:
        """Raise the error of a failure that a new worker would repeat."""
        fault = process.fault(answer, self._start_timeout)
        process.kill()
        if answer == worker.REFUSED:
            raise UserError(f"{self._id}: {fault.reason}")
        if answer is None:
            raise UserError(
                f"start_timeout={self._start_timeout:g}: {self._id} takes longer to start: must "
                "be more seconds"
            )
        raise environment_error(f"{self._id}: {what}", fault)

    def _replace(self, process: "_Process") -> None:
        process.kill()
        self._lost[self._shared["owner"] == process.number] = True
        self._start(process)


class _Process:
    """The parent's handle of one worker process."""

    popen: subprocess.Popen
    connection: socket.socket
    life: BinaryIO
    """The write end of a pipe. The worker ends when this end is closed."""

    def __init__(self, number: int):
        self.number = number
        self.asked: deque[slice] = deque()
        """The requests that the worker has not answered yet, oldest first."""
        self.ready = False
        self.starts_in_vain = 0

    def start(self, setup: dict[str, Any], memory: int, pickled: bytes) -> None:
        self.asked.clear()
        self.ready = False
        self.connection, theirs = socket.socketpair()
        end_of_life, life = os.pipe()
        self.life = os.fdopen(life, "wb", buffering=0)
        inherited = theirs.fileno(), end_of_life, memory
        # One thread per worker, as there is one worker per core. Simulators get no accelerator.
        single = {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        self.popen = subprocess.Popen(
            # -P: do not search the script's folder for modules.
            [sys.executable, "-P", worker.__file__, *map(str, inherited[:2])],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what environments print must not mix with the output of the command
            pass_fds=inherited,
            env={**os.environ, **single},
            start_new_session=True,  # Ctrl-C reaches the parent only, which handles it
        )
        theirs.close()
        os.close(end_of_life)
        described = json.dumps(setup).encode()
        message = worker.LENGTH.pack(len(described)) + described + pickled
        with suppress(ConnectionError):
            self.connection.sendall(message)

    def answer(self, seconds: float) -> bytes | None:
        """Wait so long for one byte; b"" if the worker has ended, None if nothing came."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if not poll.poll(min(seconds * 1000, 2**31 - 1)):  # the most milliseconds that poll takes
            return None
        try:
            return self.connection.recv(1)
        except ConnectionError:
            return b""

    def fault(self, answer: bytes | None, seconds: float) -> Fault:
        """Describe the failure behind an answer other than READY and DONE."""
        if answer is None:
            return Fault(f"no sign of life for {seconds:g} s")
        if answer in (worker.FAILED, worker.REFUSED):
            with suppress(EOFError, ConnectionError):
                (size,) = worker.LENGTH.unpack(worker.read(self.connection, worker.LENGTH.size))
                return Fault(*json.loads(worker.read(self.connection, size)))
        try:
            code = self.popen.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return Fault("the worker closed its connection")
        if code < 0:
            return Fault(f"the worker was killed by {signal.Signals(-code).name}")
        return Fault(f"the worker exited with code {code}")

    def kill(self) -> None:
        """End the worker and all processes that it started; does nothing if it has ended."""
        if self.popen.returncode is None:  # otherwise its id may belong to another process by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        self.connection.close()
        self.life.close()


def _end(workers: list[_Process], owner: int, memory: int) -> None:
    """Let workers close their environments and end; kill those that do not."""
    if os.getpid() != owner:  # a forked child that exits must not end its parent's workers
        return
    for process in workers:
        with suppress(OSError):
            process.connection.shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + _CLOSE_SECONDS
    for process in workers:
        with suppress(subprocess.TimeoutExpired):
            process.popen.wait(max(0.0, deadline - time.monotonic()))
        process.kill()
    os.close(memory)


def _layout(spec: EnvSpec, count: int, workers: int) -> tuple[dict[str, Any], int]:
    """Return the arrays of the shared memory (see `worker.arrays`) and its size in bytes."""
    layout, offset = {}, 0
    obs, action = spec.observation_space, spec.action_space
    for name, dtype, shape in (
        ("command", np.uint8, ()),
        ("seed", np.int64, ()),
        ("action", action.dtype, action.shape),
        ("obs", obs.dtype, obs.shape),
        ("reward", np.float64, ()),
        ("ended", np.uint8, (2,)),
        ("info", np.float32, (1 + len(spec.info_keys),)),  # success first
        ("owner", np.int32, ()),  # the number of the worker that steps the lane
        ("at", np.int64, ()),  # per worker: the lane that it steps at present, -1 for none
        ("making", np.uint8, ()),  # per worker: whether it is making an environment
        ("seconds", np.float64, ()),  # per worker: the duration of its last turn
    ):
        whole = ((workers if name in ("at", "making", "seconds") else count), *(shape or ()))
        layout[name] = [np.dtype(dtype).str, whole, offset]
        size = int(np.prod(whole)) * np.dtype(dtype).itemsize
        offset += -(-size // 64) * 64  # no two arrays share a cache line
    return layout, offset


def _anonymous_file(size: int) -> int:
    """Return a file descriptor of memory that is freed once no process holds it."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("es-rl-lanes")
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    os.ftruncate(number, size)
    return number
