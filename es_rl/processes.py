"""Several processes that train one policy, each with its own devices or environments.

JAX's distributed runtime finds them, carries what they exchange, and notices when one is gone. All
of them run the same program on the same state and share the episodes; what only one can know, as
the time, or what a file holds, they learn from process 0. With one process nothing here does
anything.
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
START_SECONDS = 300
_WATCH_SECONDS = 1.0
"""Between two looks at who is alive."""
_LEAVE_SECONDS = 5.0
"""How long process 0 waits at the end for the others to leave."""

_heartbeat_seconds = HEARTBEAT_SECONDS


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    start_seconds: int = START_SECONDS,
) -> None:
    """Join the other processes; before anything else asks JAX for its devices.

    Args:
      coordinator: host:port of process 0, which listens there. SLURM, Kubernetes, Open MPI and TPU
        pods say all three themselves.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      heartbeat_seconds: after which a silent process counts as gone.
      start_seconds: how long to wait for the others.

    Raises:
      UserError: nothing was given, and no cluster says it.
      UserError: the others cannot be reached.
      RuntimeError: JAX has started already.
    """
    global _heartbeat_seconds
    _heartbeat_seconds = heartbeat_seconds
    # Else JAX aborts the process where another one dies, and nobody learns which.
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
    # Before JAX's own, as what is registered last runs first.
    atexit.register(_leave)


def _leave() -> None:
    """Let the others go first: process 0 is the one that they report to."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    everyone = jax.devices()
    while is_main() and _alive(everyone) != {0} and time.monotonic() < deadline:
        time.sleep(0.02)


def count() -> int:
    """How many processes there are."""
    return jax.process_count()


def is_main() -> bool:
    """Whether this is process 0, which writes the files."""
    return jax.process_index() == 0


def share(items: int) -> slice:
    """Which of so many neighbouring items are this process's: shares differ by one at most."""
    start, stop = _bounds(items)[jax.process_index() :][:2].tolist()
    return slice(start, stop)


def gather(x: np.ndarray) -> np.ndarray:
    """(processes, ...): an array of 32-bit numbers from each process, of one shape."""
    # Its bits, as 64-bit numbers are not JAX's, and floating-point ones may lose a NaN's.
    bits = np.asarray(x).view(np.int32)
    every = multihost_utils.process_allgather(bits) if count() > 1 else bits[None]
    return np.asarray(every).view(x.dtype)


def gather_shares(rows: T, items: int) -> T:
    """The rows of all processes, in one exchange.

    Args:
      rows: a pytree of NumPy arrays of 32- or 64-bit numbers, with a row for each item of this
        process's `share`.
      items: how many there are in all.

    Returns:
      The same with a row for each item.
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
    """Process 0's values of a pytree of NumPy arrays, whose shapes are the same everywhere."""
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
    """Process 0's value, one that JSON knows; those of others are ignored."""
    if count() == 1:
        return value
    text = json.dumps(value).encode() if is_main() else b""
    (size,) = broadcast([np.array([len(text)])])[0]
    buffer = np.zeros(size, np.uint8)
    buffer[: len(text)] = np.frombuffer(text, np.uint8)
    return json.loads(broadcast([buffer])[0].tobytes())


def on_main(task: Callable[[], T]) -> T | None:
    """What process 0 makes of a task; None in the others, which wait for it.

    Raises:
      UserError: process 0 has failed; there it is the task's own exception.
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
    """End this process, with a message, soon after another one has ended or fallen silent.

    What they exchange would be waited for in vain. All processes must leave together, or by an
    exception.

    Args:
      advice: how to go on, for the message.
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
        # An exchange has failed, most likely with one who is gone: the watcher will know. What
        # JAX's runtime says begins with the name of a status.
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
    """The processes among those of the devices that are alive."""
    for _ in devices:  # a call fails when a process ends meanwhile, and leaves unsaid which
        try:
            with multihost_utils.live_devices(devices) as alive:
                return {device.process_index for device in alive}
        except multihost_utils.ProcessFailureError:
            pass
        except jax.errors.JaxRuntimeError:
            break
    # Process 0 is the one who would know.
    return {device.process_index for device in devices} - {0}


class _LastWords:
    """A message that appears if this process is gone before it can say anything.

    JAX aborts a process that has lost process 0, where the runtime lives.
    """

    def __init__(self, message: str):
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line || echo "es-rl: $0" >&2', message],
            stdin=subprocess.PIPE,
            start_new_session=True,  # out of reach of Ctrl-C
        )

    def not_needed(self) -> None:
        """Say nothing at the end."""
        assert self._shell.stdin is not None
        if not self._shell.stdin.closed:
            self._shell.stdin.write(b"\n")
            self._shell.stdin.close()
            self._shell.wait()
