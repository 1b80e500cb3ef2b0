"""What a worker process runs: it steps its share of the lanes of a `WorkerPool`.

Run as a script, not imported, so that a worker starts without JAX and without the caller's
`__main__`. It reads requests from a socket and works on arrays in shared memory; see `pool.py`.
"""

import fcntl
import importlib
import json
import mmap
import os
import signal
import socket
import struct
import sys
import time
from typing import Any

import numpy as np

IDLE, STEP, RESET = 0, 1, 2
"""What a lane is to do next."""

READY, DONE, FAILED = b"r", b"d", b"f"
"""What a worker answers; FAILED is followed by the length and the text of a reason."""

SPAN = struct.Struct("<II")
"""A request: the lanes from the first number up to the second, as far as they are this worker's."""

LENGTH = struct.Struct("<I")


def arrays(memory: mmap.mmap, layout: dict[str, Any]) -> dict[str, np.ndarray]:
    """The named arrays of a shared memory: name -> [dtype, shape, offset]."""
    return {
        name: np.ndarray(tuple(shape), dtype, memory, offset)
        for name, (dtype, shape, offset) in layout.items()
    }


def read(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes.

    Raises:
      EOFError: the other side is gone.
    """
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _die_with_parent(life: int) -> None:
    # The kernel signals the end of the pipe that only the parent holds open, and SIGIO kills: even
    # a worker that hangs inside an environment's C code, and even when the parent was killed.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(life, 1) == b"":
            os._exit(0)
    except BlockingIOError:
        pass  # nothing to read, and somebody there: the parent lives


def main() -> None:
    control, life = int(sys.argv[1]), int(sys.argv[2])
    _die_with_parent(life)
    connection = socket.socket(fileno=control)
    setup = json.loads(read(connection, LENGTH.unpack(read(connection, LENGTH.size))[0]))
    pickled = read(connection, setup["make_size"])
    sys.path[:] = setup["path"]
    memory = mmap.mmap(setup["memory"], setup["memory_size"])
    try:
        import cloudpickle

        for module in setup["imports"]:
            importlib.import_module(module)
        make = cloudpickle.loads(pickled)
        worker = _Worker(make, arrays(memory, setup["arrays"]), setup["number"])
    except Exception as error:
        _fail(connection, error)
        return
    try:
        connection.sendall(READY)
        while True:
            first, last = SPAN.unpack(read(connection, SPAN.size))
            try:
                worker.step(first, last)
            except Exception as error:
                _fail(connection, error)
                return
            connection.sendall(DONE)
    except (EOFError, ConnectionError):
        worker.close()


def _fail(connection: socket.socket, error: Exception) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split()).encode()
    connection.sendall(FAILED + LENGTH.pack(len(reason)) + reason)


class _Worker:
    """The environments of the lanes whose owner it is."""

    def __init__(self, make: Any, shared: dict[str, np.ndarray], number: int):
        self._make = make
        self._shared = shared
        self._number = number
        self._at = shared["at"].data
        # One at once, so that one that cannot be made is known before it is needed.
        self._spare = [self._new()]
        self._envs: dict[int, Any] = {}
        space = self._spare[0].action_space
        # A Python int for Discrete; the row itself, which has the space's shape and dtype, else.
        self._discrete = space.shape == () and np.issubdtype(space.dtype, np.integer)

    def step(self, first: int, last: int) -> None:
        began = time.perf_counter()
        shared, at, envs = self._shared, self._at, self._envs
        mine = first + np.flatnonzero(shared["owner"][first:last] == self._number)
        commands = shared["command"][mine].tolist()
        actions = shared["action"][mine]
        if self._discrete:
            actions = actions.tolist()
        obs = shared["obs"]
        # What is small goes into the shared arrays at once: writing a number costs as much as
        # writing a few dozen.
        rewards, ends = [0.0] * len(commands), [(False, False)] * len(commands)
        for i, (lane, command) in enumerate(zip(mine.tolist(), commands, strict=True)):
            if command == IDLE:
                continue
            at[self._number] = lane
            if command == STEP:
                value, rewards[i], terminated, truncated, _ = envs[lane].step(actions[i])
                ends[i] = terminated, truncated
            else:
                if lane not in envs:
                    envs[lane] = self._spare.pop() if self._spare else self._new()
                value, _ = envs[lane].reset(seed=int(shared["seed"][lane]))
            obs[lane] = value
        shared["reward"][mine] = rewards
        shared["ended"][mine] = ends
        at[self._number] = -1
        shared["seconds"][self._number] = time.perf_counter() - began

    def _new(self) -> Any:
        # The process that made the pool has made one before, and shown what that had to say.
        shown = os.dup(2)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            return self._make()
        finally:
            os.dup2(shown, 2)
            os.close(shown)

    def close(self) -> None:
        for env in [*self._envs.values(), *self._spare]:
            env.close()


if __name__ == "__main__":
    main()
