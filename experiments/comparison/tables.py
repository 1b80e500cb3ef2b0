"""A comparison as text: printed numbers, a CSV file with one row per run, a table for the
README."""

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from es_rl.files import write_whole
from experiments.comparison.results import Results, Run, Task
from experiments.comparison.statistics import (
    Bound,
    Estimate,
    ToThreshold,
    Unit,
    final_return,
    normalised,
    spent_until,
    to_threshold,
)

_COLUMNS = (
    *("task", "env", "agent", "seed", "error", "return_mean", "return_std", "episodes", "score"),
    *("threshold", "env_steps_last_below", "env_steps_to_threshold"),
    *("seconds_last_below", "seconds_to_threshold", "env_steps", "seconds"),
    *("devices", "device_seconds", "compile_seconds", "evaluation_seconds", "policy", "source"),
    *("machine", "imported_from", "settings"),
)

COVERAGE = (
    "Intervals of few seeds are too narrow: for the IQM of normal samples, those of 95 % hold the "
    "truth in 75 % of cases with 3 seeds, 89 % with 5 (84 % for the mean), 93 % with 10 and 94 % "
    "with 20."
)


NOTE = (
    "Interquartile mean over seeds of the final evaluation's mean return [95 % stratified "
    "bootstrap interval]; median seconds of training until the threshold in parentheses behind the "
    "task is reached: from the last evaluation below it to the first at or above it, as nobody "
    "looked between them [interval, from the low end for the former to the high end for the "
    f"latter]; how many seeds reach it. {COVERAGE}"
)
"""What the cells of `result_cells` are."""


@dataclass(frozen=True)
class TextTable:
    """A table of text; the first cell of each row is the row's name."""

    title: str
    """The heading of the table."""
    head: tuple[str, ...]
    """The names of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """The cells of each row, one per column."""
    notes: tuple[str, ...] = ()
    """Sentences that are shown below the table."""


def number(value: float, scale: float | None = None) -> str:
    """A number as text, with 3 to 4 significant digits.

    Args:
      value: what to print.
      scale: the largest of the numbers beside it, so that all have the same number of decimals.
    """
    size = abs(value if scale is None else scale)
    if 0 < size < 0.01:
        return f"{value:.2g}"
    decimals = 0 if size >= 1000 or size == 0 else 1 if size >= 10 else 2 if size >= 1 else 3
    rounded = round(value, decimals) + 0.0  # turns -0.0 into 0.0
    return f"{rounded:,.{decimals}f}"


def estimate_text(found: Estimate | None) -> str:
    """An estimate as text, such as "12.3 [11.0, 13.1]"."""
    if found is None:
        return "-"
    if found.interval is None:
        return f"{number(found.value)} ({found.reason})"
    scale = max(map(abs, (found.value, *found.interval)))
    low, high = (number(end, scale) for end in found.interval)
    return f"{number(found.value, scale)} [{low}, {high}]"


def quantity(value: float, unit: Unit) -> str:
    """A quantity as text, such as "12.3 s" or "1.25 M"."""
    if unit != "env_steps":
        return f"{number(value)} s"
    for factor, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{name}"
    return f"{value:.0f}"


def bound_text(bound: Bound, unit: Unit) -> str:
    """A bound as text, such as "12.3 s", or "> 40.0 s" if the true value is larger."""
    return ("> " if bound.exceeded else "") + quantity(bound.value, unit)


def to_threshold_text(found: ToThreshold | None, unit: Unit) -> str:
    """Bounds and interval as text: "11.8 to 12.3 s [10.1, > 40.0]" or "1.2 M to 1.25 M [800 k, 2.1
    M]"."""
    if found is None:
        return "-"
    middle = bound_text(found.median, unit)
    if not found.median.exceeded:
        middle = f"{quantity(found.after, unit).removesuffix(' s')} to {middle}"
    if found.interval is None:
        return f"{middle} ({found.reason})"
    low, high = (bound_text(end, unit).removesuffix(" s") for end in found.interval)
    return f"{middle} [{low}, {high}]"


def ratio_text(bounds: tuple[float, float]) -> str:
    """The bounds of a ratio as text: "2.89 to 14.1", or "at least 2.89" without an upper bound."""
    low, high = bounds
    if math.isinf(high):
        return "not known" if low == 0 else f"at least {number(low)}"
    return f"at most {number(high)}" if low == 0 else f"{number(low)} to {number(high)}"


