"""The figures of a comparison, as PNG files that are small enough for a phone, and as SVG and PDF
files for papers.

Each agent has one colour and marker in all figures. The colours are Okabe and Ito's,
which colour-blind people can tell apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from es_rl.files import whole
from experiments.comparison.curves import Curve, CurveUnit, axis_range, learning_curve
from experiments.comparison.results import Results, Task
from experiments.comparison.statistics import (
    Estimate,
    ToThreshold,
    aggregate,
    to_threshold,
)
from experiments.comparison.tables import absence, quantity

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY, _DOTTED, _DASHED = "#666666", (0, (1, 1.5)), (0, (4, 2.5))
_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}},
    ".svg": {"metadata": {"Creator": None, "Date": None}},
    ".pdf": {"metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
}
"""What `savefig` is told for each kind of file: dates and the library's version are left out, so
that equal results give equal bytes."""
LOOK: dict[Any, Any] = {
    "font.size": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "text.parse_math": False,  # names may contain a dollar sign
    "svg.fonttype": "none",  # text stays text, in these two as well
    "pdf.fonttype": 42,
    "svg.hashsalt": "es-rl",  # names of parts of the file are then the same each time
}
WIDTH, DPI = 5.6, 120
_HEIGHT = 4.2
_ROW = 0.3
_LONGEST = 16
_EARLIEST = 0.01  # seconds, on a logarithmic axis
_AXES: dict[CurveUnit, str] = {
    "env_steps": "env steps",
    "seconds": "seconds of training",
}


@dataclass(frozen=True)
class Picture:
    """A figure's file, and the texts that belong to it."""

    path: Path
    """The PNG file; beside it are files with the endings .svg and .pdf."""
    alt: str
    """The text for people who cannot see the figure."""
    caption: str
    """The text below the figure."""
    task: str | None = None
    """The name of the task that the figure shows; None for all tasks."""


class _Style(NamedTuple):
    colour: str
    marker: str


