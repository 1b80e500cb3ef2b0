"""Checkpoints: whole training states on disk, from which a run can resume exactly.

Orbax writes them in the background, each as a folder that appears under its name only once it is
complete. This module adds what Orbax does not do: it saves typed keys, it restores the newest
checkpoint that can be read, and it checks that this holds what was saved. Checkpoints may come from
an untrusted source, so sizes, names and kinds of files are checked before anything is read.
"""

import gc
import hashlib
import json
import logging
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from envs.errors import UserError, one_line
from es_rl.files import check_plain

PyTree = Any
_log = logging.getLogger("es_rl")
_STEP = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
"""The names of checkpoint folders: the number of the step in decimal."""
_LITERAL = re.compile(r"[\w/ .,=@+~-]+", re.ASCII)
"""Paths that Orbax and TensorStore do not mistake for a pattern or an address."""
_MOST_TEXT = 8 << 20
"""The most bytes of a file that is read as JSON."""
_MOST_BESIDES = 16 << 20
"""The most bytes of a checkpoint, in addition to twice the bytes of its arrays."""


class Restored(NamedTuple):
    """The contents of a checkpoint."""

    step: int
    """The number of the checkpoint."""
    state: PyTree
    """The saved state as NumPy arrays, with key data in place of typed keys; see `placed`."""
    progress: dict[str, Any]
    """The JSON object that was saved with the state."""