def absence(results: Results, task: str, agent: str) -> str:
    """Why an agent has no number on a task."""
    failed = failures(results, task, agent)
    return f"failed ({failed} of {failed} seeds)" if failed else "not played"


def failures(results: Results, task: str, agent: str) -> int:
    """How many runs of an agent on a task failed."""
    return sum((run.task, run.agent) == (task, agent) for run in results.failed())


def write_csv(results: Results, path: Path) -> None:
    """Write a CSV file with one row per run, including failed runs; missing values are empty."""
    write_whole(path, csv_text(results).encode())


def csv_text(results: Results) -> str:
    """The text that `write_csv` writes."""
    tasks = {task.name: task for task in results.tasks}
    text = io.StringIO()
    rows = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    rows.writeheader()
    rows.writerows(_row(run, tasks[run.task]) for run in results.runs)
    return text.getvalue()


def markdown_table(results: Results) -> str:
    """A Markdown table of tasks and agents: the IQM of the return, and the median time to the
    threshold."""
    head = ["task", *map(results.label, results.agents)]
    lines = [_markdown_row(head), _markdown_row(["---"] * len(head))]
    for task in results.tasks:
        cells = ["; ".join(result_cells(results, task, agent)) for agent in results.agents]
        lines.append(_markdown_row([f"{task.name} ({number(task.threshold)})", *cells]))
    return "\n".join([*lines, "", NOTE]) + "\n"


def results_table(results: Results) -> TextTable:
    """The table of `markdown_table` with a row for each task and agent; only the first row of a
    task has its name."""
    rows = []
    for task in results.tasks:
        name = f"{task.name} ({number(task.threshold)})"
        for agent in results.agents:
            cells = (*result_cells(results, task, agent), "-", "-")[:3]
            rows.append((name, results.label(agent), *cells))
            name = ""
    head = ("task", "agent", "return", "seconds to the threshold", "seeds that reach it")
    return TextTable("Returns, and times to the threshold", head, tuple(rows), (NOTE,))


def markdown(table: TextTable) -> str:
    """A table in Markdown, with its title and its notes."""
    lines = [_markdown_row(table.head), _markdown_row(["---"] * len(table.head))]
    lines += map(_markdown_row, table.rows)
    return "\n".join([f"**{table.title}**", "", *lines, "", *table.notes]) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def result_cells(results: Results, task: Task, agent: str) -> tuple[str, ...]:
    """The return of an agent on a task, its seconds to the threshold, and how many seeds reach it;
    one cell that says why if there are none."""
    found = to_threshold(results, task, agent, "env_steps")
    if found is None:
        return (absence(results, task.name, agent),)
    failed = failures(results, task.name, agent)
    earned = estimate_text(final_return(results, task.name, agent))
    reached = f"{found.reached} of {found.seeds}" + (f" ({failed} failed)" if failed else "")
    times = to_threshold(results, task, agent, "seconds")
    return earned, to_threshold_text(times, "seconds") if times else "no seconds", reached


def _row(run: Run, task: Task) -> dict[str, object]:
    about: dict[str, object] = {
        "task": run.task,
        "env": task.env,
        "agent": run.agent,
        "seed": run.seed,
        "error": run.error,
        "threshold": task.threshold,
        "source": run.source,
        "imported_from": run.imported_from,
        "settings": json.dumps(run.settings),
    }
    if run.error is not None:
        return about
    first, below = run.first_reaching(task.threshold), run.last_below(task.threshold)
    return about | {
        "return_mean": run.return_mean,
        "score": normalised(task, run.return_mean),
        "env_steps_last_below": below and below.env_steps,
        "env_steps_to_threshold": first and first.env_steps,
        "seconds_last_below": below and below.seconds,
        "seconds_to_threshold": first and first.seconds,
        "env_steps": run.env_steps,
        "seconds": run.seconds,
        "machine": run.machine,
        **({} if run.imported_from else _known_here(run)),
    }


def _known_here(run: Run) -> dict[str, object]:
    """The cells of a run that imported runs lack."""
    return {
        "return_std": float(np.std(run.returns)),
        "episodes": len(run.returns),
        "devices": run.devices,
        "device_seconds": spent_until(run, None, "device_seconds"),
        "compile_seconds": run.compile_seconds,
        "evaluation_seconds": run.evaluation_seconds,
        "policy": run.policy,
    }
