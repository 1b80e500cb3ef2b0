"""Which charts the page of a run has: one for each metric that changes, in groups.

Metrics are told apart by their names alone, so those of a user's agent are drawn too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agents.training.loggers import PROBLEMS
from experiments.run_page.charts import Chart, Curve, short, thinned
from experiments.run_page.metrics import Metrics
from experiments.run_page.run import Run

MAIN = "return_mean"
"""The metric of the main chart."""
_APART = ("generation", "env_steps", "wall_seconds", "evaluation_seconds", "eval_episodes")
"""The metrics that have no chart, as the page shows them otherwise."""
_SUFFIXES = ("_std", "_min", "_max")
"""Metrics that belong to the chart of a mean: return_std to that of return_mean."""
_EVALUATION = "eval_"
_GROUPS = (
    ("Returns and success", ("return_", "success_", "train_env_", _EVALUATION)),
    ("Step sizes and norms", ("sigma", "learning_rate", "grad_", "update_norm", "param_")),
    ("Update of the agent", ("",)),
    ("Reported by the environment", ("info_", "train_env_info_", f"{_EVALUATION}info_")),
    ("Speed", ("steps_per_second", "lane_utilization")),
    ("Problems", PROBLEMS),
)
"""The headings of groups, and how the names in them begin; the longest beginning decides."""


class Group(NamedTuple):
    """Charts under one heading."""

    title: str
    charts: list[Chart]


@dataclass(frozen=True)
class Charts:
    """All charts of a run."""

    main: Chart | None
    """The return over env steps; None before the first generation."""
    groups: list[Group]
    """All others."""
    constant: list[str]
    """Metrics that never change, with their value, such as "sigma 0.8"."""


def charts(run: Run) -> Charts:
    """The charts of all metrics of a run."""
    grouped: dict[str, list[Chart]] = {title: [] for title, _ in _GROUPS}
    main, constant = None, []
    for name in _charted(run.metrics.names):
        values = run.metrics[name]
        there = values[np.isfinite(values)]
        counts = name.startswith(PROBLEMS)
        alone = f"{_EVALUATION}{name}" not in run.metrics.names and not counts and name != MAIN
        if alone and len(there) > 1 and np.ptp(there) == 0:
            constant.append(f"{_words(name)} {short(there[0])}")
            continue
        chart = _chart(run, name)
        if chart is None or (counts and not there.any()):
            continue
        if name == MAIN or (main is None and name == f"{_EVALUATION}{MAIN}"):
            main = chart
        else:
            grouped[_group(name)].append(chart)
    return Charts(main, [Group(*item) for item in grouped.items() if item[1]], constant)


def problems(metrics: Metrics) -> Iterator[str]:
    """What went wrong so far: "failed episodes: 12, in 3 of 100 generations"."""
    for name in metrics.names:
        values = np.nan_to_num(metrics[name])
        if name.startswith(PROBLEMS) and values.any():
            generations = f"in {np.count_nonzero(values):,} of {metrics.lines:,} generations"
            yield f"{_words(name)}: {values.sum():,.0f}, {generations}"


def _charted(names: list[str]) -> list[str]:
    """The names of metrics that have a chart of their own, sorted."""
    known = set(names)

    def beside(name: str) -> bool:
        """Whether the chart of another metric shows it."""
        if name.removeprefix(_EVALUATION) in known - {name}:
            return True
        return any(name.endswith(s) and f"{name.removesuffix(s)}_mean" in known for s in _SUFFIXES)

    return sorted(name for name in names if name not in _APART and not beside(name))


def _group(name: str) -> str:
    fits = [(len(s), title) for title, starts in _GROUPS for s in starts if name.startswith(s)]
    return max(fits)[1]


def _words(name: str) -> str:
    """The name of a metric in words."""
    return name.removesuffix("_mean").replace("_", " ").strip() or name


def _chart(run: Run, name: str) -> Chart | None:
    """The chart of a metric, with its evaluations as dots; None if it has no numbers."""
    if name == f"{_EVALUATION}{MAIN}":
        line, dots = None, _evaluations(run)
        return None if dots is None else Chart("Return", dots=dots)
    metrics, stem = run.metrics, name.removesuffix("_mean")
    steps, values, title = metrics["env_steps"], metrics[name], _words(name).capitalize()
    if name.startswith(PROBLEMS):
        values, title = np.nancumsum(values), f"{title} so far"
    low = high = None
    if name.endswith("_mean") and f"{stem}_std" in metrics.names:
        std, least, most = (metrics[f"{stem}{suffix}"] for suffix in _SUFFIXES)
        low, high = np.fmax(values - std, least), np.fmin(values + std, most)
    x, y, band = thinned(steps, values, low, high)
    if not len(y):
        return None
    if name.startswith(PROBLEMS) and band is not None:  # a sum has no mean
        y, band = band.high, None
    label = "training" if name.endswith("_mean") else ""
    line = Curve(label, x, y)
    dots = _evaluations(run) if name == MAIN else _dots(metrics, f"{_EVALUATION}{name}")
    read = []
    for suffix in ("_min", "_max"):
        if name.endswith("_mean") and f"{stem}{suffix}" in metrics.names:
            ends = thinned(steps, metrics[f"{stem}{suffix}"])
            read.append(Curve(suffix.strip("_"), ends[0], ends[1]))
    missing = metrics.not_finite[name]
    notes = [f"Not finite in {missing:,} of {metrics.lines:,} generations."] if missing else []
    if name == MAIN and type(limit := run.saved.settings.get("episode_steps")) is int:
        notes.append(
            f"Training stops episodes after {limit:,} steps (episode_steps) and evaluation does "
            "not, so that the two are not comparable where episodes are longer."
        )
    return Chart(title, line, dots, band, [curve for curve in read if len(curve.x)], notes)


def _dots(metrics: Metrics, name: str) -> Curve | None:
    x, y, _ = thinned(metrics["env_steps"], metrics[name])
    return Curve("evaluation", x, y) if len(x) else None


def _evaluations(run: Run) -> Curve | None:
    """The returns of all evaluations, also of one that is not among the metrics."""
    points = np.array([(point.env_steps, point.mean) for point in run.evaluations])
    if not len(points):
        return None
    x, y, _ = thinned(points[:, 0], points[:, 1])
    return Curve("evaluation", x, y) if len(x) else None
