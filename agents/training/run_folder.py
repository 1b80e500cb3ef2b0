"""The folder that a run leaves behind: its configuration, metrics, checkpoints and policies."""

import json
import math
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from types import NoneType
from typing import IO, Any

from agents.policies.policy_files import MOST_EPISODES, read_description
from agents.training.schedule import Progress
from envs.errors import UserError, one_line
from es_rl.checkpoints import Checkpoints, Restored
from es_rl.files import check_plain, open_own, whole, write_whole

CONFIG = "config.json"
_METRICS = "metrics.jsonl"
_LOCK = ".lock"
_FILES = (CONFIG, _METRICS, _LOCK)
_FOLDERS = ("checkpoints", "tensorboard", "policy", "best", "videos")
"""All that a run's folder has of ours; what else lies in it is neither read nor written."""
_LONGEST_LINE = 1 << 20
"""Bytes of a line of metrics."""
CONFIG_FORMAT = 2
"""Of config.json. Format 1 had no number, and runs of it no checkpoints."""
_SAME_RUN = ("env", "env_kwargs", "agent", "settings", "seed")
"""What a run that goes on must have in common with what it was."""
PLACES = ("devices", "lanes")
"""But for these settings, which say where it is played."""
_NUMBER, _COUNT = (int, float), (int,)
_LARGE = 2**62
_KINDS: dict[str, tuple[tuple[type, ...], float, float]] = {
    "env": ((str,), 1, 200),
    "env_kwargs": ((dict,), 0, 1000),
    "agent": ((str,), 1, 100),
    "settings": ((dict,), 0, 1000),
    "seed": (_COUNT, 0, _LARGE),
    "env_steps": (_COUNT, 1, _LARGE),
    "seconds": ((*_NUMBER, NoneType), 0, _LARGE),
    "target_return": ((*_NUMBER, NoneType), -math.inf, math.inf),
    "eval_every": (_COUNT, 1, _LARGE),
    "eval_seconds": ((*_NUMBER, NoneType), 0, _LARGE),
    "eval_episodes": (_COUNT, 1, MOST_EPISODES),
    "checkpoint_every": ((*_COUNT, NoneType), 1, _LARGE),
    "checkpoint_seconds": ((*_NUMBER, NoneType), 0, _LARGE),
    "keep": (_COUNT, 1, _LARGE),
}
"""Of what is read from a configuration: types, and the least and the most of a number, or of the
length of another value."""
_WORDS = {
    str: "a string",
    dict: "an object",
    int: "an integer",
    float: "a number",
    NoneType: "null",
}


def read_config(folder: str | Path) -> dict[str, Any]:
    """What `config.json` of a run says.

    Raises:
      UserError: there is none, it is damaged, or another version of es-rl has written it.
    """
    where = f"resume={str(folder)}"
    try:
        check_plain(Path(folder), _FILES, _FOLDERS)
        config = read_description(Path(folder) / CONFIG)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{where}: must be a run's folder: {one_line(error)}") from error
    found = config.get("format", 1)
    if found != CONFIG_FORMAT or isinstance(found, bool):
        raise UserError(
            f"{where}: {CONFIG} is of format {one_line(found)}: this version goes on with runs of "
            f"format {CONFIG_FORMAT}"
        )
    for name, (kinds, least, most) in _KINDS.items():
        value = config.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            accepted = " or ".join(_WORDS[kind] for kind in kinds)
            raise UserError(f"{where}: {name} in {CONFIG} must be {accepted}")
        size: Any = len(value) if isinstance(value, str | dict) else value
        if size is not None and not least <= size <= most:
            of = f"{name} in {CONFIG}" if size is value else f"the length of {name} in {CONFIG}"
            raise UserError(f"{where}: {of} must be from {least} to {most}")
        keys = value if isinstance(value, dict) else ()
        if isinstance(value, str) and not value.isprintable():
            raise UserError(f"{where}: {name} in {CONFIG} must be printable")
        if not all(key.isidentifier() for key in keys):
            raise UserError(f"{where}: what {name} in {CONFIG} has must be names")
    return config


