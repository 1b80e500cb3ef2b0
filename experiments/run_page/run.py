"""A run, as the files in its folder describe it: what it is, and how far it has come.

The folder may come from a stranger: links in it are refused, and all that is read is checked.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from agents.policies import policy_json
from agents.policies.policy_files import DESCRIPTION, MAX_DESCRIPTION_BYTES, parse
from agents.training.evaluation import Evaluation
from agents.training.loop import SKIPPED_LIMIT
from agents.training.progress import Progress
from agents.training.run_folder import CONFIG, CONFIG_FORMAT, LOCK, SavedRun, saved_run
from envs.errors import UserError, one_line
from es_rl.files import is_locked, open_own
from experiments.run_page.metrics import Metrics

State: TypeAlias = Literal["under way", "finished", "stopped"]
_POLICIES = ("policy", "best")
_MOST_VERSIONS = 100


@dataclass(frozen=True)
class Point:
    """An evaluation of the mean policy."""

    generations: int
    """The number of generations before it."""
    env_steps: float
    """The number of env steps before it."""
    mean: float
    """The mean return; NaN if it is not finite."""
    std: float
    """The standard deviation of the returns over episodes; NaN if it is not finite."""
    episodes: float
    """The number of episodes; NaN if it is not known."""


@dataclass(eq=False)
class Run:
    """A run's folder, read anew by each call of `read`."""

    folder: Path
    """The run's folder, as the user has named it."""
    saved: SavedRun
    """What is trained, and how long."""
    versions: dict[str, str]
    """The versions of libraries that the run began with."""
    origin: dict[str, str]
    """Where it ran: the device and the commit of the code, as far as they are known."""
    metrics: Metrics
    """The metrics of all generations so far."""
    under_way: bool = False
    """Whether a process writes to the folder."""
    evaluations: tuple[Point, ...] = ()
    """The evaluations so far."""
    policies: tuple[str, ...] = ()
    """Which of the folders policy/ and best/ are there."""

    def read(self) -> bool:
        """Read what was added since the last call; return whether anything has changed.

        Raises:
          UserError: a file is damaged or a link; the message begins with the folder.
        """
        before = self.under_way
        try:
            # The lock first: what the run has written before it ends is then read.
            self.under_way = is_locked(self.folder / LOCK)
            changed = self.metrics.read() or before != self.under_way
            if changed:
                self.policies = tuple(p for p in _POLICIES if is_folder(self.folder / p))
                self.evaluations = tuple(self._evaluations())
        except OSError as error:
            raise _blamed(self.folder, f"cannot be read ({error.strerror})") from error
        except UserError as error:
            raise _blamed(self.folder, one_line(error)) from error
        return changed

    @property
    def training_seconds(self) -> float:
        """Seconds of training so far, without compilation and evaluation."""
        return (self.metrics.last("wall_seconds") or 0) - (
            self.metrics.last("evaluation_seconds") or 0
        )

    @property
    def share(self) -> float:
        """The share of the budget that is spent, from 0 to 1."""
        steps = int(self.metrics.last("env_steps") or 0)
        return self.saved.options.share(steps, self.training_seconds)

    @property
    def best(self) -> Point | None:
        """The best evaluation, the later one of two equally good ones; None if there is none."""
        finite = [point for point in self.evaluations if np.isfinite(point.mean)]
        return max(finite, key=lambda point: (point.mean, point.generations), default=None)

    @property
    def state(self) -> State:
        """Whether the run is under way, has ended as it was to end, or was stopped before."""
        if self.under_way:
            return "under way"
        return "stopped" if self.ended_by is None else "finished"

    @property
    def ended_by(self) -> Literal["target_return", "seconds", "env_steps"] | None:
        """The option of the run by which it would end now; None if none does."""
        options = self.saved.options
        if self.evaluations and options.reached(self.evaluations[-1].mean):
            return "target_return"
        steps = int(self.metrics.last("env_steps") or 0)
        if not options.over(Progress(env_steps=steps), self.training_seconds):
            return None
        return "env_steps" if steps >= options.env_steps else "seconds"

    def why(self) -> str:
        """Why the run has ended, or how much of its budget is spent, in words."""
        options = self.saved.options
        if self.under_way:
            if not self.metrics.lines:
                return "the first generation has not ended yet"
            return f"{self.share:.0%} of its budget is spent"
        match self.ended_by:
            case "target_return":
                return f"an evaluation has reached the target return {options.target_return:g}"
            case "seconds":
                return f"its budget of {options.seconds:g} s of training is spent"
            case "env_steps":
                return f"its budget of {options.env_steps:,} env steps is spent"
        skipped = self.metrics["update_skipped"][-SKIPPED_LIMIT:]
        if len(skipped) == SKIPPED_LIMIT and (skipped > 0).all():
            return f"training has diverged: the last {SKIPPED_LIMIT} updates were not finite"
        return "it ended before its budget was spent"

    def _evaluations(self) -> list[Point]:
        """The evaluations in the metrics, and that of a policy that was saved after them."""
        metrics = self.metrics
        names = ("generation", "env_steps", "eval_return_mean", "eval_return_std", "eval_episodes")
        rows = np.stack([metrics[name] for name in names], axis=-1)
        # Evaluations whose return is not finite are told by the number of their episodes.
        rows = rows[np.isfinite(rows[:, 2]) | np.isfinite(rows[:, 4])]
        found = [Point(int(row[0]) + 1, *map(float, row[1:])) for row in rows]
        last = int(metrics.last("generation") or 0) + 1
        if metrics.lines and not self.under_way and (not found or found[-1].generations < last):
            point = self._of_policy(last)
            found += [] if point is None else [point]
        return found

    def _of_policy(self, last: int) -> Point | None:
        """The evaluation of the last policy; None if it is not of this number of generations.

        A signal may end a run within a generation: its last evaluation is with the policy alone.
        """
        path = self.folder / _POLICIES[0] / DESCRIPTION
        if "policy" not in self.policies or not os.path.lexists(path):
            return None
        values = _read_object(path)
        training = values.get("training")
        if not isinstance(training, dict) or training.get("generations") != last:
            return None
        with policy_json.reading():
            evaluation = policy_json.evaluation_from_json(values.get("evaluation"))
        if evaluation is None:
            return None
        done = Evaluation.from_json(evaluation)
        env_steps = self.metrics.last("env_steps") or 0
        return Point(last, env_steps, done.mean, done.std, len(done.returns))


