"""The program of a worker process, which steps its share of the lanes of a `WorkerPool`.

It is run as a script and not imported, so that a worker starts without JAX and without the caller's
`__main__`. It reads requests from a socket and works on arrays in shared memory; see `pool.py`.
"""

import fcntl
import importlib
import inspect
import json
import mmap
import os
import signal
import socket
import struct
import sys
import sysconfig
import time
import traceback
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

IDLE, STEP, RESET = 0, 1, 2
"""The commands for a lane."""

READY, DONE, FAILED, REFUSED = b"r", b"d", b"f", b"x"
"""The answers of a worker. FAILED means that the environment raised an exception, REFUSED that it
violates Gymnasium's interface. Both are followed by the length of a `Fault` in JSON, and that
JSON."""

SPAN = struct.Struct("<II")
"""A request (first, last): process those of the lanes first ... last - 1 that the worker owns."""

LENGTH = struct.Struct("<I")
"""The length in bytes of the message that follows."""


class Fault(NamedTuple):
    """A failure of an environment or of the worker process that steps it."""

    reason: str
    """The reason, in one line."""
    traceback: str = ""
    """The traceback as Python prints it; empty if there was no exception."""
    place: str = ""
    """The file:line of the innermost frame that is not in an installed package."""

    def __str__(self) -> str:
        return f"{self.reason} ({self.place})" if self.place else self.reason


class InterfaceError(Exception):
    """An environment returned something that violates Gymnasium's interface or its own spaces."""


