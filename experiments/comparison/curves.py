"""Learning curves over seeds, without interpolation; the last point of a seed is its result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from experiments.comparison.results import Results, Run
from experiments.comparison.statistics import Array, iqm, percentiles, resampled

CurveUnit: TypeAlias = Literal["env_steps", "seconds"]
_RESAMPLES = 999
_POINTS = 200


@dataclass(frozen=True)
class SeedCurve:
    """The evaluations of one run, as a step function; arrays have shape (evaluations,)."""

    x: Array
    """Env steps or seconds, in ascending order; the last one is where the run stopped."""
    value: Array
    """The mean return of each evaluation; the last one is that of the final evaluation."""


@dataclass(frozen=True)
class Curve:
    """The IQM over seeds of the evaluation return, as a step function; arrays have shape
    (points,)."""

    x: Array
    """Env steps or seconds, in ascending order, up to the end of the axis."""
    value: Array
    """The IQM over seeds at each x; the last one is that of the final evaluations."""
    band: tuple[Array, Array] | None
    """The ends of the pointwise 95 % interval; None for one seed."""
    stop: float
    """Where the last seed stopped; one of `x`. The values do not change after it."""
    seeds: tuple[SeedCurve, ...]
    """The curve of each seed."""


def axis_range(results: Results, task: str, unit: CurveUnit) -> tuple[float, float] | None:
    """The ends of the axis on which the curves of a task are drawn: the smallest and the largest x
    of all agents' evaluations, and half the smallest one above 0 if there are evaluations at 0,
    which a logarithmic axis cannot show.

    Returns:
      The two ends; None if no run has evaluations in this unit.
    """
    curves = [_seed_curve(r, unit) for agent in results.agents for r in results.of(task, agent)]
    xs = [x for curve in curves if curve is not None for x in curve.x]
    above = [x for x in xs if x > 0]
    if not above:
        return None
    return min(above) / (2 if len(above) < len(xs) else 1), max(above)


def learning_curve(runs: Sequence[Run], unit: CurveUnit, axis: tuple[float, float]) -> Curve | None:
    """The IQM over runs of the latest evaluation, from where every run has one to the end of the
    axis.

    A run that stopped keeps its last value, which is that of its final evaluation: the number of
    tables. Evaluations during training that are not finite are left out.

    Args:
      runs: runs of one agent on one task.
      unit: the unit of x.
      axis: the ends of the axis; evaluations before its start are drawn there.

    Returns:
      The curve; None if there are no runs, or if one of them has no seconds and they are the unit.
    """
    start, end = axis
    seeds = []
    for run in runs:
        curve = _seed_curve(run, unit)
        if curve is None:
            return None
        seeds.append(SeedCurve(np.maximum(curve.x, start), curve.value))
    if not seeds:
        return None
    grid = np.unique(np.concatenate([curve.x for curve in seeds]))
    grid = grid[grid >= max(curve.x[0] for curve in seeds)]
    thinned = grid[np.linspace(0, grid.size - 1, _POINTS).round().astype(int)]
    stop = float(grid[-1])
    grid = np.unique([*thinned, max(stop, end)])
    # The step function's value at x is that of the last evaluation at or before x.
    seen = [c.value[np.searchsorted(c.x, grid, side="right") - 1] for c in seeds]
    values = np.sort(np.stack(seen, axis=-1), axis=-1)  # (points, seeds)
    band = None
    if len(runs) > 1:
        band = percentiles(resampled([values], iqm, _RESAMPLES))
    return Curve(grid, iqm(values), band, stop, tuple(seeds))


def _seed_curve(run: Run, unit: CurveUnit) -> SeedCurve | None:
    """The evaluations of a run, of which the final one stands in place of the last one during
    training; None if the run does not have this unit."""
    end = getattr(run, unit)
    if end is None:
        return None
    points = [(float(getattr(point, unit)), point.return_mean) for point in run.curve]
    seen = [(x, y) for x, y in points if x < end and math.isfinite(y)]
    xs, values = zip(*seen, (float(end), run.return_mean), strict=True)
    return SeedCurve(np.array(xs), np.array(values))
