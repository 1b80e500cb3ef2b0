"""What the seeds of a comparison say: every number with its interval, or why it has none.

Interquartile means, stratified bootstrap intervals, normalised scores and the probability of
improvement as Agarwal et al. 2021 propose (arXiv 2108.13264). All is deterministic, and no order of
the seeds changes anything.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from scipy.stats import bootstrap, trim_mean

from experiments.comparison.results import Point, Results, Run, Task

RESAMPLES = 9_999  # so that the quantiles of 95 % are the 250th from either end
_CONFIDENCE = 0.95
_SEED = 0

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Statistic: TypeAlias = Callable[..., Array]
"""Called with samples (..., n) and axis=-1; gives (...)."""
Unit: TypeAlias = Literal["env_steps", "seconds", "device_seconds"]


@dataclass(frozen=True)
class Estimate:
    """A number, and the 95 % interval of it."""

    value: float
    interval: tuple[float, float] | None
    reason: str = ""
    """Why there is no interval."""


class Bound(NamedTuple):
    """A time, or what it exceeds."""

    value: float
    exceeded: bool
    """The true one is larger, nobody knows by how much."""


@dataclass(frozen=True)
class ToThreshold:
    """What an agent spends until its policy reaches the threshold of a task.

    That is seen at evaluations only: a seed reaches it after its last evaluation below, and not
    after its first one at or above it.
    """

    reached: int
    seeds: int
    after: float
    """The median over seeds of what was spent at the former..."""
    median: Bound
    """...and at the latter: the true median lies between them."""
    interval: tuple[Bound, Bound] | None
    """From the low end of that of `after` to the high end of that of `median`."""
    reason: str = ""
    """Why there is no interval."""


@dataclass(frozen=True)
class Improvement:
    """How likely a run of one agent is better than one of another."""

    tasks: tuple[str, ...]
    """That both play; the probability is the mean over them."""
    probability: Estimate


@dataclass(frozen=True)
class Aggregate:
    """Normalised scores over the tasks that all agents play."""

    tasks: tuple[str, ...]
    scores: dict[str, Estimate]
    """By agent."""
    left_out: tuple[str, ...]
    """Sentences: which task or agent, and why."""


def iqm(*samples: Array, axis: int = -1) -> Array:
    """The interquartile mean of all samples together; of fewer than 4 values, their mean."""
    return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def mean(*samples: Array, axis: int = -1) -> Array:
    """The mean of all samples together."""
    return np.mean(np.concatenate(samples, axis=axis), axis=axis)


def median(*samples: Array, axis: int = -1) -> Array:
    """The median of all samples together; infinite values count."""
    return np.median(np.concatenate(samples, axis=axis), axis=axis)


def estimate(samples: Sequence[Sequence[float]], statistic: Statistic) -> Estimate:
    """A statistic with its interval: percentiles of a bootstrap that resamples every sample alone.

    Args:
      samples: the strata, as the seeds of each task; none empty.
      statistic: called with one array for each of them.
    """
    strata = [np.sort(np.asarray(sample, float)) for sample in samples]
    value = float(statistic(*strata, axis=-1))
    if min(len(stratum) for stratum in strata) < 2:
        return Estimate(value, None, "1 seed, no interval")
    low, high = percentiles(resampled(strata, statistic, RESAMPLES))
    return Estimate(value, (float(low), float(high)))


def resampled(strata: Sequence[Array], statistic: Statistic, resamples: int) -> Array:
    """The statistic of every resample, of shape (..., resamples)."""
    rng = np.random.default_rng(_SEED)
    options: dict[str, Any] = {"method": "percentile", "vectorized": True, "axis": -1}
    # Infinite times make what SciPy computes besides, and we do not use, NaN.
    with np.errstate(invalid="ignore"):
        found = bootstrap(strata, statistic, n_resamples=resamples, rng=rng, **options)
    return found.bootstrap_distribution


def percentiles(distribution: Array) -> tuple[Array, Array]:
    """The ends of the interval along the last axis; values that occur, as some are infinite."""
    ordered = np.sort(distribution, axis=-1)
    tail = round((ordered.shape[-1] + 1) * (1 - _CONFIDENCE) / 2)
    return ordered[..., tail - 1], ordered[..., -tail]


def final_return(
    results: Results, task: str, agent: str, statistic: Statistic = iqm
) -> Estimate | None:
    """Of the mean returns of the final evaluations, over seeds; None without runs."""
    returns = _returns(results, task, agent)
    return estimate([returns], statistic) if returns else None


def final_score(results: Results, task: Task, agent: str) -> Estimate | None:
    """The IQM over seeds of normalised scores; None without runs or such a scale."""
    scores = _scores(results, task, agent)
    return estimate([scores], iqm) if scores else None


def difference(results: Results, task: str, agent: str, other: str) -> Estimate | None:
    """The IQM of the returns of an agent less that of another; None where one has no runs."""
    samples = [_returns(results, task, agent), _returns(results, task, other)]
    if not all(samples):
        return None
    return estimate(samples, lambda a, b, axis: iqm(a, axis=axis) - iqm(b, axis=axis))


def improvement(results: Results, agent: str, other: str) -> Improvement | None:
    """P(agent better than other): the mean over tasks; None without a common task."""
    tasks = [t for t in results.tasks if results.of(t.name, agent) and results.of(t.name, other)]
    if not tasks:
        return None
    chance = chance_of_better(results, tasks, agent, other)
    return Improvement(tuple(task.name for task in tasks), chance)


def chance_of_better(results: Results, tasks: Sequence[Task], agent: str, other: str) -> Estimate:
    """How likely a run of an agent is better than one of another; the mean over tasks of both.

    A tie counts half, as that of two runs which never solve a task whose runs stop when solved.
    """
    samples = [
        [performance(task, run) for run in results.of(task.name, name)]
        for task in tasks
        for name in (agent, other)
    ]
    return estimate(samples, _share_of_wins)


def performance(task: Task, run: Run) -> float:
    """What a run is judged by, more is better.

    Its final return; but where runs stop when solved, as soon as they return enough, it is minus
    the seconds to the threshold, minus infinity for those that never get there.
    """
    if not task.stop_when_solved:
        return run.return_mean
    first = run.first_reaching(task.threshold)
    return -math.inf if first is None else -first.seconds


def to_threshold(results: Results, task: Task, agent: str, unit: Unit) -> ToThreshold | None:
    """What the median seed spends until it reaches the threshold; None without runs.

    Nothing is interpolated between evaluations. A seed that never gets there counts as infinite:
    where that makes the median or the end of its interval infinite, the bound is the same quantile
    of what was spent below the threshold, by those seeds in all.
    """
    runs = results.of(task.name, agent)
    if not runs:
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
    if math.isinf(times.interval[0]):  # nearly every resample: nothing that was measured
        return replace(found, reason="too few seeds, no interval")
    low, high = Bound(floors.interval[0], False), _bound(times.interval[1], floors.interval[1])
    return replace(found, interval=(low, high))


def times_as_long(ours: ToThreshold, theirs: ToThreshold) -> tuple[float, float]:
    """Between which bounds the ratio of their median to ours lies, as far as evaluations tell.

    The bounds are those of the grid of evaluations alone, for these seeds: 0 and infinity where
    they tell nothing.
    """
    low = 0.0 if ours.median.exceeded else theirs.after / ours.median.value
    open_end = theirs.median.exceeded or ours.after == 0
    return low, math.inf if open_end else theirs.median.value / ours.after


def _spent_below(run: Run, threshold: float, unit: Unit) -> float:
    """What a run had spent at its last evaluation below a threshold; in all if it stays below."""
    if run.first_reaching(threshold) is None:
        return spent_until(run, None, unit)
    point = run.last_below(threshold)
    return 0.0 if point is None else spent_until(run, point, unit)


def spent_until(run: Run, point: Point | None, unit: Unit) -> float:
    """What a run has spent at an evaluation; at its end without one."""
    at = run if point is None else point
    match unit:
        case "env_steps":
            return float(at.env_steps)
        case "seconds":
            return at.seconds
        case "device_seconds":
            return at.seconds * run.devices


def normalised(task: Task, value: float) -> float | None:
    """0 is the return of random actions, 1 the threshold; None where the task has no such scale.

    Where runs stop when solved more than 1 is luck, and counts as 1.
    """
    if task.random_return is None or task.threshold <= task.random_return:
        return None
    score = (value - task.random_return) / (task.threshold - task.random_return)
    return min(score, 1.0) if task.stop_when_solved else score


def aggregate(results: Results) -> Aggregate:
    """The IQM over tasks and seeds of normalised scores, on the tasks that all agents play.

    An agent without a single run is left out, so that it does not take all tasks from the others.
    """
    played = {a: [t.name for t in results.tasks if results.of(t.name, a)] for a in results.agents}
    agents = [agent for agent in results.agents if played[agent]]
    left_out = [f"{agent}: it has no run." for agent in results.agents if not played[agent]]
    tasks = []
    for task in results.tasks:
        without = [agent for agent in agents if task.name not in played[agent]]
        if without:
            left_out.append(f"{task.name}: no run of {', '.join(without)}.")
        elif normalised(task, 0.0) is None:
            known = "no return of random actions is known"
            above = "its threshold is not above the return of random actions"
            left_out.append(f"{task.name}: {known if task.random_return is None else above}.")
        else:
            tasks.append(task)
    scores = {}
    for agent in agents if tasks else ():
        scores[agent] = estimate([_scores(results, task, agent) for task in tasks], iqm)
    return Aggregate(tuple(task.name for task in tasks), scores, tuple(left_out))


def _returns(results: Results, task: str, agent: str) -> list[float]:
    return [run.return_mean for run in results.of(task, agent)]


def _scores(results: Results, task: Task, agent: str) -> list[float]:
    scores = [normalised(task, value) for value in _returns(results, task.name, agent)]
    return [score for score in scores if score is not None]


def _share_of_wins(*samples: Array, axis: int) -> Array:
    """The samples are those of either agent on the first task, on the second, and so on."""
    shares = []
    for ours, theirs in zip(samples[::2], samples[1::2], strict=True):
        x, y = ours[..., :, None], theirs[..., None, :]
        shares.append(((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1)))
    return np.mean(shares, axis=0)


def _bound(time: float, floor: float) -> Bound:
    return Bound(time, False) if math.isfinite(time) else Bound(floor, True)