def open_run(name: str | Path) -> Run:
    """Open the folder of this name, of a run, and read what is there so far.

    Raises:
      UserError: the folder is none of a run, or a file in it is damaged or a link.
    """
    folder = Path(name)
    if not os.path.isdir(folder):
        missing = "is a file" if os.path.lexists(folder) else "does not exist"
        raise _blamed(name, f"{missing}: must be the folder of a run")
    if not os.path.lexists(folder / CONFIG):
        hint = ""
        if os.path.lexists(folder / "tasks.json"):
            hint = "; a comparison writes its own page, report.html, when it ends"
        raise _blamed(name, f"has no {CONFIG}: must be the folder of a run of es-rl train{hint}")
    try:
        config = _read_object(folder / CONFIG)
        found = config.get("format", 1)
        if found != CONFIG_FORMAT or isinstance(found, bool):
            raise UserError(f"is of format {one_line(found)}, must be of format {CONFIG_FORMAT}")
        run = Run(
            folder, saved_run(config), _texts(config, "versions"), _origin(config), Metrics(folder)
        )
    except OSError as error:
        raise _blamed(name, f"{CONFIG} cannot be read ({error.strerror})") from error
    except UserError as error:
        raise _blamed(name, f"{CONFIG}: {one_line(error)}") from error
    run.read()
    return run


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or nothing.

    Raises:
      UserError: it is a link, or something else.
    """
    if not os.path.lexists(path):
        return False
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise UserError(f"{path.name} is a link or a file: must be a folder")
    return True


def _read_object(path: Path) -> dict[str, Any]:
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        value = parse(path.name, file.read(MAX_DESCRIPTION_BYTES + 1))
    if not isinstance(value, dict):
        raise UserError(f"{path.name} must hold an object")
    return value


def _texts(config: dict[str, Any], name: str) -> dict[str, str]:
    """The texts of an object of the configuration, which older runs may lack."""
    values = config.get(name) or {}
    good = isinstance(values, dict) and len(values) <= _MOST_VERSIONS
    if not good or not all(isinstance(value, str) for value in values.values()):
        raise UserError(f"{name} must be an object of texts")
    return {one_line(key): one_line(value) for key, value in values.items()}


def _origin(config: dict[str, Any]) -> dict[str, str]:
    found = {}
    if isinstance(config.get("device"), str):
        found["device"] = one_line(config["device"])
    git = config.get("git")
    if isinstance(git, dict) and isinstance(git.get("commit"), str):
        changed = " with changes" if git.get("uncommitted") else ""
        found["commit"] = one_line(git["commit"][:12]) + changed
    return found


def _blamed(name: str | Path, what: str) -> UserError:
    return UserError(f"run={name}: {what}")