class RunFolder:
    """Writes a run's folder, alone: another process that tries to is refused."""

    def __init__(self, folder: str | Path, *, config: dict[str, Any], resume: bool):
        """Take hold of the folder, and write the configuration.

        Args:
          folder: must be empty or absent; with `resume` that of a run.
          config: JSON values, all that is needed to repeat the run.
          resume: whether to go on with a run that was stopped.

        Raises:
          UserError: it is not such a folder, or another process writes to it.
        """
        self.folder = Path(folder)
        self._flag = f"{'resume' if resume else 'out'}={str(self.folder)}"
        self._config = json.loads(json.dumps(config))
        self._checkpoints: Checkpoints | None = None
        self._metrics: IO[str] | None = None
        self._events: Any = None
        try:
            with ExitStack() as stack:
                if resume:
                    self._must_go_on_from(read_config(self.folder))
                else:
                    self._must_be_empty()
                    self.folder.mkdir(parents=True, exist_ok=True)
                self._lock(stack)
                text = json.dumps({"format": CONFIG_FORMAT, **self._config}, indent=1) + "\n"
                write_whole(self.folder / CONFIG, text.encode())
                self._opened = stack.pop_all()
        except OSError as error:
            raise UserError(
                f"{self._flag}: cannot be written ({error.strerror}): must be a folder that can"
            ) from None

    def _must_be_empty(self) -> None:
        # A process that was killed at once leaves no more than its lock.
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        if self.folder.is_file() or any(path.name != _LOCK for path in there):
            holds_a_run = (self.folder / CONFIG).is_file()
            raise UserError(
                f"{self._flag}: must be an empty or a new folder"
                + ("; --resume goes on with the run in it" if holds_a_run else "")
            )

    def _lock(self, stack: ExitStack) -> None:
        # The kernel lets go of it when the process ends, however it ends.
        import fcntl

        lock = open_own(self.folder / _LOCK, os.O_RDWR | os.O_CREAT)
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self._flag}: another process writes to this run: must be a folder of its own"
            ) from None

    def _must_go_on_from(self, before: dict[str, Any]) -> None:
        before, now = _same_anywhere(before), _same_anywhere(self._config)
        for name in _SAME_RUN:
            if before.get(name) != now[name]:
                raise UserError(
                    f"{self._flag}: the run there has {name} "
                    f"{one_line(repr(before.get(name)))}, must be {now[name]!r}"
                )

    def open(self, keep: int | None, like: Any) -> Restored | None:
        """Open metrics and checkpoints, and read the latest of these; call it once.

        Metrics of later generations than it are forgotten: they are written again.

        Args:
          keep: how many checkpoints remain; None writes none.
          like: a state of the same structure, shapes and placement.

        Raises:
          UserError: there are checkpoints, but none that can be read; or nothing can be written.
        """
        try:
            return self._open(keep, like)
        except OSError as error:
            raise UserError(f"{self._flag}: cannot be written ({error})") from error

    def _open(self, keep: int | None, like: Any) -> Restored | None:
        from agents.training.event_log import (
            EventLog,  # whose protocol buffers take a while to import
        )

        restored = None
        if keep is not None:
            self._checkpoints = Checkpoints(self.folder / "checkpoints", keep)
            restored = self._checkpoints.restore(like, _check_progress)
            self._checkpoints.put_aside_after(0 if restored is None else restored.step)
        metrics = self.folder / _METRICS
        _cut(metrics, 0 if restored is None else restored.step)
        self._metrics = os.fdopen(open_own(metrics, os.O_WRONLY | os.O_APPEND), "a", buffering=1)
        purge_from = None if restored is None else restored.progress["env_steps"] + 1
        self._events = EventLog(self.folder / "tensorboard", purge_from)
        return restored

    def log(self, metrics: dict[str, Any]) -> None:
        """One generation: a line of metrics.jsonl, and the same to TensorBoard."""
        assert self._metrics is not None
        # JSON has no NaN: what is not finite is null.
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._metrics.write(json.dumps(finite) + "\n")
        shown = {k: v for k, v in finite.items() if v is not None}
        step = shown.pop("env_steps")
        self._events.add({k: v for k, v in shown.items() if k != "generation"}, step)

    def checkpoint(self, generation: int, state: Any, progress: dict[str, Any]) -> None:
        """Save a state in the background, if checkpoints are wanted."""
        if self._checkpoints is None:
            return
        assert self._metrics is not None
        # So that even where the machine fails no checkpoint is ahead of the metrics.
        os.fsync(self._metrics.fileno())
        self._checkpoints.save(generation, state, progress)

    def wait(self) -> None:
        """Until the checkpoint at hand is written."""
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def latest_checkpoint(self) -> Path | None:
        """The latest that is complete."""
        steps = self._checkpoints.steps if self._checkpoints is not None else []
        return self.folder / "checkpoints" / str(steps[-1]) if steps else None

    def close(self) -> None:
        """Let go of the folder; what could not be written has been reported before."""
        for file in (self._metrics, self._events, self._checkpoints, self._opened):
            if file is not None:
                with suppress(OSError):
                    file.close()


def _same_anywhere(config: dict[str, Any]) -> dict[str, Any]:
    settings = {k: v for k, v in config["settings"].items() if k not in PLACES}
    return {**config, "settings": settings}


def _check_progress(step: int, progress: dict[str, Any]) -> None:
    """Refuse what is no progress, or that of another generation.

    Raises:
      UserError: it is such.
    """
    generation = Progress.from_json(progress).generation
    if generation != step:
        raise UserError(f"its generation is {generation}, must be {step}")


def _cut(path: Path, generations: int) -> None:
    """Keep the metrics of so many generations, without a torn line, in a new file."""
    with ExitStack() as stack:
        old = None
        if os.path.lexists(path):
            old = stack.enter_context(os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb"))
        new = stack.enter_context(whole(path))
        for generation in range(generations if old is not None else 0):
            line = old.readline(_LONGEST_LINE)  # type: ignore[union-attr]
            if not line.endswith(b"\n") or _generation_of(line) != generation:
                break
            new.write(line)


def _generation_of(line: bytes) -> Any:
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return json.loads(line)["generation"]
    return None