def draw(results: Results, folder: Path) -> list[Picture]:
    """Draw all figures for which there are data, as files in `folder`, which is made if it is
    missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(LOOK):
        pictures = [_scores(results, folder / "scores.png")]
        pictures.append(_times(results, folder / "seconds-to-threshold.png"))
        for task, name in zip(results.tasks, _file_names(results.tasks), strict=True):
            for unit in _AXES:
                path = folder / f"{name}-{unit.replace('_', '-')}.png"
                pictures.append(_curves(results, task, unit, path))
    return [picture for picture in pictures if picture is not None]


def _file_names(tasks: Sequence[Task]) -> list[str]:
    """A name for the files of each task, which does not change when later tasks come."""
    names: list[str] = []
    for task in tasks:
        name = re.sub(r"[^A-Za-z0-9]+", "-", task.name).strip("-")[:60]
        while name in names:
            name += "_"
        names.append(name)
    return names


def _style(results: Results, agent: str) -> _Style:
    """The colour and marker of an agent."""
    position = results.agents.index(agent)
    return _Style(*(kinds[position % len(kinds)] for kinds in (COLOURS, _MARKERS)))


def _curves(results: Results, task: Task, unit: CurveUnit, path: Path) -> Picture | None:
    axis = axis_range(results, task.name, unit)
    if axis is None:
        return None
    curves = {a: learning_curve(results.of(task.name, a), unit, axis) for a in results.agents}
    figure = Figure(figsize=(WIDTH, _HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for agent, curve in curves.items():
        if curve is not None:
            _curve(axes, curve, _label(results, agent), _style(results, agent))
    axes.axhline(task.threshold, color=_GREY, linestyle=_DOTTED, label="threshold")
    _log_axis(axes, unit)
    axes.set_xlabel(f"{_AXES[unit]} (log scale)")
    axes.set_ylabel("evaluation return")
    figure.suptitle(task.name, fontsize=12)
    _legend(figure, axes)
    _save_all(figure, path)
    missing = [f"{a} ({_why(results, task, a)})" for a, curve in curves.items() if curve is None]
    return Picture(
        path,
        f"Learning curves on {task.name}: evaluation return over {_AXES[unit]} of "
        + ", ".join(results.label(a) for a, curve in curves.items() if curve is not None),
        f"Return of the mean policy over {_AXES[unit]}: interquartile mean over seeds and its "
        "pointwise 95 % interval, from where every seed has an evaluation; thin lines are seeds. "
        "A line is the latest evaluation, without interpolation, and ends in a marker where the "
        "last seed (a dot: this seed) stopped, with the returns of the final evaluations, those of "
        "the table; it is dashed from there on."
        + (f" No curve: {', '.join(missing)}." if missing else ""),
        task.name,
    )


def _curve(axes: Axes, curve: Curve, label: str, style: _Style) -> None:
    """Draw the curve of an agent, and those of its seeds behind it."""
    colour, marker = style
    end = curve.x[-1]
    for seed in curve.seeds if len(curve.seeds) > 1 else ():
        thin: dict[str, Any] = {"color": colour, "linewidth": 0.8, "alpha": 0.35, "zorder": 1.5}
        axes.step(seed.x, seed.value, where="post", **thin)
        axes.plot(seed.x[-1], seed.value[-1], marker=".", markersize=5, **thin)
        axes.plot((seed.x[-1], end), (seed.value[-1],) * 2, linestyle=_DASHED, **thin)
    moving = curve.x <= curve.stop
    axes.step(
        *(curve.x[moving], curve.value[moving]),
        where="post",
        label=label,
        color=colour,
        linewidth=1.8,
        marker=marker,
        markersize=6,
        markevery=sorted({0, int(moving.sum()) - 1}),
    )
    axes.plot((curve.stop, end), (curve.value[-1],) * 2, color=colour, ls=_DASHED, linewidth=1.8)
    if curve.band is not None:
        axes.fill_between(curve.x, *curve.band, step="post", color=colour, alpha=0.15, linewidth=0)


def _why(results: Results, task: Task, agent: str) -> str:
    played = results.of(task.name, agent)
    return "no seconds" if played else absence(results, task.name, agent)


def _scores(results: Results, path: Path) -> Picture | None:
    found = aggregate(results)
    if not found.scores:
        return None
    figure, axes = _rows(len(found.scores))
    for row, (agent, score) in enumerate(found.scores.items()):
        _dot(axes, results, agent, row, score)
    axes.axvline(0, color=_GREY, linestyle=_DOTTED)
    axes.axvline(1, color=_GREY, linestyle=_DOTTED)
    axes.set_yticks(range(len(found.scores)), [_label(results, agent) for agent in found.scores])
    axes.set_ylim(len(found.scores) - 0.5, -0.5)
    axes.set_xlabel("normalised score: 0 random actions, 1 threshold")
    _save_all(figure, path)
    return Picture(
        path,
        f"Normalised score of {', '.join(found.scores)}, with intervals",
        f"Interquartile mean over tasks that all play ({len(found.tasks)}) and their seeds, with "
        "95 % stratified bootstrap intervals.",
    )


def _dot(axes: Axes, results: Results, agent: str, row: int, score: Estimate) -> None:
    colour, marker = _style(results, agent)
    if score.interval is not None:
        axes.plot(score.interval, (row, row), color=colour, linewidth=3, alpha=0.45)
    axes.plot([score.value], [row], color=colour, marker=marker, markersize=8)


def _times(results: Results, path: Path) -> Picture | None:
    groups: list[tuple[Task, dict[str, ToThreshold]]] = []
    for task in results.tasks:
        found = {a: to_threshold(results, task, a, "seconds") for a in results.agents}
        shown = {agent: times for agent, times in found.items() if times is not None}
        if shown:
            groups.append((task, shown))
    if not groups:
        return None
    figure, axes = _rows(sum(1.4 + len(times) for _, times in groups))
    ticks: dict[float, str] = {}
    row = 0.0
    for task, shown in groups:
        # A task's name has its own line, as names beside the axis would leave little room for the
        # plot.
        transform = axes.get_yaxis_transform()
        axes.text(0, row, task.name, transform=transform, va="center", weight="bold", fontsize=10)
        for agent, times in shown.items():
            row += 1
            ticks[row] = _label(results, agent)
            _interval_of_time(axes, results, agent, row, times)
        row += 1.4
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(row - 0.7, -0.6)
    _log_axis(axes, "seconds")
    axes.set_xlabel("seconds of training to the threshold (log scale)")
    _save_all(figure, path)
    return Picture(
        path,
        "Median seconds of training until the threshold, by task and agent, with intervals",
        "Median over seeds of the seconds of training, without compilation and evaluation: a line "
        "from the last evaluation below the threshold to a marker at the first at or above it, "
        "with 95 % bootstrap intervals around both. A hollow marker and an arrow: longer than "
        f"that, as too few seeds got there. Less than {_EARLIEST} s is drawn as {_EARLIEST} s.",
    )


def _interval_of_time(
    axes: Axes, results: Results, agent: str, row: float, times: ToThreshold
) -> None:
    colour, marker = _style(results, agent)
    middle = max(times.median.value, _EARLIEST)
    low, high = times.interval or (times.median, times.median)
    ends = [max(end.value, _EARLIEST) for end in (low, high)]
    axes.plot(ends, (row, row), color=colour, linewidth=3, alpha=0.45)
    axes.plot([max(times.after, _EARLIEST), middle], (row, row), color=colour, linewidth=1.5)
    face = "white" if times.median.exceeded else colour
    axes.plot([middle], [row], color=colour, marker=marker, markersize=8, markerfacecolor=face)
    if high.exceeded:
        # matplotlib draws the arrow from the (empty) text to the point, so text and point are
        # exchanged.
        axes.annotate(
            *("", (ends[1], row)),
            xytext=(26, 0),
            textcoords="offset points",
            arrowprops={"arrowstyle": "<-", "color": colour, "linewidth": 1.8},
            annotation_clip=False,
        )


def _rows(count: float) -> tuple[Figure, Axes]:
    """A figure with room for `count` rows."""
    size = (WIDTH, 0.9 + _ROW * count)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.grid(False, axis="y")
    return figure, axes


def _label(results: Results, agent: str) -> str:
    """The shortened name of an agent, and that it was not run here."""
    short = agent if len(agent) <= _LONGEST else agent[: _LONGEST - 3] + "..."
    return short + results.label(agent).removeprefix(agent)


def _log_axis(axes: Axes, unit: CurveUnit) -> None:
    """Make the x axis logarithmic, with plain numbers and at least two labels."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x, unit)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _tick(x: float, unit: CurveUnit) -> str:
    return f"{x:,g}" if unit == "seconds" else quantity(x, unit)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), 3)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a file of the kind of its ending: .png, .svg or .pdf. Equal figures give
    equal files."""
    with whole(path) as file:
        figure.savefig(file, format=path.suffix[1:], **_FORMATS[path.suffix])


def _save_all(figure: Figure, path: Path) -> None:
    """Write a figure as files of all kinds, which differ from `path` in their endings."""
    for suffix in _FORMATS:
        save(figure, path.with_suffix(suffix))
