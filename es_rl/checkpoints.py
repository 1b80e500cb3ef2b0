"""Checkpoints: whole training states on disk, so that a run can go on as if nothing had happened.

Orbax writes them: in the background, each as a folder that appears under its name only once it is
complete. Here is what it leaves to its users: states with typed keys, the choice of the newest one
that can be read, and the check that it holds what was saved.
"""

import gc
import hashlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from envs.errors import UserError

PyTree = Any
_log = logging.getLogger("es_rl")


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: PyTree
    """NumPy arrays, for typed keys their data: see `placed`."""
    progress: dict[str, Any]
    """The JSON object that was saved with it."""


class Checkpoints:
    """The latest checkpoints of a run."""

    def __init__(self, folder: str | Path, keep: int = 2):
        """Open a folder of checkpoints, making it if need be; unfinished ones are removed.

        Args:
          folder: of nothing but checkpoints.
          keep: how many of the latest remain.

        Raises:
          OSError: the folder cannot be written.
        """
        # Imported here: it takes seconds, and only those who write checkpoints have to wait.
        with _quiet():
            import orbax.checkpoint

        self._orbax: Any = orbax.checkpoint
        self._folder = Path(folder).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        # Where there are other processes they have the same state, and nothing to do with this.
        own = jax.process_index()
        alone = self._orbax.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix="es_rl"
        )
        options = self._orbax.CheckpointManagerOptions(
            max_to_keep=keep, create=False, multiprocessing_options=alone
        )
        handlers = {
            "state": self._orbax.StandardCheckpointHandler(),
            "progress": self._orbax.JsonCheckpointHandler(),
        }
        with _quiet():
            self._manager = self._orbax.CheckpointManager(
                self._folder, options=options, item_handlers=handlers
            )

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints that are complete, the latest last."""
        # Orbax's own list has one that is being written too, even once that has failed.
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def save(self, step: int, state: PyTree, progress: dict[str, Any]) -> None:
        """Save a state while the caller goes on; it may be changed or donated at once.

        Args:
          step: its number, greater than all before.
          state: a pytree of arrays; keys may be typed.
          progress: a JSON object.

        Raises:
          OSError: this checkpoint or the one before could not be written.
        """
        leaves = _to_numpy(state)
        # An empty array is no file: `restore` knows its shape.
        filled = {name: leaf for name, leaf in leaves.items() if leaf.size}
        arguments = self._orbax.args.Composite(
            state=self._orbax.args.StandardSave(filled),
            progress=self._orbax.args.JsonSave({"digest": _digest(leaves), "progress": progress}),
        )
        with _quiet(), _as_os_error():
            self._manager.save(step, args=arguments, force=True)

    def restore(self, like: PyTree) -> Restored | None:
        """The latest checkpoint that can be read; None where there is none at all.

        Nothing in the files is executed, and no array is read whose shape is not the expected one.

        Args:
          like: a state of the same structure, shapes, types and placement.

        Raises:
          UserError: there are checkpoints, but none that can be read.
        """
        steps = self.steps
        for step in reversed(steps):
            with _quiet():
                found = self._attempt(step, like)
            if isinstance(found, Restored):
                return found
            _log.warning(
                "checkpoint %s cannot be read, the one before is tried (%s)",
                self._folder / str(step),
                found,
            )
        if steps:
            raise UserError(f"{self._folder}: none of the checkpoints there can be read")
        return None

    def put_aside_after(self, step: int) -> None:
        """Rename checkpoints later than a step, those that could not be read: their numbers will
        be used again."""
        for later in filter(lambda other: other > step, self.steps):
            aside = self._folder / f"damaged-{later}"
            shutil.rmtree(aside, ignore_errors=True)
            (self._folder / str(later)).rename(aside)
        with _quiet():
            self._manager.reload()

    def wait(self) -> None:
        """Until everything is written.

        Raises:
          OSError: it could not be.
        """
        with _quiet(), _as_os_error():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait as `wait` does, and end the threads that write."""
        with _quiet(), _as_os_error():
            self._manager.close()

    def _attempt(self, step: int, like: PyTree) -> Restored | str:
        """What a checkpoint holds, or why it cannot be read."""
        try:
            return self._read(step, like)
        except Exception as error:  # whatever a damaged file may cause in Orbax
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        # Its reads of other arrays fail too, and asyncio reports that once they are collected.
        gc.collect()
        return reason.split(" [tensorstore_spec")[0]  # which goes on with all that was asked for

    def _read(self, step: int, like: PyTree) -> Restored:
        paths, treedef = tree_flatten_with_path(like)
        expected = {keystr(path): _described(leaf) for path, leaf in paths}
        filled = {name: leaf for name, leaf in expected.items() if leaf.size}
        folder = self._folder / str(step)
        # Of the metadata, so that no array is made because a file says so.
        found = {
            str(name): (tuple(leaf.shape), np.dtype(leaf.dtype))
            for name, leaf in self._manager.item_metadata(step).state.tree.items()
        }
        wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in filled.items()}
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise UserError(
                    f"{folder}: {name} is {found.get(name)}, must be {wanted.get(name)}"
                )
        arguments = self._orbax.args.Composite(
            state=self._orbax.args.StandardRestore(
                {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in filled.items()}
            ),
            progress=self._orbax.args.JsonRestore(),
        )
        read = self._manager.restore(step, args=arguments)
        leaves = {
            name: np.asarray(read.state[name]) if name in filled else np.empty(e.shape, e.dtype)
            for name, e in expected.items()
        }
        if read.progress["digest"] != _digest(leaves):
            raise UserError(f"{folder}: what it holds is not what was saved")
        state = jax.tree.unflatten(treedef, [leaves[keystr(path)] for path, _ in paths])
        return Restored(step, state, read.progress["progress"])


def blank(like: PyTree) -> PyTree:
    """Zeros in place of the state of a checkpoint of such a state."""
    described = jax.tree.map(_described, like)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), described)


def placed(state: PyTree, like: PyTree) -> PyTree:
    """What a checkpoint holds as it was saved: each leaf where the example's is."""
    return jax.tree.map(_placed, state, like)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(state: PyTree) -> dict[str, np.ndarray]:
    """Copies of the leaves by path; the key data of typed keys."""
    leaves, _ = tree_flatten_with_path(state)
    data = [(path, jax.random.key_data(x) if _is_key(x) else x) for path, x in leaves]
    # np.array copies: on a CPU a fetched array is the device's memory, which a donation reuses.
    return {keystr(path): np.array(jax.device_get(x)) for path, x in data}


def _described(leaf: Any) -> Any:
    shape = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return jax.ShapeDtypeStruct(np.shape(shape), np.dtype(shape.dtype))


def _placed(value: np.ndarray, like: Any) -> Any:
    if not isinstance(like, jax.Array):
        return value
    there = jax.device_put(value, like.sharding)
    if _is_key(like):
        return jax.random.wrap_key_data(there, impl=jax.random.key_impl(like))
    return there


def _digest(leaves: dict[str, np.ndarray]) -> str:
    """Of names and values: Orbax itself notices damage only where it cannot read on."""
    total = hashlib.sha256()
    for name in sorted(leaves):
        leaf = leaves[name]
        total.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        total.update(np.ascontiguousarray(leaf).data)
    return total.hexdigest()


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Failed writes as OSError, in whichever way Orbax or TensorStore say it."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(" ".join(f"{error}".split())[:300]) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's account of what it does, and its warnings about shardings in files."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
