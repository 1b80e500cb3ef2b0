"""Learning curves aggregated over seeds, without interpolation or extrapolation of the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from experiments.comparison.results import Run, Task
from experiments.comparison.statistics import Array, iqm, percentiles, resampled

CurveUnit: TypeAlias = Literal["env_steps", "seconds"]
_RESAMPLES = 999
_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """The IQM over seeds of the evaluation return, as a step function; arrays have shape
    (points,)."""

    x: Array
    """Env steps or seconds, in ascending order."""
    value: Array
    """The IQM over seeds at each x."""
    band: tuple[Array, Array] | None
    """The ends of the pointwise 95 % interval; None for one seed."""


def learning_curve(task: Task, runs: Sequence[Run], unit: CurveUnit) -> Curve | None:
    """The IQM over runs of the latest evaluation, where every run has one and no run has ended.

    A run that stopped when it solved the task does not count as ended: its last value continues.
    Evaluations that are not finite are left out, and so are those at x = 0, which a logarithmic
    axis cannot show.

    Returns:
      The curve; None if the runs have no common range of x.
    """
    xs, ys, ends = [], [], []
    for run in runs:
        points = [(float(getattr(p, unit)), p.return_mean) for p in run.curve]
        usable = np.array([(x, y) for x, y in points if x > 0 and math.isfinite(y)])
        if not usable.size:
            return None
        xs.append(usable[:, 0])
        ys.append(usable[:, 1])
        if not task.stop_when_solved or run.first_reaching(task.threshold) is None:
            ends.append(usable[-1, 0])
    if not xs:
        return None
    grid = np.unique(np.concatenate(xs))
    grid = grid[(grid >= max(x[0] for x in xs)) & (grid <= min(ends, default=grid[-1]))]
    if not grid.size:
        return None
    thinned = np.unique(np.linspace(0, grid.size - 1, _POINTS).round().astype(int))
    grid = grid[thinned]
    # The step function's value at x is that of the last evaluation at or before x.
    seen = [y[np.searchsorted(x, grid, side="right") - 1] for x, y in zip(xs, ys, strict=True)]
    values = np.sort(np.stack(seen, axis=-1), axis=-1)  # (points, seeds)
    if len(runs) < 2:
        return Curve(grid, iqm(values), None)
    return Curve(grid, iqm(values), percentiles(resampled([values], iqm, _RESAMPLES)))
