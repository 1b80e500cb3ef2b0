"""A trial: an agent with given settings is trained from several seeds, and what it earns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

import agents
from agents.base import Agent
from agents.training.evaluation import Evaluator
from agents.training.run_config import RunConfig
from envs.base import Env, HostEnv
from envs.errors import UserError
from experiments.comparison.trials import Stopped, make_evaluator
from experiments.progress import shown_progress

ObjectiveName: TypeAlias = Literal["final", "area"]
Report: TypeAlias = Callable[[int, float], None]
"""(step, value): is told how good the trial is so far; it may raise an exception to end it."""
FIRST_SEED = 100
"""The least seed of a trial: those below are kept for what is reported of the tuned settings."""
_FINAL_SEED = 2
"""The evaluation seed of the objective `final`; training uses 0, and comparisons report 1."""


@dataclass(frozen=True)
class Protocol:
    """What the trials of a study have in common; it never changes within a study."""

    env: str
    """The id of the environment."""
    env_kwargs: dict[str, Any]
    """The arguments of the environment."""
    train_env_kwargs: dict[str, Any] | None
    """Those of the environment of training; None if it is the same."""
    agent: str
    """The registered name of the agent."""
    base: dict[str, Any]
    """All settings of the agent before any is drawn: the environment's preset, and the flags."""
    fixed: tuple[str, ...]
    """The settings that flags have fixed."""
    space: str
    """The name of the search space: "module:function", or that of the bundled function."""
    seeds: int
    """The number of seeds of a trial."""
    first_seed: int
    """The first of the seeds, which follow each other."""
    env_steps: int
    """The budget of a seed in env steps."""
    seconds: float | None
    """The budget of a seed in seconds of training; None sets no limit."""
    objective: ObjectiveName
    """What is made of the evaluations of a seed: see `SeedResult.value`."""
    evaluations: int
    """Evaluations of the mean policy after equal shares of the budget."""
    eval_episodes: int | None
    """Episodes of an evaluation; None for as many as `es-rl train` plays."""

    @property
    def run(self) -> RunConfig:
        """The budget and the evaluations of each seed."""
        return RunConfig(
            env_steps=self.env_steps, seconds=self.seconds, evaluations=self.evaluations
        )


class Evaluated(NamedTuple):
    """An evaluation of the mean policy."""

    share: float
    """The share of the budget that was spent before, at most 1."""
    env_steps: int
    """Env steps before the evaluation."""
    seconds: float
    """Seconds of training before the evaluation."""
    return_mean: float
    """The mean return of its episodes."""


@dataclass(frozen=True)
class SeedResult:
    """What training from one seed came to."""

    seed: int
    """The seed of the run."""
    value: float
    """The objective. final: the mean return of the last policy on episodes that no evaluation of
    the run has played. area: the mean of the evaluation curve over the budget (`area_of`)."""
    env_steps: int
    """Env steps of the run."""
    seconds: float
    """Seconds of training."""
    curve: tuple[Evaluated, ...]
    """The evaluations of the run, in the order of their time."""


def area_of(curve: list[Evaluated]) -> float:
    """The mean evaluation return over the share of the budget that is spent.

    It is the area below straight lines from evaluation to evaluation, divided by that share; before
    the first evaluation its value is used.
    """
    shares = [0.0, *(point.share for point in curve)]
    values = [curve[0].return_mean, *(point.return_mean for point in curve)]
    return float(np.trapezoid(values, shares)) / shares[-1]


@dataclass
class _Curve:
    """Keeps the evaluations of a run, and reports the trial's value so far."""

    protocol: Protocol
    before: list[float]
    """The values of the seeds that have ended."""
    report: Report
    points: list[Evaluated] = field(default_factory=list)
    """The evaluations so far."""
    passed: int = 0
    """Shares of the budget that have been spent, of as many as there are evaluations."""

    def __call__(self, metrics: dict[str, Any]) -> None:
        protocol, mean = self.protocol, metrics.get("eval_return_mean")
        if mean is None:
            return
        if not np.isfinite(mean):
            raise UserError("an evaluation is not finite")
        steps = metrics["env_steps"]
        seconds = metrics["wall_seconds"] - metrics["evaluation_seconds"]
        passed = protocol.run.evaluations_due(steps, seconds)
        self.points.append(Evaluated(protocol.run.share(steps, seconds), steps, seconds, mean))
        if passed > self.passed:
            self.passed = passed
            value = area_of(self.points) if protocol.objective == "area" else mean
            step = len(self.before) * protocol.evaluations + passed
            self.report(step, float(np.mean([*self.before, value])))


def train_seeds(
    env: Env | HostEnv,
    train_env: Env | HostEnv | None,
    protocol: Protocol,
    settings: dict[str, Any],
    report: Report,
    ended: Callable[[SeedResult], None],
) -> float:
    """Train an agent from every seed of the protocol; the mean of what they earn.

    Nothing is written.

    Args:
      env: the environment of the protocol.
      train_env: the one of training, if it is another one.
      protocol: what the trials have in common.
      settings: all settings of the agent.
      report: is told the mean value of the seeds so far after each share of a seed's budget, the
        present seed with what it earns then. Steps count such shares, of all seeds, from 1.
      ended: is told the result of each seed.

    Raises:
      UserError: the settings do not go together, training has diverged, or an evaluation was not
        finite.
      Stopped: a signal was received.
      Exception: what `report` has raised.
    """
    values: list[float] = []
    with agents.make(protocol.agent, env, train_env=train_env, **settings) as agent:
        evaluator = make_evaluator(agent)
        for seed in range(protocol.first_seed, protocol.first_seed + protocol.seeds):
            curve = _Curve(protocol, values, report)
            result = _train_seed(agent, evaluator, seed, curve)
            values.append(result.value)
            ended(result)
    return float(np.mean(values))


def _train_seed(agent: Agent, evaluator: Evaluator, seed: int, curve: _Curve) -> SeedResult:
    """Train from one seed; exceptions as in `train_seeds`."""
    protocol = curve.protocol
    with shown_progress(protocol.env, protocol.run) as (show, show_within):

        def on_generation(metrics: dict[str, Any], _: Any) -> None:
            show(metrics)
            curve(metrics)

        result = agents.train(
            agent,
            env_steps=protocol.env_steps,
            seconds=protocol.seconds,
            seed=seed,
            evaluations=protocol.evaluations,
            eval_episodes=protocol.eval_episodes,
            evaluator=evaluator,
            on_generation=on_generation,
            on_progress=show_within,
        )
    if result.stopped_by is not None:
        raise Stopped(result.stopped_by)
    value = area_of(curve.points)
    if protocol.objective == "final":
        episodes = protocol.eval_episodes or agent.stage.default_episodes
        value = evaluator(result.policy.weights, episodes=episodes, seed=_FINAL_SEED).mean
    if not np.isfinite(value):
        raise UserError("the final evaluation is not finite")
    seconds = result.wall_seconds - result.evaluation_seconds
    return SeedResult(seed, value, result.env_steps, seconds, tuple(curve.points))
