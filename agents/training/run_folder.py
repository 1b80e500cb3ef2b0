"""The folder that a run leaves behind: its configuration, metrics, checkpoints and policies."""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agents.policies.policy import Policy
from agents.policies.policy_files import read_description
from agents.training.loggers import JsonLines, Logger
from agents.training.progress import Progress
from agents.training.run_config import RunConfig
from envs.errors import UserError, one_line
from es_rl.checkpoints import Checkpoints, Restored
from es_rl.files import check_plain, locked, write_whole

CONFIG = "config.json"
METRICS = "metrics.jsonl"
LOCK = ".lock"
_FILES = (CONFIG, METRICS, LOCK)
_FOLDERS = ("checkpoints", "tensorboard", "policy", "best", "videos")
"""The folders inside a run's folder. Nothing besides these and `_FILES` is read or written
there."""
CONFIG_FORMAT = 3
"""The format of config.json that this version writes, and the only one that it reads."""
_LONGEST = {
    "env": 200,
    "env_kwargs": 1000,
    "train_env": 200,
    "train_env_kwargs": 1000,
    "agent": 100,
    "settings": 1000,
}
"""The most characters of a string, or members of an object, that are read."""
_MADE_BY = ("versions", "git", "device")
"""The parts that say what made the run; they stay those of its beginning."""
_OBJECTS = ("env_kwargs", "train_env_kwargs", "settings")
_OPTIONAL = ("train_env", "train_env_kwargs")
"""The parts that are null, or absent, if training plays the environment of evaluations."""


@dataclass(frozen=True)
class SavedRun:
    """The content of a run's `config.json`."""

    env: str
    """The environment's id."""
    env_kwargs: dict[str, Any]
    """The environment's arguments."""
    train_env: str | None
    """The id of the environment of training; None if training plays the same one."""
    train_env_kwargs: dict[str, Any] | None
    """The arguments of the environment of training; None if training plays the same one."""
    agent: str
    """The agent's registered name."""
    settings: dict[str, Any]
    """The fields of the agent's configuration."""
    options: RunConfig
    """The options of the run."""
    initial: str | None
    """The digest of the policy that the run started from; None if it started from none."""


