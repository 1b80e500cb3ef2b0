"""When a run ends and when it does what, and how far it has come."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from agents import settings
from agents.policies.network import Weights
from agents.policies.policy_files import MOST_EPISODES
from agents.settings import expected
from agents.training.evaluation import Evaluation
from envs.errors import UserError

_MOST_COUNT = 2**62
"""Of generations and env steps."""


@dataclass
class Progress:
    """How far a run has come, beside the agent's state."""

    generation: int = 0
    """How many are done."""
    env_steps: int = 0
    skipped: int = 0
    """Updates in a row that were skipped."""
    wall_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    """Of these, what was not training."""
    evaluated_seconds: float | None = None
    """Seconds of training at the last evaluation."""
    evaluated_generation: int | None = None
    """Generations that were done then."""
    evaluation: Evaluation | None = None
    """The last one."""
    best_generation: int = 0
    best_env_steps: int = 0
    best_evaluation: Evaluation | None = None
    best_weights: Weights = field(default_factory=lambda: Weights({}, np.zeros(0), np.zeros(0)))
    """Those of the best evaluation; an array tree, saved with the state."""

    def to_json(self) -> dict[str, Any]:
        """All but the weights."""
        values = {k: v for k, v in vars(self).items() if k != "best_weights"}
        return {k: v.to_json() if isinstance(v, Evaluation) else v for k, v in values.items()}

    @staticmethod
    def from_json(values: dict[str, Any], best_weights: Weights | None = None) -> "Progress":
        """What `to_json` was made from.

        Raises:
          UserError: it is none of any progress.
        """
        kinds = get_type_hints(Progress)
        del kinds["best_weights"]
        if not isinstance(values, dict) or values.keys() != kinds.keys():
            raise UserError(f"progress must be an object of {', '.join(kinds)}")
        taken = dict(values)
        for name, value in values.items():
            if kinds[name] == Evaluation | None:
                taken[name] = None if value is None else Evaluation.from_json(value)
                continue
            wanted = expected(value, kinds[name], largest=_MOST_COUNT)
            if wanted is None and isinstance(value, int | float) and value < 0:
                wanted = "at least 0"
            if wanted is not None:
                raise UserError(f"{name} of its progress must be {wanted}")
        progress = Progress(**taken)
        progress._check()
        return progress if best_weights is None else replace(progress, best_weights=best_weights)

    def _check(self) -> None:
        """Refuse numbers that cannot be true together."""
        of_last = (self.evaluation, self.evaluated_generation, self.evaluated_seconds)
        if len({x is None for x in (*of_last, self.best_evaluation)}) > 1:
            raise UserError("evaluations of its progress must be all there or none")
        for name, most in (
            ("skipped", self.generation),
            ("evaluated_generation", self.generation),
            ("best_generation", self.evaluated_generation or 0),
            ("best_env_steps", self.env_steps),
            ("evaluation_seconds", self.wall_seconds),
        ):
            if (getattr(self, name) or 0) > most:
                raise UserError(f"{name} of its progress must be at most {most}")

    def note(self, evaluation: Evaluation, weights: Weights, seconds: float) -> None:
        """Take in an evaluation of the policy as it stands."""
        self.evaluation, self.evaluated_seconds = evaluation, seconds
        self.evaluated_generation = self.generation
        # A mean that is not finite is better than nothing, and than nothing else.
        best = math.nan if self.best_evaluation is None else self.best_evaluation.mean
        if not math.isfinite(best) or evaluation.mean >= best:
            self.best_evaluation, self.best_weights = evaluation, weights
            self.best_generation, self.best_env_steps = self.generation, self.env_steps


@dataclass(frozen=True)
class Schedule:
    """Budgets and intervals of a run; see `agents.train`."""

    env_steps: int
    seconds: float
    target_return: float | None
    eval_every: int
    eval_seconds: float | None
    eval_episodes: int
    checkpoint_every: int | None
    checkpoint_seconds: float | None
    keep: int

    def __post_init__(self) -> None:
        settings.as_python(self)
        for name in ("env_steps", "eval_every", "eval_episodes", "checkpoint_every", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        if self.eval_episodes > MOST_EPISODES:
            raise UserError(f"eval_episodes={self.eval_episodes}: must be at most {MOST_EPISODES}")
        for name in ("seconds", "eval_seconds", "checkpoint_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name}={value}: must be a number of seconds above 0")

    @property
    def has_checkpoints(self) -> bool:
        """Whether the run leaves any."""
        return self.checkpoint_every is not None or self.checkpoint_seconds is not None

    def over(self, progress: Progress, training_seconds: float) -> bool:
        """Whether a budget is spent."""
        return progress.env_steps >= self.env_steps or training_seconds >= self.seconds

    def reached(self, value: float) -> bool:
        """Whether a return is as good as the target."""
        return self.target_return is not None and value >= self.target_return

    def evaluates(self, progress: Progress, training_seconds: float) -> bool:
        """Whether the generation that is just done is to be evaluated."""
        if self.eval_seconds is None:
            return (progress.generation - 1) % self.eval_every == 0
        last = progress.evaluated_seconds
        return last is None or training_seconds - last >= self.eval_seconds

    def saves(self, progress: Progress, seconds_since: float) -> bool:
        """Whether there is to be a checkpoint after the generation that is just done."""
        every, seconds = self.checkpoint_every, self.checkpoint_seconds
        due = every is not None and progress.generation % every == 0
        return due or (seconds is not None and seconds_since >= seconds)


class Abandoned(Exception):
    """A signal came while an iteration was under way: the run goes on from the state before."""


class Now(NamedTuple):
    """What all processes take to be true."""

    wall: float
    """Seconds of the run."""
    training: float
    """Of these, what was training."""
    stop: bool
    """Whether a signal says so."""


class Clock:
    """Seconds of a run, and how many of them were not spent on training."""

    def __init__(self, wall: float = 0.0, aside: float = 0.0):
        self._began = time.perf_counter() - wall
        self.aside = aside

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._began

    @property
    def training(self) -> float:
        return self.wall - self.aside

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count what is done meanwhile as not training."""
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began
