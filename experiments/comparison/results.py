"""The results of a comparison (tasks and runs), and how they are saved and loaded."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.errors import UserError
from es_rl.files import write_whole

UNLIMITED = 10**12
"""The largest budget in env steps, which no run spends before its seconds."""


class Point(NamedTuple):
    """One evaluation of the mean policy during training."""

    env_steps: int
    seconds: float | None
    """Seconds of training, without compilation and evaluation; None if they are not known, which
    only imported runs can have."""
    return_mean: float
    """The mean return of the evaluation."""


@dataclass(frozen=True)
class Task:
    """An environment, and the return at which it counts as solved."""

    env: str
    """The id of the environment, as `envs.make` takes it."""
    threshold: float
    """An evaluation return that solves the task."""
    env_steps: int
    """The budget of env steps of a run, which ends when the first of its budgets is spent."""
    seconds: float
    """The budget of a run in seconds of training, without compilation and evaluation."""
    stop_when_solved: bool = False
    """Whether a run ends with the evaluation that reaches the threshold. If so, agents are compared
    by the time to the threshold, and final returns only show that it was reached."""
    evaluations: int = 20
    """The number of evaluations after equal shares of the budget that is spent first, which limits
    the precision of times to the threshold. There are further evaluations after the first
    generation and, if runs stop when solved, whenever the training returns reach the threshold
    (unless training has other arguments)."""
    evaluation_episodes: int = 32
    """The episodes of each of these evaluations. With few episodes, a run that stops when solved
    may reach the threshold by luck."""
    final_episodes: int = 128
    """The episodes of the evaluation after training, whose returns are reported."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """The arguments of the environment."""
    train_env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments that the environment has in training alone, besides `env_kwargs`, for all agents
    alike; evaluations are without them."""
    random_return: float | None = None
    """The mean return of random actions, which has the normalised score 0."""
    name: str = ""
    """The name of the task, the environment's id unless given. With names, two tasks can use the
    same environment with different arguments."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.env)

    @property
    def only_seconds(self) -> bool:
        """Whether seconds are the only budget, so that agents are compared after equal times."""
        return self.env_steps >= UNLIMITED


@dataclass(frozen=True)
class Run:
    """One agent trained on one task from one seed."""

    task: str
    """The task's name."""
    agent: str
    """The agent's name in the suite."""
    seed: int
    error: str | None
    """Why the run failed, in one line; None if it did not fail. The fields below are empty if it
    failed."""
    returns: tuple[float, ...] = ()
    """The returns of the final evaluation, whose episodes no earlier evaluation has played."""
    env_steps: int = 0
    """Env steps of training."""
    seconds: float | None = 0.0
    """Seconds of training, without compilation and evaluation; None if they are not known, which
    only imported runs can have."""
    compile_seconds: float = 0.0
    """Seconds of compilation. They are spent by the first seed of a task and agent; the other seeds
    use its programs."""
    evaluation_seconds: float = 0.0
    """Seconds of the evaluations during training."""
    devices: int = 1
    """The number of devices (on a CPU: cores) of the run; device-seconds = devices x seconds. It is
    0 if it is not known, as of imported runs."""
    curve: tuple[Point, ...] = ()
    """The evaluations during training, in order."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The agent's configuration."""
    kind: str = ""
    """The registered name of the agent; `agent` is its name in the suite."""
    source: str = ""
    """Where its hyperparameters come from."""
    policy: str | None = None
    """The folder of the final policy, relative to the comparison's folder."""
    machine: str = ""
    """The processor and the devices of the run. Times of different machines are not comparable."""
    imported_from: str = ""
    """The file with the numbers of a run that was not made here, relative to the comparison's
    folder; "" for a run that was. The only return of an imported run is the mean of its last
    evaluation."""

    @property
    def return_mean(self) -> float:
        """The mean return of the final evaluation."""
        return float(np.mean(self.returns))

    def first_reaching(self, threshold: float) -> Point | None:
        """The first evaluation during training whose mean return is at least `threshold`."""
        return next((p for p in self.curve if p.return_mean >= threshold), None)

    def last_below(self, threshold: float) -> Point | None:
        """The evaluation before `first_reaching(threshold)`; the last evaluation if none reaches
        the threshold."""
        first = self.first_reaching(threshold)
        before = self.curve if first is None else self.curve[: self.curve.index(first)]
        return before[-1] if before else None


@dataclass(frozen=True)
class Results:
    """A whole comparison."""

    suite: str
    """The name of the suite."""
    command: str
    """The command line that made the comparison."""
    agents: tuple[str, ...]
    """The names of the agents; the first is compared with each of the others."""
    tasks: tuple[Task, ...]
    """The tasks of the suite."""
    runs: tuple[Run, ...]
    """All runs, in the order of task, agent and seed, including failed ones. There are none for an
    agent on a task that it cannot play (such as `sbx_ppo` outside Gymnasium). The runs of imported
    agents, which come last, were not made here."""
    versions: dict[str, str]
    """The versions of Python and the libraries."""
    machine: dict[str, str]
    """The machine on which the comparison ended; each run names its own."""
    relative_to: str = ""
    """The agent whose mean return is the relative score 1; there are no such scores if empty."""
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    """Published relative scores by task and agent, of tasks that were not run too."""

    def of(self, task: str, agent: str) -> list[Run]:
        """The runs of an agent on a task that did not fail, in the order of seeds."""
        return [r for r in self.runs if (r.task, r.agent, r.error) == (task, agent, None)]

    def imported_from(self, agent: str) -> str:
        """The file with the numbers of an agent that was not run here; "" if it was."""
        return next((r.imported_from for r in self.runs if r.agent == agent), "")

    def label(self, agent: str) -> str:
        """What tables and legends call an agent: its name, and that it was not run here."""
        return f"{agent} (not run here)" if self.imported_from(agent) else agent

    def failed(self) -> list[Run]:
        """The runs that failed."""
        return [r for r in self.runs if r.error is not None]


def save(results: Results, path: Path) -> None:
    """Write results as a JSON file; what is not finite becomes null, as JSON has no NaN."""
    raw = asdict(results)
    for task in raw["tasks"]:
        if isinstance(task["random_return"], float) and not math.isfinite(task["random_return"]):
            task["random_return"] = None
    raw["runs"] = [_run_to_json(run) for run in results.runs]
    write_whole(path, (json.dumps(raw, indent=1, allow_nan=False) + "\n").encode())


def load(path: Path) -> Results:
    """Read the results that `save` wrote.

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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} holds no results of a comparison ({reason})") from error


def run_text(run: Run) -> str:
    """A run as the text of a JSON file, which `run_from_json` reads."""
    return json.dumps(_run_to_json(run), indent=1, allow_nan=False) + "\n"


def _run_to_json(run: Run) -> dict[str, Any]:
    curve = [p if np.isfinite(p.return_mean) else (*p[:2], None) for p in run.curve]
    return {**asdict(run), "curve": curve}


def run_from_json(raw: dict[str, Any]) -> Run:
    """The run that `asdict` converted to JSON values.

    Raises:
      KeyError, TypeError: the values do not describe a run.
    """
    points = (Point(*point) for point in raw["curve"])
    curve = tuple(p._replace(return_mean=np.nan) if p.return_mean is None else p for p in points)
    return Run(**{**raw, "curve": curve, "returns": tuple(raw["returns"])})
