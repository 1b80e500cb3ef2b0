"""What a comparison leaves behind: tasks, runs, and how they are read and written."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.errors import UserError
from es_rl.files import write_whole


class Point(NamedTuple):
    """One evaluation of the mean policy during training."""

    env_steps: int
    seconds: float
    """Of training, without compilation and evaluation."""
    return_mean: float


@dataclass(frozen=True)
class Task:
    """An environment, and when it counts as solved."""

    env: str
    """The id of the environment, as `envs.make` takes it."""
    threshold: float
    """An evaluation return that solves the task."""
    env_steps: int
    """Budget of a run; it ends with whichever budget is spent first."""
    seconds: float
    """Budget of a run: training, without compilation and evaluation."""
    stop_when_solved: bool = False
    """Whether a run ends with the evaluation that reaches the threshold; then the time to it is
    what agents are compared by, and final returns say no more than that it was reached."""
    evaluations: int = 20
    """How often a run that spends its seconds is evaluated, in even intervals of training time;
    times to the threshold are about as coarse. There are more: after the first generation,
    and, where runs stop when solved, whenever the returns of training reach the threshold."""
    evaluation_episodes: int = 32
    """Of each of these; the fewer, the more a run that stops when solved may owe to luck."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    random_return: float | None = None
    """The mean return of random actions, the zero of normalised scores."""
    name: str = ""
    """What the task is called: the environment's id unless given, so that one environment can stand
    in two tasks with other arguments."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.env)


@dataclass(frozen=True)
class Run:
    """One agent trained on one task from one seed."""

    task: str
    """The task's name."""
    agent: str
    """The agent's name in the suite."""
    seed: int
    error: str | None
    """Why it failed, in one line; None if it did not. All fields after this one are empty if it
    failed."""
    returns: tuple[float, ...] = ()
    """Of the episodes of the final evaluation, whose seeds no evaluation before has used."""
    env_steps: int = 0
    seconds: float = 0.0
    """Of training, without compilation and evaluation."""
    compile_seconds: float = 0.0
    """Spent by the first seed of a task and agent; the others use what it compiled."""
    evaluation_seconds: float = 0.0
    devices: int = 1
    """How many devices (on a CPU: cores) it had, so that device-seconds = devices x seconds."""
    curve: tuple[Point, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    """The agent's configuration."""
    kind: str = ""
    """The registered name of the agent, which a suite may give a name of its own."""
    source: str = ""
    """Where its hyperparameters come from."""
    policy: str | None = None
    """The folder of the final policy, from the comparison's folder."""

    @property
    def return_mean(self) -> float:
        """The mean return of the final evaluation."""
        return float(np.mean(self.returns))

    def first_reaching(self, threshold: float) -> Point | None:
        """The first evaluation during training whose mean return is at least `threshold`."""
        return next((p for p in self.curve if p.return_mean >= threshold), None)

    def last_below(self, threshold: float) -> Point | None:
        """The evaluation before that one; the last of all where there is none."""
        first = self.first_reaching(threshold)
        before = self.curve if first is None else self.curve[: self.curve.index(first)]
        return before[-1] if before else None


@dataclass(frozen=True)
class Results:
    """A whole comparison."""

    suite: str
    command: str
    """That made it."""
    agents: tuple[str, ...]
    tasks: tuple[Task, ...]
    runs: tuple[Run, ...]
    """By task, agent and seed, failed ones included; where an agent cannot play a task at all
    (as `sbx_ppo` outside Gymnasium) there are none."""
    versions: dict[str, str]
    machine: dict[str, str]

    def of(self, task: str, agent: str) -> list[Run]:
        """The runs of an agent on a task that did not fail, by seed."""
        return [r for r in self.runs if (r.task, r.agent, r.error) == (task, agent, None)]

    def failed(self) -> list[Run]:
        """The runs that failed."""
        return [r for r in self.runs if r.error is not None]


def save(results: Results, path: Path) -> None:
    """Write as JSON."""
    write_whole(path, (json.dumps(asdict(results), indent=1) + "\n").encode())


def load(path: Path) -> Results:
    """Read what `save` wrote.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        raw = json.loads(path.read_text())
        tasks: Sequence[Any] = raw.pop("tasks")
        runs: Sequence[Any] = raw.pop("runs")
        agents: Sequence[str] = raw.pop("agents")
        return Results(
            **raw,
            agents=tuple(agents),
            tasks=tuple(Task(**task) for task in tasks),
            runs=tuple(map(run_from_json, runs)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} holds no results of a comparison ({reason})") from error


def run_from_json(raw: dict[str, Any]) -> Run:
    """The run that `asdict` described.

    Raises:
      KeyError, TypeError: it is none.
    """
    points = (Point(*point) for point in raw["curve"])
    curve = tuple(p._replace(return_mean=np.nan) if p.return_mean is None else p for p in points)
    return Run(**{**raw, "curve": curve, "returns": tuple(raw["returns"])})
