"""Statistics over the seeds of a comparison: each has an interval, or a reason why it has none.

Interquartile means, stratified bootstrap intervals, normalised scores and the probability of
improvement follow Agarwal et al. 2021 (arXiv 2108.13264). All results are deterministic, and do not
depend on the order of the seeds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from scipy.stats import bootstrap, trim_mean

from experiments.comparison.results import Point, Results, Run, Task

RESAMPLES = 9_999  # the ends of the 95 % interval are then the 250th values from either end
_CONFIDENCE = 0.95
_SEED = 0

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Statistic: TypeAlias = Callable[..., Array]
"""Called with samples (..., n) and axis=-1; returns (...)."""
Unit: TypeAlias = Literal["env_steps", "seconds", "device_seconds"]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    interval: tuple[float, float] | None
    """The ends of the interval; None if it cannot be computed."""
    reason: str = ""
    """Why there is no interval."""


class Bound(NamedTuple):
    """A time, or a lower bound of it."""

    value: float
    exceeded: bool
    """Whether the true time is larger than `value` by an unknown amount."""


@dataclass(frozen=True)
class ToThreshold:
    """What an agent spends (time or env steps) until its policy reaches the threshold of a task.

    This is known only to the precision of evaluations: a seed reaches the threshold between its
    last evaluation below it and its first evaluation at or above it.
    """

    reached: int
    """The number of seeds that reached the threshold."""
    seeds: int
    """The number of seeds."""
    after: float
    """The median over seeds of what was spent at the last evaluation below the threshold. It is a
    lower bound of the true median."""
    median: Bound
    """The median over seeds of what was spent at the first evaluation at or above the threshold. It
    is an upper bound of the true median."""
    interval: tuple[Bound, Bound] | None
    """From the low end of the interval of `after` to the high end of the interval of `median`."""
    reason: str = ""
    """Why there is no interval."""


@dataclass(frozen=True)
class Improvement:
    """The probability that a run of one agent is better than a run of another."""

    tasks: tuple[str, ...]
    """The tasks that both agents play; the probability is the mean over these tasks."""
    probability: Estimate
    """The probability, where a tie counts as half."""


@dataclass(frozen=True)
class Aggregate:
    """Normalised scores over the tasks that all agents play."""

    tasks: tuple[str, ...]
    scores: dict[str, Estimate]
    """The IQM of each agent's scores, by the agent's name."""
    labels: dict[str, str]
    """What tables call these agents (`Results.label`)."""
    left_out: tuple[str, ...]
    """Sentences that name a task or an agent that was left out, and why."""


def iqm(*samples: Array, axis: int = -1) -> Array:
    """The interquartile mean of all samples together; the mean if there are fewer than 4 values."""
    return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def mean(*samples: Array, axis: int = -1) -> Array:
    """The mean of all samples together."""
    return np.mean(np.concatenate(samples, axis=axis), axis=axis)


def median(*samples: Array, axis: int = -1) -> Array:
    """The median of all samples together; infinite values count."""
    return np.median(np.concatenate(samples, axis=axis), axis=axis)


def estimate(samples: Sequence[Sequence[float]], statistic: Statistic) -> Estimate:
    """A statistic with the percentile interval of a bootstrap that resamples each stratum
    separately.

    Args:
      samples: the strata, for example the seeds of each task; none may be empty.
      statistic: called with one array per stratum.
    """
    strata = [np.sort(np.asarray(sample, float)) for sample in samples]
    value = float(statistic(*strata, axis=-1))
    if min(len(stratum) for stratum in strata) < 2:
        return Estimate(value, None, "1 seed, no interval")
    low, high = percentiles(resampled(strata, statistic, RESAMPLES))
    return Estimate(value, (float(low), float(high)))


def resampled(strata: Sequence[Array], statistic: Statistic, resamples: int) -> Array:
    """The statistic of every resample, (..., resamples)."""
    rng = np.random.default_rng(_SEED)
    options: dict[str, Any] = {"method": "percentile", "vectorized": True, "axis": -1}
    # With infinite times, SciPy also computes values that are NaN, which are not used here.
    with np.errstate(invalid="ignore"):
        found = bootstrap(strata, statistic, n_resamples=resamples, rng=rng, **options)
    return found.bootstrap_distribution


def percentiles(distribution: Array) -> tuple[Array, Array]:
    """The ends of the interval along the last axis. They are not interpolated, as values may be
    infinite."""
    ordered = np.sort(distribution, axis=-1)
    tail = round((ordered.shape[-1] + 1) * (1 - _CONFIDENCE) / 2)
    return ordered[..., tail - 1], ordered[..., -tail]


def final_return(
    results: Results, task: str, agent: str, statistic: Statistic = iqm
) -> Estimate | None:
    """A statistic over seeds of the mean returns of the final evaluations; None without runs."""
    returns = _returns(results, task, agent)
    return estimate([returns], statistic) if returns else None


def final_score(results: Results, task: Task, agent: str) -> Estimate | None:
    """The IQM over seeds of normalised scores; None without runs or if the task has no scale."""
    scores = _scores(results, task, agent)
    return estimate([scores], iqm) if scores else None


def relative_score(results: Results, tasks: Sequence[Task], agent: str) -> Estimate | None:
    """The mean over tasks of (m - r) / (p - r), with the mean returns over seeds m of the agent and
    p of `results.relative_to`, and the return r of random actions.

    It is None without tasks, and if on one of them either agent has no runs or there is no scale.
    """
    samples = [
        _returns(results, task.name, name)
        for task in tasks
        for name in (agent, results.relative_to)
    ]
    if not samples or not all(samples):
        return None
    if not all(has_relative_scale(results, task) for task in tasks):
        return None
    zeros = [task.random_return for task in tasks if task.random_return is not None]

    def mean_score(*strata: Array, axis: int) -> Array:
        means = [np.mean(stratum, axis=axis) for stratum in strata]
        pairs = zip(means[::2], means[1::2], zeros, strict=True)
        return np.mean([(ours - zero) / (one - zero) for ours, one, zero in pairs], axis=0)

    if any(min(one) <= zero for one, zero in zip(samples[1::2], zeros, strict=True)):
        # Resamples of such seeds alone would divide by 0 or less.
        reason = f"no interval, as a seed of {results.relative_to} is no better than random"
        return Estimate(float(mean_score(*map(np.array, samples), axis=-1)), None, reason)
    return estimate(samples, mean_score)


def has_relative_scale(results: Results, task: Task) -> bool:
    """Whether relative scores exist on a task: `results.relative_to` has runs, and is better than
    random actions, whose return is known."""
    ones = _returns(results, task.name, results.relative_to)
    if not ones or task.random_return is None:
        return False
    return bool(np.mean(ones) > task.random_return)


def difference(results: Results, task: str, agent: str, other: str) -> Estimate | None:
    """The IQM of an agent's returns minus that of another's; None if either has no runs."""
    samples = [_returns(results, task, agent), _returns(results, task, other)]
    if not all(samples):
        return None
    return estimate(samples, lambda a, b, axis: iqm(a, axis=axis) - iqm(b, axis=axis))


def improvement(results: Results, agent: str, other: str) -> Improvement | None:
    """P(agent is better than other), as the mean over common tasks; None if there are none."""
    both = (agent, other)
    tasks = [t for t in results.tasks if all(comparable(results, t, name) for name in both)]
    if not tasks:
        return None
    chance = chance_of_better(results, tasks, agent, other)
    return Improvement(tuple(task.name for task in tasks), chance)


def chance_of_better(results: Results, tasks: Sequence[Task], agent: str, other: str) -> Estimate:
    """The probability that a run of an agent is better than a run of another, as the mean over
    tasks.

    A tie counts as half, for example if neither of two runs solves a task whose runs stop when
    solved.
    """
    samples = [
        [performance(task, run) for run in results.of(task.name, name)]
        for task in tasks
        for name in (agent, other)
    ]
    return estimate(samples, _share_of_wins)


def performance(task: Task, run: Run) -> float:
    """The number by which a run is judged; larger is better.

    It is the final return. If runs stop when solved, it is minus the seconds to the threshold, or
    minus infinity if the run never reaches it.
    """
    if not task.stop_when_solved:
        return run.return_mean
    first = run.first_reaching(task.threshold)
    return -math.inf if first is None else -spent_until(run, first, "seconds")


def to_threshold(results: Results, task: Task, agent: str, unit: Unit) -> ToThreshold | None:
    """What the median seed spends until it reaches the threshold; None without runs, and if they
    do not have the unit.

    Nothing is interpolated between evaluations. A seed that never reaches the threshold counts as
    infinite. If that makes the median or an end of its interval infinite, the bound is the same
    quantile of what seeds had spent below the threshold; for seeds that never reach it, that is all
    that they spent.
    """
    runs = results.of(task.name, agent)
    if not runs or not is_known(results, task.name, agent, unit):
        return None
    points = [run.first_reaching(task.threshold) for run in runs]
    seen = [
        math.inf if point is None else spent_until(run, point, unit)
        for run, point in zip(runs, points, strict=True)
    ]
    below = [_spent_below(run, task.threshold, unit) for run in runs]
    times, floors = estimate([seen], median), estimate([below], median)
    reached = sum(point is not None for point in points)
    found = ToThreshold(
        reached, len(runs), floors.value, _bound(times.value, floors.value), None, times.reason
    )
    if times.interval is None or floors.interval is None:
        return found
    if math.isinf(times.interval[0]):  # nearly every resample is infinite, so nothing is known
        return replace(found, reason="too few seeds, no interval")
    low, high = Bound(floors.interval[0], False), _bound(times.interval[1], floors.interval[1])
    return replace(found, interval=(low, high))


def is_known(results: Results, task: str, agent: str, unit: Unit) -> bool:
    """Whether every run of an agent on a task has a unit: imported runs may lack seconds, and
    always lack device-seconds."""
    runs = results.of(task, agent)
    if unit == "device_seconds" and not all(run.devices for run in runs):
        return False
    return unit == "env_steps" or all(run.seconds is not None for run in runs)


def comparable(results: Results, task: Task, agent: str) -> bool:
    """Whether an agent can be compared on a task: it has runs and, where seconds decide, seconds
    too."""
    by_seconds = task.stop_when_solved or task.only_seconds
    known = is_known(results, task.name, agent, "seconds" if by_seconds else "env_steps")
    return bool(results.of(task.name, agent)) and known


def times_as_long(ours: ToThreshold, theirs: ToThreshold) -> tuple[float, float]:
    """Bounds of the ratio of their median to ours, given the times of evaluations.

    The bounds account only for the time between evaluations of these seeds, not for the choice of
    seeds. They are 0 and infinity if nothing is known.
    """
    low = 0.0 if ours.median.exceeded else theirs.after / ours.median.value
    open_end = theirs.median.exceeded or ours.after == 0
    return low, math.inf if open_end else theirs.median.value / ours.after


def _spent_below(run: Run, threshold: float, unit: Unit) -> float:
    """What a run had spent at its last evaluation below a threshold; its total if it stays
    below."""
    if run.first_reaching(threshold) is None:
        return spent_until(run, None, unit)
    point = run.last_below(threshold)
    return 0.0 if point is None else spent_until(run, point, unit)


def spent_until(run: Run, point: Point | None, unit: Unit) -> float:
    """What a run, which must have this unit, had spent at an evaluation; its total if `point` is
    None."""
    at = run if point is None else point
    if unit == "env_steps":
        return float(at.env_steps)
    assert at.seconds is not None, "see is_known"
    match unit:
        case "seconds":
            return at.seconds
        case "device_seconds":
            return at.seconds * run.devices


def normalised(task: Task, value: float) -> float | None:
    """A return as a score: 0 for the return of random actions, 1 for the threshold.

    The score is None if the task has no such scale. If runs stop when solved, scores above 1 are
    due to luck, and count as 1.
    """
    # A return of random actions that is not finite (NaN) is no scale either.
    if task.random_return is None or not task.threshold > task.random_return:
        return None
    score = (value - task.random_return) / (task.threshold - task.random_return)
    return min(score, 1.0) if task.stop_when_solved else score


def aggregate(results: Results) -> Aggregate:
    """The IQM over tasks and seeds of normalised scores, on the tasks that all agents play.

    An agent without any run is left out; otherwise no task would remain for the others. So is an
    imported agent that lacks one of the tasks, or seconds where they are the only budget.
    """
    played = {a: [t.name for t in results.tasks if results.of(t.name, a)] for a in results.agents}
    agents = [agent for agent in results.agents if played[agent]]
    left_out = [f"{agent}: it has no run." for agent in results.agents if not played[agent]]
    here = [agent for agent in agents if not results.imported_from(agent)] or agents
    tasks = []
    for task in results.tasks:
        without = [agent for agent in here if task.name not in played[agent]]
        if without:
            left_out.append(f"{task.name}: no run of {', '.join(without)}.")
        elif normalised(task, 0.0) is None:
            known = task.random_return is not None and math.isfinite(task.random_return)
            above = "its threshold is not above the return of random actions"
            unknown = "no finite return of random actions is known"
            left_out.append(f"{task.name}: {above if known else unknown}.")
        else:
            tasks.append(task)
    for agent in [agent for agent in agents if tasks and agent not in here]:
        lacking = [t.name for t in tasks if not comparable(results, t, agent)]
        if lacking:
            agents.remove(agent)
            left_out.append(f"{results.label(agent)}: no run, or no time, on {', '.join(lacking)}.")
    scores = {}
    for agent in agents if tasks else ():
        scores[agent] = estimate([_scores(results, task, agent) for task in tasks], iqm)
    labels = {agent: results.label(agent) for agent in scores}
    return Aggregate(tuple(task.name for task in tasks), scores, labels, tuple(left_out))


def _returns(results: Results, task: str, agent: str) -> list[float]:
    return [run.return_mean for run in results.of(task, agent)]


def _scores(results: Results, task: Task, agent: str) -> list[float]:
    scores = [normalised(task, value) for value in _returns(results, task.name, agent)]
    return [score for score in scores if score is not None]


def _share_of_wins(*samples: Array, axis: int) -> Array:
    """The mean over tasks of P(ours > theirs). The samples are ours and theirs on the first task,
    ours and theirs on the second task, and so on."""
    shares = []
    for ours, theirs in zip(samples[::2], samples[1::2], strict=True):
        x, y = ours[..., :, None], theirs[..., None, :]
        shares.append(((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1)))
    return np.mean(shares, axis=0)


def _bound(time: float, floor: float) -> Bound:
    return Bound(time, False) if math.isfinite(time) else Bound(floor, True)