def arrays(memory: mmap.mmap, layout: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the named arrays of a shared memory, from a layout name -> [dtype, shape, offset]."""
    return {
        name: np.ndarray(tuple(shape), dtype, memory, offset)
        for name, (dtype, shape, offset) in layout.items()
    }


def read(connection: socket.socket, size: int) -> bytes:
    """Read exactly `size` bytes.

    Raises:
      EOFError: the other side has closed the connection.
    """
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _die_with_parent(life: int) -> None:
    # Only the parent holds the other end of this pipe. When it closes, even because the parent was
    # killed, the kernel sends SIGIO, which kills the worker even inside an environment's C code.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(life, 1) == b"":
            os._exit(0)
    except BlockingIOError:
        pass  # the pipe is empty but open: the parent is alive


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
        make, interface = cloudpickle.loads(pickled)
        worker = _Worker(make, interface, arrays(memory, setup["arrays"]), setup["number"])
    except Exception as error:
        _report(connection, error)
        return
    try:
        connection.sendall(READY)
        while True:
            first, last = SPAN.unpack(read(connection, SPAN.size))
            try:
                worker.step(first, last)
            except Exception as error:
                _report(connection, error)
                return
            connection.sendall(DONE)
    except (EOFError, ConnectionError):
        worker.close()


def _report(connection: socket.socket, error: Exception) -> None:
    if isinstance(error, InterfaceError):
        kind, fault = REFUSED, Fault(str(error))
    else:
        kind, fault = FAILED, fault_of(error)
    described = json.dumps(fault).encode()
    connection.sendall(kind + LENGTH.pack(len(described)) + described)


def fault_of(error: BaseException) -> Fault:
    """Describe an exception for the parent process."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    own = [f for f in frames if not f.filename.startswith((*installed, __file__, "<"))]
    place = "".join(f"{frame.filename}:{frame.lineno}" for frame in (own or frames)[-1:])
    return Fault(reason, "".join(traceback.format_exception(error)), place)


class _Worker:
    """The environments of the lanes that this worker process owns."""

    def __init__(self, make: Any, interface: Any, shared: dict[str, np.ndarray], number: int):
        self._make = make
        self._interface = interface  # an `Interface`; its class cannot be imported here
        self._shared = shared
        self._number = number
        self._at = shared["at"].data
        # Make one environment at once, to learn early if that fails. The first lane takes it, so
        # that there are never more environments than lanes.
        self._spare = [self._new()]
        self._envs: dict[int, Any] = {}
        self._new_lanes: set[int] = set()
        """The lanes whose environment has not stepped yet."""
        space = self._spare[0].action_space
        # Discrete actions are passed as Python ints, others as rows of the shared array.
        self._discrete = space.shape == () and np.issubdtype(space.dtype, np.integer)

    def step(self, first: int, last: int) -> None:
        began = time.perf_counter()
        shared, at, envs, new_lanes = self._shared, self._at, self._envs, self._new_lanes
        mine = first + np.flatnonzero(shared["owner"][first:last] == self._number)
        lanes, commands = mine.tolist(), shared["command"][mine].tolist()
        actions = shared["action"][mine]
        if self._discrete:
            actions = actions.tolist()
        obs = shared["obs"]
        ndarray = np.ndarray
        # NumPy would broadcast a too small observation over the row, so the size is checked. If
        # the size is right, assignment refuses wrong shapes, except for leading axes of length 1.
        # A scalar row accepts nothing but one number, so it needs no check.
        # A Dict or Tuple has no size, and is flattened first.
        nested, is_array = self._interface.nested, obs.ndim > 1
        size, convert = (-1, self._flat) if nested else (obs[0].size, self._array)
        # Small values are collected and written to the shared arrays together: one assignment per
        # number would cost as much as one for a few dozen.
        rewards, terminated = [0.0] * len(lanes), [False] * len(lanes)
        truncated = terminated.copy()
        infos: list[dict[str, Any]] = [{}] * len(lanes)
        for i, (lane, command) in enumerate(zip(lanes, commands, strict=True)):
            if command == IDLE:
                continue
            at[self._number] = lane
            if command == RESET:
                value = self._reset(lane)
            elif new_lanes and lane in new_lanes:
                returned = self._first_step(lane, actions[i])
                value, rewards[i], terminated[i], truncated[i], infos[i] = returned
            else:
                returned = envs[lane].step(actions[i])
                value, rewards[i], terminated[i], truncated[i], infos[i] = returned
            if is_array and (value.__class__ is not ndarray or value.size != size):
                value = convert(value, lane, "reset" if command == RESET else "step")
            obs[lane] = value
        try:
            # NumPy would convert None in a list to NaN; `array` raises a TypeError.
            shared["reward"][mine] = array("d", rewards)
            shared["ended"][mine, 0] = terminated
            shared["ended"][mine, 1] = truncated
        except (TypeError, ValueError):
            for lane, *outcome in zip(lanes, rewards, terminated, truncated, strict=True):
                if lane in envs:
                    self._check_outcome(lane, *outcome)
            raise
        if any(terminated) or any(truncated):
            ended = [i for i in range(len(lanes)) if terminated[i] or truncated[i]]
            shared["info"][mine[ended]] = [self._reported(infos[i], lanes[i]) for i in ended]
        at[self._number] = -1
        shared["seconds"][self._number] = time.perf_counter() - began

    def _reset(self, lane: int) -> Any:
        """Start an episode and return its first observation."""
        fresh = lane not in self._envs
        if fresh:
            self._envs[lane] = self._spare.pop() if self._spare else self._new()
            self._new_lanes.add(lane)
        env, seed = self._envs[lane], int(self._shared["seed"][lane])
        try:
            returned = env.reset(seed=seed)
        except (TypeError, ValueError):
            if fresh:
                self._find_malformed(lane, "reset", seed=seed)
            raise
        problem = self._interface.start(returned)
        if problem:
            self._find_malformed(lane, "reset", seed=seed)
            self._refuse(env, lane, "reset", problem)
        if fresh:
            self._check_observation(returned[0], lane, "reset")
        return returned[0]

    def _first_step(self, lane: int, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Step a lane for the first time, and check everything that is returned."""
        env = self._envs[lane]
        try:
            returned = env.step(action)
        except (TypeError, ValueError):
            self._find_malformed(lane, "step", action)
            raise
        problem = self._interface.outcome(returned)
        if problem:
            self._find_malformed(lane, "step", action)
            self._refuse(env, lane, "step", problem)
        value, reward, terminated, truncated, info = returned
        self._check_observation(value, lane, "step")
        self._check_outcome(lane, reward, terminated, truncated)
        self._new_lanes.remove(lane)
        return value, reward, terminated, truncated, info

    def _find_malformed(self, lane: int, call: str, *args: Any, **kwargs: Any) -> None:
        """Refuse the innermost layer whose return value violates Gymnasium's interface.

        The call is repeated on the environment itself, and then on each of its wrappers.
        """
        check = self._interface.start if call == "reset" else self._interface.outcome
        for layer in reversed(list(_layers(self._envs[lane]))):
            try:
                returned = getattr(layer, call)(*args, **kwargs)
            except Exception:
                return
            problem = check(returned)
            if problem:
                self._refuse(layer, lane, call, problem)

    def _flat(self, value: Any, lane: int, call: str) -> np.ndarray:
        """Flatten a Dict or Tuple observation to a vector."""
        try:
            flat = self._interface.flat(value)
        except Exception:
            self._check_observation(value, lane, call)
            raise
        if flat.size != self._shared["obs"][lane].size:
            self._check_observation(value, lane, call)
        return flat

    def _array(self, value: Any, lane: int, call: str) -> np.ndarray:
        """Convert an observation that is not an array of the right size, or else refuse it."""
        try:
            value = np.asarray(value)
            fits = value.size == self._shared["obs"][lane].size
        except ValueError:  # lists of different lengths
            fits = False
        if not fits:
            self._check_observation(value, lane, call)
        return value

    def _check_observation(self, value: Any, lane: int, call: str) -> None:
        problem = self._interface.observation(value, self._shared["obs"][lane])
        if problem:
            self._refuse(self._envs[lane].unwrapped, lane, call, problem)

    def _check_outcome(self, lane: int, reward: Any, terminated: Any, truncated: Any) -> None:
        problem = self._interface.values(reward, terminated, truncated)
        if problem:
            self._refuse(self._envs[lane].unwrapped, lane, "step", problem)

    def _reported(self, info: dict[str, Any], lane: int) -> list[float]:
        """What the info of an episode's last step says: success, then each scalar that is named."""
        reported = [_success(info)]
        for key in self._interface.info_keys:
            value = info.get(key)
            problem = value is not None and self._interface.scalar(key, value)
            if problem:
                self._refuse(self._envs[lane].unwrapped, lane, "step", problem)
            reported.append(float("nan") if value is None else float(value))
        return reported

    def _refuse(self, layer: Any, lane: int, call: str, problem: Any) -> NoReturn:
        """Raise an error that names the wrong value, the call, and the source of the method."""
        self._at[self._number] = lane
        seed = self._shared["seed"][lane]
        where = f"reset(seed={seed})"
        if call == "step":
            where = f"step {_steps(self._envs[lane])} of the episode with seed {seed}"
        told = f"returned {problem.found}: must be {problem.wanted}"
        raise InterfaceError(f"{where} {told}; {_place(layer, call)}")

    def _new(self) -> Any:
        # Hide what the constructor prints to stderr: the parent process has made an environment
        # before and has shown that output already.
        shown = os.dup(2)
        self._shared["making"][self._number] = 1
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            made = self._make()
        finally:
            os.dup2(shown, 2)
            os.close(shown)
        self._shared["making"][self._number] = 0
        return made

    def close(self) -> None:
        for env in [*self._envs.values(), *self._spare]:
            env.close()


def _success(info: dict[str, Any]) -> float:
    """Return 1 if the info of an episode's last step reports success, 0 for failure, else NaN.

    Stable-Baselines3 and Gymnasium-Robotics use the key "is_success", Meta-World "success".
    """
    reported = info.get("is_success", info.get("success"))
    try:
        return float("nan") if reported is None else float(bool(reported))
    except ValueError:  # an array of several numbers
        return float("nan")


def _layers(env: Any) -> Iterator[Any]:
    """Yield the wrappers of an environment from the outermost inwards, then the environment."""
    yield env
    while env is not env.unwrapped:
        env = env.env
        yield env


def _steps(env: Any) -> int:
    """Return the steps since the reset, at least 1, as Gymnasium's time limit has counted them.

    The time limit does not count a step that fails before it returns.
    """
    try:
        return max(1, int(env.get_wrapper_attr("_elapsed_steps") or 0))
    except AttributeError:
        return 1


def _place(layer: Any, call: str) -> str:
    """Return a text that says where a method of an environment is defined."""
    name = f"see {type(layer).__name__}.{call}"
    try:
        function = getattr(type(layer), call)
        return f"{name} ({inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]})"
    except (OSError, TypeError):  # the method is written in C, or its source is not available
        return name


if __name__ == "__main__":
    main()