def read_config(folder: str | Path) -> SavedRun:
    """Read the `config.json` of a run.

    Raises:
      UserError: the file is missing or damaged, or was written by another version of es-rl.
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
    try:
        return saved_run(config)
    except UserError as error:
        raise UserError(f"{where}: {CONFIG}: {one_line(error)}") from error


def saved_run(config: dict[str, Any]) -> SavedRun:
    """Check the types and ranges of the parts of a `config.json` of this version's format.

    Raises:
      UserError: a part is missing, has a wrong type, or is out of range.
    """
    config = {**dict.fromkeys(_OPTIONAL), **config}
    for name in (*_LONGEST, "initial", *(field.name for field in fields(RunConfig))):
        if name not in config:
            raise UserError(f"{name} must be there")
    if (config["train_env"] is None) != (config["train_env_kwargs"] is None):
        raise UserError("train_env and train_env_kwargs must both be null, or neither")
    for name, longest in _LONGEST.items():
        value, kind = config[name], dict if name in _OBJECTS else str
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, kind):
            raise UserError(f"{name} must be {'an object' if kind is dict else 'a text'}")
        if len(value) > longest:
            raise UserError(f"the length of {name} must be at most {longest}")
        if isinstance(value, str) and not (value and value.isprintable()):
            raise UserError(f"{name} must be printable")
        if isinstance(value, dict) and not all(key.isidentifier() for key in value):
            raise UserError(f"the keys of {name} must be names")
    initial = config["initial"]
    if initial is not None and not (
        isinstance(initial, str) and re.fullmatch("[0-9a-f]{64}", initial)
    ):
        raise UserError("initial must be a SHA-256 in hex, or null")
    options = RunConfig.of({field.name: config[field.name] for field in fields(RunConfig)})
    return SavedRun(**{name: config[name] for name in _LONGEST}, options=options, initial=initial)


def check_new(folder: str | Path) -> None:
    """Check that a folder for a new run is empty or absent.

    Raises:
      UserError: the folder is not empty.
    """
    folder = Path(folder)
    # A process that was killed right after its start leaves only its lock file.
    there = folder.iterdir() if folder.is_dir() else ()
    if folder.is_file() or any(path.name != LOCK for path in there):
        holds_a_run = (folder / CONFIG).is_file()
        raise UserError(
            f"out={folder}: must be an empty or a new folder"
            + ("; --resume goes on with the run in it" if holds_a_run else "")
        )


class RunFolder:
    """Writes a run's folder; a lock keeps other processes from writing to it."""

    def __init__(
        self,
        folder: str | Path,
        *,
        config: dict[str, Any],
        resume: bool,
        may_change: Collection[str] = (),
    ):
        """Lock the folder, and write the configuration.

        Args:
          folder: an empty or absent folder; with `resume` the folder of a run.
          config: everything that is needed to repeat the run, as JSON values.
          resume: whether to resume the stopped run in the folder.
          may_change: names of the agent's settings that may differ from those of the stopped run.

        Raises:
          UserError: the folder is not as described, or another process writes to it.
        """
        self.folder = Path(folder)
        self._flag = f"{'resume' if resume else 'out'}={str(self.folder)}"
        config = json.loads(json.dumps({"format": CONFIG_FORMAT, **config}))
        self._checkpoints: Checkpoints | None = None
        self._metrics: JsonLines | None = None
        self._events: Logger | None = None
        self._lacks_initial = False
        try:
            with ExitStack() as stack:
                if resume:
                    saved = read_config(self.folder)
                    self._check_same(saved, config, may_change)
                    self._lacks_initial = saved.initial is not None and config["initial"] is None
                    config["initial"] = saved.initial
                    config |= _history(read_description(self.folder / CONFIG), config)
                else:
                    check_new(self.folder)
                    self.folder.mkdir(parents=True, exist_ok=True)
                self._lock(stack)
                write_whole(self.folder / CONFIG, (json.dumps(config, indent=1) + "\n").encode())
                self._opened = stack.pop_all()
        except OSError as error:
            raise UserError(
                f"{self._flag}: cannot be written ({error.strerror}): must be a folder that can"
            ) from None

    def _lock(self, stack: ExitStack) -> None:
        try:
            stack.enter_context(locked(self.folder / LOCK))
        except BlockingIOError:
            raise UserError(
                f"{self._flag}: another process writes to this run: must be a folder of its own"
            ) from None

    def _check_same(
        self, before: SavedRun, config: dict[str, Any], may_change: Collection[str]
    ) -> None:
        """Refuse to resume a run of another environment or agent."""
        for name in _LONGEST:
            old, new = getattr(before, name), config.get(name)
            if name == "settings":
                old = {k: v for k, v in before.settings.items() if k not in may_change}
                new = {k: v for k, v in config[name].items() if k not in may_change}
            if old != new:
                raise UserError(
                    f"{self._flag}: the run there has {name} {one_line(repr(old))}, must be {new!r}"
                )
        if config["initial"] not in (None, before.initial):
            raise UserError(
                f"{self._flag}: initial must be the policy that the run there started from, if any"
            )

    def open(self, keep: int | None, like: Any) -> Restored | None:
        """Open metrics and checkpoints, and read the latest checkpoint; call it once.

        Metrics of generations after the checkpoint are deleted, as the run will write them again.

        Args:
          keep: how many checkpoints to keep; None writes no checkpoints.
          like: a state of the same structure, shapes and placement.

        Raises:
          UserError: there are checkpoints, but none can be read; or the folder cannot be written.
        """
        try:
            return self._open(keep, like)
        except OSError as error:
            raise UserError(f"{self._flag}: cannot be written ({error})") from error

    def _open(self, keep: int | None, like: Any) -> Restored | None:
        # Imported here, as TensorBoard's protocol buffers are slow to import.
        from agents.training.event_log import EventLog

        restored = None
        if keep is not None:
            self._checkpoints = Checkpoints(self.folder / "checkpoints", keep)
            restored = self._checkpoints.restore(like, _check_progress)
            self._checkpoints.put_aside_after(0 if restored is None else restored.step)
        if restored is None and self._lacks_initial:
            raise UserError(
                f"{self._flag}: the run there started from a policy and has no checkpoint yet: "
                "that policy must be given again (--init-from, or initial=)"
            )
        self._metrics = JsonLines(self.folder / METRICS, 0 if restored is None else restored.step)
        purge_from = None if restored is None else restored.progress["env_steps"] + 1
        self._events = EventLog(self.folder / "tensorboard", purge_from)
        return restored

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a failed write into a UserError that names the folder and the last checkpoint."""
        try:
            yield
        except OSError as error:
            latest = self.latest_checkpoint()
            kept = f"the last checkpoint is {latest}" if latest else "there is no checkpoint"
            raise UserError(
                f"out={self.folder}: cannot be written any more ({error}); {kept}"
            ) from error

    def log(self, metrics: dict[str, Any]) -> None:
        """Write the metrics of one generation, to metrics.jsonl and for TensorBoard.

        Raises:
          UserError: the folder cannot be written any more; all methods below raise the same.
        """
        assert self._metrics is not None
        assert self._events is not None
        with self._writing():
            self._metrics.log(metrics)
            self._events.log(metrics)

    def save(self, policy: Policy, name: str) -> None:
        """Save a policy in the subfolder of this name."""
        with self._writing():
            policy.save(self.folder / name)

    def checkpoint(self, generation: int, state: Any, progress: dict[str, Any]) -> None:
        """Save a state in the background, if checkpoints are wanted."""
        if self._checkpoints is None:
            return
        assert self._metrics is not None
        with self._writing():
            # Metrics reach the disk first, so that no checkpoint is ahead of them even if the
            # machine fails.
            self._metrics.sync()
            self._checkpoints.save(generation, state, progress)

    def wait(self) -> None:
        """Wait until the current checkpoint is written."""
        if self._checkpoints is not None:
            with self._writing():
                self._checkpoints.wait()

    def latest_checkpoint(self) -> Path | None:
        """The latest complete checkpoint; None if there is none."""
        steps = self._checkpoints.steps if self._checkpoints is not None else []
        return self.folder / "checkpoints" / str(steps[-1]) if steps else None

    def close(self) -> None:
        """Close all files and release the lock. Errors of writing are not reported here: call
        `wait` before, where the last checkpoint matters."""
        for file in (self._metrics, self._events, self._checkpoints, self._opened):
            if file is not None:
                with suppress(OSError):
                    file.close()


def _history(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What made a run, for its configuration, where it is resumed.

    Args:
      before: the configuration in the run's folder.
      now: that of the process that resumes the run.

    Returns:
      What the run began with, and in "resumed", oldest first, what it went on with where that was
      something else.
    """
    began, goes_on = ({k: x[k] for k in _MADE_BY if k in x} for x in (before, now))
    resumed = before.get("resumed")
    resumed = resumed if isinstance(resumed, list) else []
    if goes_on != (resumed[-1] if resumed else began):
        resumed = [*resumed, goes_on]
    return {**began, "resumed": resumed}


def _check_progress(step: int, progress: dict[str, Any]) -> None:
    """Check the saved progress of a checkpoint.

    Raises:
      UserError: the values are not a progress, or belong to another generation.
    """
    generation = Progress.from_json(progress).generation
    if generation != step:
        raise UserError(f"its generation is {generation}, must be {step}")