class Checkpoints:
    """The latest checkpoints of a run."""

    def __init__(self, folder: str | Path, keep: int = 2):
        """Open a folder of checkpoints; create it if needed, and remove unfinished checkpoints.

        Args:
          folder: the path of the folder, which holds nothing but checkpoints.
          keep: how many of the latest checkpoints are kept.

        Raises:
          UserError: the folder contains links, or Orbax cannot use its path.
          OSError: the folder cannot be written.
        """
        # Imported here because it takes seconds, which only runs with checkpoints should wait for.
        with _quiet():
            import orbax.checkpoint

        self._orbax: Any = orbax.checkpoint
        self._folder = Path(folder).absolute()
        self._keep = keep
        self._folder.mkdir(parents=True, exist_ok=True)
        real = self._folder.resolve()
        check_plain(real.parent, folders=[real.name])
        self._place, self._opened = _literal(self._folder)
        # Other processes have the same state and take no part in writing it.
        own = jax.process_index()
        alone = self._orbax.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix="es_rl"
        )
        options = self._orbax.CheckpointManagerOptions(create=False, multiprocessing_options=alone)
        handlers = {
            "state": self._orbax.StandardCheckpointHandler(),
            "progress": self._orbax.JsonCheckpointHandler(),
        }
        with _quiet():
            self._manager = self._orbax.CheckpointManager(
                self._place, options=options, item_handlers=handlers
            )
        # Checks what was written and removes old checkpoints while the caller continues.
        self._thread = ThreadPoolExecutor(1, "es_rl-checkpoints")
        self._settled: Future[None] | None = None

    @property
    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in increasing order."""
        # Orbax's own list also contains a checkpoint that is being written or could not be written.
        names = (path.name for path in self._folder.iterdir())
        return sorted(int(name) for name in names if _STEP.fullmatch(name))

    def save(self, step: int, state: PyTree, progress: dict[str, Any]) -> None:
        """Save a state in the background. The caller may change or donate the state at once.

        Args:
          step: the number of the checkpoint, greater than all numbers before.
          state: a pytree of arrays, which may be typed keys.
          progress: a JSON object that is saved with the state.

        Raises:
          OSError: this checkpoint or the previous one could not be written.
        """
        self.wait()
        leaves = _to_numpy(state)
        # Empty arrays are not saved: `restore` knows their shapes from its argument `like`.
        filled = {name: leaf for name, leaf in leaves.items() if leaf.size}
        arguments = self._orbax.args.Composite(
            state=self._orbax.args.StandardSave(filled),
            progress=self._orbax.args.JsonSave(
                {"digests": _digests(leaves, step, progress), "progress": progress}
            ),
        )
        with _quiet(), _as_os_error():
            self._manager.save(step, args=arguments, force=True)
        self._settled = self._thread.submit(self._settle, step, _kinds_of(filled))

    def _settle(self, step: int, kinds: dict[str, Any]) -> None:
        """Wait for a checkpoint to be written, check that it can be read, and remove old ones.

        Raises:
          Exception: the checkpoint cannot be read.
        """
        self._manager.wait_until_finished()
        try:
            self._check_arrays(step, kinds)
        except Exception:
            self._put_aside(str(step))
            raise
        for old in self.steps[: -self._keep]:
            shutil.rmtree(self._folder / str(old))

    def restore(
        self, like: PyTree, check: Callable[[int, dict[str, Any]], object] | None = None
    ) -> Restored | None:
        """Read the latest checkpoint that can be read; None if there are no checkpoints.

        Nothing in the files is executed, and no array of an unexpected shape is read.

        Args:
          like: a state with the same structure, shapes, types and placement.
          check: raises an exception if a checkpoint's step and progress are not valid.

        Raises:
          UserError: there are checkpoints, but none of them can be read.
        """
        steps = self.steps
        for step in reversed(steps):
            with _quiet():
                found = self._attempt(step, like, check)
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
        """Rename the unreadable checkpoints later than a step, as their numbers will be reused."""
        for path in list(self._folder.iterdir()):
            # Orbax accepts more names as steps than it writes, such as "007".
            own = _STEP.fullmatch(path.name)
            if path.name.isdigit() and not (own and int(path.name) <= step):
                self._put_aside(path.name)
        with _quiet():
            self._manager.reload()

    def _put_aside(self, name: str) -> None:
        aside = self._folder / f"damaged-{name}"
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)
        (self._folder / name).rename(aside)

    def wait(self) -> None:
        """Wait until the last checkpoint is written and was checked to be readable.

        Raises:
          OSError: it could not be written, or it cannot be read.
        """
        settled, self._settled = self._settled, None
        if settled is not None:
            with _as_os_error():
                settled.result()

    def close(self) -> None:
        """Call `wait`, and then end the threads that write. Raises the errors of `wait`."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            with _quiet(), _as_os_error():
                self._manager.close()
            if self._opened is not None:
                os.close(self._opened)
                self._opened = None

    def _attempt(self, step: int, like: PyTree, check: Any) -> Restored | str:
        """Read a checkpoint. Returns its contents, or the reason why it cannot be read."""
        try:
            return self._read(step, like, check)
        except Exception as error:  # a damaged file may cause any error in Orbax
            reason = f"{type(error).__name__}: {error}"
        # Orbax's reads of other arrays fail as well, which asyncio logs when they are collected.
        # Collect them now, while the caller has silenced that logger.
        gc.collect()
        # Leave out the rest of TensorStore's message, a long listing of the request.
        return one_line(reason.split("[tensorstore_spec")[0])

    def _read(self, step: int, like: PyTree, check: Any) -> Restored:
        paths, treedef = tree_flatten_with_path(like)
        expected = {keystr(path): _described(leaf) for path, leaf in paths}
        filled = {name: leaf for name, leaf in expected.items() if leaf.size}
        folder = self._folder / str(step)
        _check_sizes(folder, sum(leaf.size * leaf.dtype.itemsize for leaf in filled.values()))
        self._check_arrays(step, _kinds_of(filled))
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
        progress = read.progress["progress"]
        if read.progress["digests"] != _digests(leaves, step, progress):
            raise UserError(f"{folder}: what it holds is not what was saved")
        if check is not None:
            check(step, progress)
        state = jax.tree.unflatten(treedef, [leaves[keystr(path)] for path, _ in paths])
        return Restored(step, state, progress)

    def _check_arrays(self, step: int, kinds: dict[str, Any]) -> None:
        """Compare the shapes and types of a checkpoint's arrays with the expected ones.

        Only metadata are read, so that a file cannot cause the allocation of a huge array.

        Raises:
          UserError: the arrays are different.
          Exception: the metadata cannot be read.
        """
        tree = self._manager.item_metadata(step).state.tree
        found = _kinds_of(tree)
        for name in sorted(found.keys() | kinds.keys()):
            if found.get(name) != kinds.get(name):
                raise UserError(f"{name} is {found.get(name)}, must be {kinds.get(name)}")
            # A chunk is read as a whole, so its size must be limited too.
            part = tree[name].storage.chunk_shape
            if math.prod(part) > math.prod(kinds[name][0]):
                raise UserError(f"{name} is kept in parts of {part}, larger than itself")


