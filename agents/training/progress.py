"""How far a run has come, and its clock."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from agents.policies.network import Weights
from agents.settings import expected
from agents.training.evaluation import Evaluation
from envs.errors import UserError

_MOST_COUNT = 2**62
"""The largest count of generations and env steps in a file."""


@dataclass
class Progress:
    """How far a run has come, apart from the agent's state."""

    generation: int = 0
    """The number of generations that are done."""
    env_steps: int = 0
    """The number of env steps of these generations."""
    skipped: int = 0
    """The number of updates in a row, up to the last one, that were skipped."""
    wall_seconds: float = 0.0
    """Seconds of training and evaluation together."""
    evaluation_seconds: float = 0.0
    """The part of `wall_seconds` that was not training."""
    evaluated_seconds: float | None = None
    """Seconds of training before the last evaluation."""
    evaluated_env_steps: int = 0
    """The number of env steps before the last evaluation."""
    evaluated_generation: int | None = None
    """The number of generations before the last evaluation."""
    evaluation: Evaluation | None = None
    """The last evaluation."""
    best_generation: int = 0
    """The number of generations before the best evaluation."""
    best_env_steps: int = 0
    """The number of env steps before the best evaluation."""
    best_evaluation: Evaluation | None = None
    """The evaluation with the highest mean return."""
    best_weights: Weights = field(default_factory=lambda: Weights({}, np.zeros(0), np.zeros(0)))
    """The weights that earned the best evaluation: a pytree of arrays, saved with the state."""

    def to_json(self) -> dict[str, Any]:
        """The progress as JSON values, without the weights."""
        values = {k: v for k, v in vars(self).items() if k != "best_weights"}
        return {k: v.to_json() if isinstance(v, Evaluation) else v for k, v in values.items()}

    @staticmethod
    def from_json(values: dict[str, Any], best_weights: Weights | None = None) -> "Progress":
        """The progress that `to_json` wrote.

        Raises:
          UserError: the values do not describe a progress.
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
        """Refuse numbers that contradict each other."""
        of_last = (self.evaluation, self.evaluated_generation, self.evaluated_seconds)
        if len({x is None for x in (*of_last, self.best_evaluation)}) > 1:
            raise UserError("evaluations of its progress must be all there or none")
        for name, most in (
            ("skipped", self.generation),
            ("evaluated_generation", self.generation),
            ("best_generation", self.evaluated_generation or 0),
            ("evaluated_env_steps", self.env_steps),
            ("best_env_steps", self.evaluated_env_steps),
            ("evaluation_seconds", self.wall_seconds),
        ):
            if (getattr(self, name) or 0) > most:
                raise UserError(f"{name} of its progress must be at most {most}")

    def note(self, evaluation: Evaluation, weights: Weights, seconds: float) -> None:
        """Record an evaluation of the current policy."""
        self.evaluation, self.evaluated_seconds = evaluation, seconds
        self.evaluated_generation, self.evaluated_env_steps = self.generation, self.env_steps
        # Any evaluation replaces a best one that is not finite.
        best = math.nan if self.best_evaluation is None else self.best_evaluation.mean
        if not math.isfinite(best) or evaluation.mean >= best:
            self.best_evaluation, self.best_weights = evaluation, weights
            self.best_generation, self.best_env_steps = self.generation, self.env_steps


class Abandoned(Exception):
    """A signal arrived during an iteration, whose results are dropped; the state before it is
    kept."""


class Now(NamedTuple):
    """The time and the decision to stop, on which all processes have agreed."""

    wall: float
    """Seconds of the run."""
    training: float
    """Seconds of training, without evaluation and checkpoints."""
    stop: bool
    """Whether a process has received a signal to stop."""


class Clock:
    """Measures the seconds of a run, and how many of them were not spent on training."""

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
        """Count the time within this context as not spent on training."""
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began
