"""What a worker process runs: it steps its share of the lanes of a `WorkerPool`.

Run as a script, not imported, so that a worker starts without JAX and without the caller's
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
"""What a lane is to do next."""

READY, DONE, FAILED, REFUSED = b"r", b"d", b"f", b"x"
"""What a worker answers. FAILED (the environment raised) and REFUSED (it does not keep Gymnasium's
interface) are followed by the length of a `Fault` as JSON, and the `Fault`."""

SPAN = struct.Struct("<II")
"""A request: the lanes from the first number up to the second, as far as they are this worker's."""

LENGTH = struct.Struct("<I")


class Fault(NamedTuple):
    """What went wrong in an environment."""

    reason: str
    """In one line."""
    traceback: str = ""
    """As Python shows it; empty where nothing was raised."""
    place: str = ""
    """file:line of the innermost line outside of installed packages."""

    def __str__(self) -> str:
        return f"{self.reason} ({self.place})" if self.place else self.reason


class InterfaceError(Exception):
    """What an environment returned is not what Gymnasium's interface or its spaces say."""


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
    """What is to be told of an exception."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    own = [f for f in frames if not f.filename.startswith((*installed, __file__, "<"))]
    place = "".join(f"{frame.filename}:{frame.lineno}" for frame in (own or frames)[-1:])
    return Fault(reason, "".join(traceback.format_exception(error)), place)


class _Worker:
    """The environments of the lanes whose owner it is."""

    def __init__(self, make: Any, interface: Any, shared: dict[str, np.ndarray], number: int):
        self._make = make
        self._interface = interface  # an `Interface`; its class cannot be imported here
        self._shared = shared
        self._number = number
        self._at = shared["at"].data
        # One at once, so that one that cannot be made is known before it is needed. It becomes
        # that of the first lane: there are never more environments than lanes.
        self._spare = [self._new()]
        self._envs: dict[int, Any] = {}
        self._new_lanes: set[int] = set()
        """Those whose environment has not stepped yet."""
        space = self._spare[0].action_space
        # A Python int for Discrete; the row itself, which has the space's shape and dtype, else.
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
        nested = self._interface.nested
        # Assigning to a row spreads what is too short over it. Of as many numbers as there should
        # be it takes no other shape, but for leading dimensions of 1, and nothing fits a number.
        size, is_array = obs[0].size, obs.ndim > 1
        # What is small goes into the shared arrays at once: writing a number costs as much as
        # writing a few dozen.
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
            if nested:
                value = self._flat(value, lane, "reset" if command == RESET else "step")
            if is_array and (value.__class__ is not np.ndarray or value.size != size):
                value = self._array(value, lane, "reset" if command == RESET else "step")
            obs[lane] = value
        try:
            # Not from the list, in which NumPy takes None for NaN.
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
        """Start an episode; the observation."""
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
        """The first step of a lane, of which all is checked."""
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
        """Refuse the innermost layer that returns something else than Gymnasium's interface says.

        The environment itself is asked once more, then each of its wrappers.
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
        """A Dict or Tuple observation as a vector."""
        try:
            flat = self._interface.flat(value)
        except Exception:
            self._check_observation(value, lane, call)
            raise
        if flat.size != self._shared["obs"][lane].size:
            self._check_observation(value, lane, call)
        return flat

    def _array(self, value: Any, lane: int, call: str) -> np.ndarray:
        """An observation that came as something else than an array of the right size."""
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
        """Raise an error that says what came, in which call, and where that is written."""
        self._at[self._number] = lane
        seed = self._shared["seed"][lane]
        where = f"reset(seed={seed})"
        if call == "step":
            where = f"step {_steps(self._envs[lane])} of the episode with seed {seed}"
        told = f"returned {problem.found}: must be {problem.wanted}"
        raise InterfaceError(f"{where} {told}; {_place(layer, call)}")

    def _new(self) -> Any:
        # The process that made the pool has made one before, and shown what that had to say.
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
    """1 where the info of an episode's last step reports success, 0 for failure, else NaN.

    Stable-Baselines3 and Gymnasium-Robotics call it "is_success", Meta-World "success".
    """
    reported = info.get("is_success", info.get("success"))
    try:
        return float("nan") if reported is None else float(bool(reported))
    except ValueError:  # an array of several numbers
        return float("nan")


def _layers(env: Any) -> Iterator[Any]:
    """An environment, its outermost wrapper first."""
    yield env
    while env is not env.unwrapped:
        env = env.env
        yield env


def _steps(env: Any) -> int:
    """Steps since the reset, as Gymnasium's time limit counts them once it is told of them."""
    try:
        return max(1, int(env.get_wrapper_attr("_elapsed_steps") or 0))
    except AttributeError:
        return 1


def _place(layer: Any, call: str) -> str:
    """Where a method of an environment is written."""
    name = f"see {type(layer).__name__}.{call}"
    try:
        function = getattr(type(layer), call)
        return f"{name} ({inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]})"
    except (OSError, TypeError):  # written in C, or in a text that is gone
        return name


if __name__ == "__main__":
    main()
