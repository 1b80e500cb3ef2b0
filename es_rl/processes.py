"""Several processes that train one policy, each with its own devices or environments.

JAX's distributed runtime connects the processes, exchanges their data, and notices when one of them
is gone. All processes run the same program on the same state and share the episodes. Values that
may differ between processes, such as the time or the contents of a file, come from process 0. With
one process the functions here do nothing.
"""

import atexit
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from envs.errors import UserError

T = TypeVar("T")
HEARTBEAT_SECONDS = 20
"""The default number of seconds after which a silent process counts as gone."""
START_SECONDS = 300
"""The default number of seconds to wait for the other processes at the start."""
_WATCH_SECONDS = 1.0
"""The seconds between two checks of which processes are alive."""
_LEAVE_SECONDS = 5.0
"""The seconds that process 0 waits at the end for the other processes to leave."""

_heartbeat_seconds = HEARTBEAT_SECONDS


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    start_seconds: int = START_SECONDS,
) -> None:
    """Join the other processes. Call this before anything else asks JAX for its devices.

    On SLURM, Kubernetes, Open MPI and TPU pods JAX finds the first three arguments itself.

    Args:
      coordinator: host:port on which process 0 listens.
      num_processes: the number of processes.
      process_id: the number of this process, from 0.
      heartbeat_seconds: the seconds after which a silent process counts as gone.
      start_seconds: the seconds to wait for the other processes.

    Raises:
      UserError: nothing was given and JAX finds no cluster, or the other processes cannot be
        reached.
      RuntimeError: JAX has already started.
    """
    global _heartbeat_seconds
    _heartbeat_seconds = heartbeat_seconds
    # Without this, JAX aborts this process when another one dies, without saying which one.
    jax.config.update("jax_enable_recoverability", True)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=start_seconds,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except ValueError as error:
        raise UserError(
            "distributed=True: no cluster was found here that JAX knows (SLURM, Kubernetes, Open "
            "MPI, TPU): must be --coordinator, --num-processes and --process-id"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        where = coordinator or "the coordinator"
        raise UserError(
            f"cannot join the other processes at {where} within {start_seconds} s: {error}"
        ) from error
    # This runs before JAX's own exit function, as the last registered function runs first.
    atexit.register(_leave)


def _leave() -> None:
    """Let process 0 leave last, as the other processes report to it."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    everyone = jax.devices()
    while is_main() and _alive(everyone) != {0} and time.monotonic() < deadline:
        time.sleep(0.02)


def count() -> int:
    """Return the number of processes."""
    return jax.process_count()


def is_main() -> bool:
    """Whether this is process 0, which writes the files."""
    return jax.process_index() == 0


def share(items: int) -> slice:
    """Return the slice of `items` items for this process. Shares differ by at most one item."""
    start, stop = _bounds(items)[jax.process_index() :][:2].tolist()
    return slice(start, stop)


def gather(x: np.ndarray) -> np.ndarray:
    """Gather an array from each process. Returns (processes, ...).

    The arrays must have the same shape and consist of 32- or 64-bit numbers.
    """
    # The bits are exchanged as int32: JAX has no 64-bit numbers here, and an exchange of floats may
    # change the bits of a NaN.
    bits = np.asarray(x).view(np.int32)
    every = multihost_utils.process_allgather(bits) if count() > 1 else bits[None]
    return np.asarray(every).view(x.dtype)


def gather_shares(rows: T, items: int) -> T:
    """Gather the rows of all processes, in one exchange.

    Args:
      rows: a pytree of NumPy arrays of 32- or 64-bit numbers, with one row for each item of this
        process's `share`.
      items: the number of items of all processes.

    Returns:
      The pytree with one row for each item of all processes.
    """
    if count() == 1:
        return rows
    leaves, tree = jax.tree.flatten(rows)
    packed = np.concatenate([x.reshape(len(x), -1).view(np.int32) for x in leaves], axis=1)
    most = -(-items // count())
    every = gather(np.pad(packed, ((0, most - len(packed)), (0, 0))))
    sizes = np.diff(_bounds(items))
    whole = np.concatenate([part[:size] for part, size in zip(every, sizes, strict=True)])
    ends = np.cumsum([x[:1].nbytes // 4 for x in leaves])[:-1]
    columns = np.split(whole, ends, axis=1)
    return jax.tree.unflatten(
        tree,
        [
            np.ascontiguousarray(column).view(x.dtype).reshape(items, *x.shape[1:])
            for column, x in zip(columns, leaves, strict=True)
        ],
    )


def _bounds(items: int) -> np.ndarray:
    return np.arange(count() + 1) * items // count()


def broadcast(arrays: Any) -> Any:
    """Return process 0's values of a pytree of NumPy arrays, whose shapes are equal everywhere."""
    if count() == 1:
        return arrays
    leaves, tree = jax.tree.flatten(arrays)
    whole = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)
    whole = np.asarray(
        multihost_utils.broadcast_one_to_all(np.frombuffer(whole, np.uint8))
    ).tobytes()
    values, offset = [], 0
    for leaf in leaves:
        part = np.frombuffer(whole, leaf.dtype, leaf.size, offset)
        values.append(part.reshape(leaf.shape))
        offset += leaf.nbytes
    return jax.tree.unflatten(tree, values)