def blank(like: PyTree) -> PyTree:
    """Return zeros with the shapes and types of `Restored.state` for a state like this."""
    described = jax.tree.map(_described, like)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), described)


def placed(state: PyTree, like: PyTree) -> PyTree:
    """Put the leaves of `Restored.state` where those of `like` are, and restore typed keys."""
    return jax.tree.map(_placed, state, like)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(state: PyTree) -> dict[str, np.ndarray]:
    """Return copies of the leaves by path, with key data in place of typed keys."""
    leaves, _ = tree_flatten_with_path(state)
    data = [(path, jax.random.key_data(x) if _is_key(x) else x) for path, x in leaves]
    # np.array copies: on a CPU, device_get returns device memory, which a donation overwrites.
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


def _kinds_of(leaves: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return the shapes and types of arrays, by name."""
    return {str(name): (tuple(x.shape), np.dtype(x.dtype)) for name, x in leaves.items()}


def _digests(leaves: dict[str, np.ndarray], step: int, progress: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 digests of the state alone, and of the whole checkpoint.

    Orbax itself only notices damage that prevents reading. The digest of the state does not depend
    on `progress`, which contains times.
    """
    state = hashlib.sha256()
    for name in sorted(leaves):
        leaf = leaves[name]
        state.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        state.update(np.ascontiguousarray(leaf).data)
    whole = json.dumps([state.hexdigest(), step, progress], sort_keys=True).encode()
    return {"state": state.hexdigest(), "whole": hashlib.sha256(whole).hexdigest()}


def _check_sizes(folder: Path, array_bytes: int) -> None:
    """Refuse a checkpoint that is too large for arrays of `array_bytes` bytes in total.

    Raises:
      UserError: a file or the whole checkpoint is too large.
    """
    whole = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            size = os.lstat(os.path.join(parent, name)).st_size
            whole += size
            binary = os.path.basename(parent) == "d" or name.endswith(".ocdbt")
            if size > _MOST_TEXT and not binary:
                raise UserError(f"{name} has {size} bytes: must be at most {_MOST_TEXT}")
    most = 2 * array_bytes + _MOST_BESIDES
    if whole > most:
        raise UserError(f"it has {whole} bytes: must be at most {most}")


def _literal(folder: Path) -> tuple[Path, int | None]:
    """Return a path of the folder that Orbax and TensorStore take literally.

    They interpret patterns ("[a]"), backslashes and addresses ("gs:/") in paths. Also returns the
    file descriptor to close after use, or None.

    Raises:
      UserError: this system offers no such path.
    """
    if _LITERAL.fullmatch(str(folder)):
        return folder, None
    opened = os.open(folder, os.O_RDONLY)
    alias = Path(f"/proc/self/fd/{opened}")
    if not alias.is_dir():
        os.close(opened)
        raise UserError(
            f"{folder}: checkpoints cannot be written there: must be a path of letters, digits, "
            "spaces and _ . , = @ + ~ - alone"
        )
    return alias, opened


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise any error of Orbax and TensorStore as an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(" ".join(f"{error}".split())[:300]) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Orbax's log messages, and its warnings about shardings in files."""
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