def broadcast_json(value: Any) -> Any:
    """Return process 0's value, which must be a JSON value. The values of others are ignored."""
    if count() == 1:
        return value
    text = json.dumps(value).encode() if is_main() else b""
    (size,) = broadcast([np.array([len(text)])])[0]
    buffer = np.zeros(size, np.uint8)
    buffer[: len(text)] = np.frombuffer(text, np.uint8)
    return json.loads(broadcast([buffer])[0].tobytes())


def on_main(task: Callable[[], T]) -> T | None:
    """Run a task in process 0 only. Returns its result there; the others wait and return None.

    Raises:
      UserError: the task has failed. Process 0 raises the task's own exception instead.
    """
    result, failure = None, None
    if is_main():
        try:
            result = task()
        except Exception as error:
            failure = error
    if broadcast_json(failure is not None):
        raise failure or UserError("process 0 has failed: its own message says why")
    return result


@contextmanager
def watched(advice: str) -> Iterator[None]:
    """End this process with a message soon after another process has ended or fallen silent.

    Otherwise this process would wait for ever at the next exchange. All processes must leave the
    `with` block together, or by an exception.

    Args:
      advice: what the user can do then, for the message.
    """
    if count() == 1:
        yield
        return
    over = threading.Event()
    last_words = _LastWords(
        f"process {jax.process_index()} of {count()} was ended, by a signal or as process 0 "
        f"cannot be reached; {advice}"
    )
    watcher = threading.Thread(target=_watch, args=(advice, over, last_words), daemon=True)
    watcher.start()
    try:
        yield
        over.set()
        multihost_utils.sync_global_devices("all are done")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        # Errors of JAX's runtime begin with the name of a status. Then an exchange has failed, most
        # likely because another process is gone: give the watcher time to notice and report it.
        if re.match(r"[A-Z_]+: ", str(error)):
            watcher.join(_heartbeat_seconds + 10)
        raise
    finally:
        over.set()
        last_words.not_needed()


def _watch(advice: str, over: threading.Event, last_words: "_LastWords") -> None:
    everyone = {device.process_index: device for device in jax.devices()}
    while not over.wait(_WATCH_SECONDS):
        gone = everyone.keys() - _alive(list(everyone.values()))
        if gone and not over.is_set():
            numbers = ", ".join(map(str, sorted(gone)))
            which = f"process {numbers}" if len(gone) == 1 else f"processes {numbers}"
            last_words.not_needed()
            print(f"es-rl: {which} of {count()} ended or fell silent; {advice}", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)


def _alive(devices: list[Any]) -> set[int]:
    """Return the numbers of the processes of these devices that are alive."""
    for _ in devices:  # if a process ends during a call, the call fails without saying which one
        try:
            with multihost_utils.live_devices(devices) as alive:
                return {device.process_index for device in alive}
        except multihost_utils.ProcessFailureError:
            pass
        except jax.errors.JaxRuntimeError:
            break
    # Process 0 runs the coordination service, so it is the one that is gone.
    return {device.process_index for device in devices} - {0}


class _LastWords:
    """A message that is printed if this process ends before it can print anything itself.

    JAX aborts a process that cannot reach process 0 any more. A shell process waits for the end of
    this process and then prints the message.
    """

    def __init__(self, message: str):
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line || echo "es-rl: $0" >&2', message],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C does not end the shell
        )

    def not_needed(self) -> None:
        """End the shell without printing the message."""
        assert self._shell.stdin is not None
        if not self._shell.stdin.closed:
            self._shell.stdin.write(b"\n")
            self._shell.stdin.close()
            self._shell.wait()
