"""Agents that were not run here: their evaluations are read from CSV files, and checked.

A file has these columns, in any order, and a row for each evaluation:

    agent       what tables and figures call the agent: no agent of the suite, and none that can be
                trained here
    task        the name of a task of the suite
    seed        a whole number; the rows of one agent, task and seed are one run
    env_steps   env steps of training before the evaluation, a whole number; every row of a run has
                another one, and the last one is the run's end
    seconds     seconds of training before the evaluation, without compilation and evaluation;
                empty in all rows of an agent on a task if they are not known
    return      the mean undiscounted return of the evaluation's episodes; that of the last
                evaluation is the run's result

A comparison's folder keeps one such file for each agent.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from agents import list_agents
from envs.errors import UserError, did_you_mean
from es_rl.files import write_whole
from experiments.comparison.results import Point, Results, Run
from experiments.comparison.suites import Suite, checked_name
from experiments.comparison.tables import quantity

COLUMNS = ("agent", "task", "seed", "env_steps", "seconds", "return")
FOLDER = "imported"
"""The folder inside a comparison's folder with the files of imported agents."""
_LARGEST = 64 << 20
"""The largest file in bytes."""
_MOST_COUNT = 2**62

Imported: TypeAlias = dict[str, tuple[Run, ...]]
"""The runs of imported agents, by the agent's name."""


class _Row(NamedTuple):
    """A row of a file."""

    line: int
    """The number of the row in the file; that of the columns' names is 1."""
    agent: str
    task: str
    seed: int
    env_steps: int
    seconds: float | None
    value: float


def gather(out: Path, suite: Suite, earlier: Results | None, files: Sequence[Path]) -> Imported:
    """The imported runs of a comparison: of given files, of its folder and of its `results.json`.

    An agent of a given file replaces the one that the folder has.

    Args:
      out: the comparison's folder, which need not exist.
      suite: the suite of the comparison.
      earlier: the results that the folder holds, if any.
      files: the files that are given now.

    Raises:
      UserError: a file is missing or wrong; the message names the row and the column.
    """
    kept: Imported = {}
    for run in earlier.runs if earlier else ():
        if run.imported_from:
            kept[run.agent] = (*kept.get(run.agent, ()), run)
    there = {path.stem: path for path in sorted((out / FOLDER).glob("*.csv"))}
    found: Imported = {}
    for name in (*kept, *(name for name in there if name not in kept)):
        try:
            text = _read(there[name]) if name in there else csv_text(kept[name])
            of_file = parse(text, suite)
            if [*of_file] != [name]:
                raise UserError(f"must hold agent {name} alone, not {', '.join(of_file)}")
        except UserError as error:
            raise UserError(f"out={out}: {FOLDER}/{name}.csv: {error}") from error
        found |= of_file
    source: dict[str, Path] = {}
    for path in files:
        try:
            given = parse(_read(path), suite)
        except UserError as error:
            raise UserError(f"results={path}: {error}") from error
        for agent in given:
            if agent in source:
                raise UserError(f"results={path}: {agent!r} is an agent of {source[agent]} too")
            source[agent] = path
        found |= given
    return found


def keep(out: Path, imported: Imported) -> None:
    """Write the files of imported agents into a comparison's folder."""
    for agent, runs in imported.items():
        (out / FOLDER).mkdir(exist_ok=True)
        write_whole(out / FOLDER / f"{agent}.csv", csv_text(runs).encode())


def notes(results: Results) -> list[str]:
    """Sentences on each agent that was not run here."""
    return [note for agent in results.agents for note in _notes(results, agent)]


def _notes(results: Results, agent: str) -> Iterator[str]:
    file = results.imported_from(agent)
    if not file:
        return
    yield (
        f"{agent} was not run here: its numbers are those of {file}. Its returns are those of the "
        "last evaluations there, and nothing is known here of their episodes, nor of the machine "
        "of their seconds."
    )
    untimed = {run.task for run in results.runs if run.agent == agent and run.seconds is None}
    if untimed:
        names = ", ".join(sorted(untimed))
        yield f"{agent} has no seconds on {names}, and takes no part in what they decide there."
    for task in results.tasks:
        spent = max((run.env_steps for run in results.of(task.name, agent)), default=0)
        if spent > task.env_steps:
            said, most = quantity(spent, "env_steps"), quantity(task.env_steps, "env_steps")
            yield f"{agent} had up to {said} env steps on {task.name}, where the budget is {most}."


def csv_text(runs: Iterable[Run]) -> str:
    """Imported runs as the text of a file, which `parse` reads."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for run in runs:
        for point in run.curve:
            rows.writerow((run.agent, run.task, run.seed, *point))
    return text.getvalue()


def parse(text: str, suite: Suite) -> Imported:
    """The runs in the text of a file.

    Raises:
      UserError: something is wrong; the message names the row and the column.
    """
    rows = list(_rows(text, suite))
    if not rows:
        raise UserError(f"has no evaluations: must have rows of {','.join(COLUMNS)}")
    _check_together(rows)
    order = [entry.task.name for entry in suite.entries]
    runs: dict[tuple[str, int, int], list[_Row]] = {}
    for row in sorted(rows, key=lambda row: row.env_steps):
        runs.setdefault((row.agent, order.index(row.task), row.seed), []).append(row)
    found: Imported = {}
    for key in sorted(runs):
        run = _run(runs[key])
        found[run.agent] = (*found.get(run.agent, ()), run)
    return found


def _run(rows: Sequence[_Row]) -> Run:
    """The run of these evaluations, which are in the order of env steps."""
    last, file = rows[-1], f"{FOLDER}/{rows[0].agent}.csv"
    return Run(
        *(last.task, last.agent, last.seed, None),
        returns=(last.value,),
        env_steps=last.env_steps,
        seconds=last.seconds,
        devices=0,
        curve=tuple(Point(row.env_steps, row.seconds, row.value) for row in rows),
        source=f"not run here ({file})",
        machine=f"not run here ({file})",
        imported_from=file,
    )


def _read(path: Path) -> str:
    """The text of a file.

    Raises:
      UserError: it is missing, is no file or no text, or is too large.
    """
    if not path.is_file():
        raise UserError("must be a CSV file; there is none")
    if path.stat().st_size > _LARGEST:
        raise UserError(f"must be a file of at most {_LARGEST >> 20} MiB")
    try:
        return path.read_bytes().decode("utf-8-sig")  # spreadsheets begin files with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"must be a CSV file in UTF-8 ({error})") from error


def _rows(text: str, suite: Suite) -> Iterator[_Row]:
    table = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        head = [name.strip() for name in next(table, [])]
        _check_head(head)
        for cells in table:
            if any(cell.strip() for cell in cells):
                yield _row(table.line_num, head, cells, suite)
    except csv.Error as error:
        raise UserError(f"row {table.line_num}: is no row of a CSV file ({error})") from error


def _check_head(head: Sequence[str]) -> None:
    """Refuse names of columns that are missing, unknown, or there twice."""
    wanted = f"must have the columns {','.join(COLUMNS)}"
    if not any(head):
        raise UserError(f"is empty: {wanted}")
    if len(head) == 1 and any(mark in head[0] for mark in ";\t"):
        raise UserError(f"row 1: {wanted}, separated by commas")
    for name in COLUMNS:
        if head.count(name) != 1:
            said = "twice" if name in head else "missing"
            raise UserError(f"row 1, column {name}: is {said}: {wanted}")
    for name in head:
        if name not in COLUMNS:
            raise UserError(f"row 1, column {name!r}: is unknown: {wanted} and no other")


def _row(line: int, head: Sequence[str], cells: Sequence[str], suite: Suite) -> _Row:
    if len(cells) != len(head):
        raise UserError(f"row {line}: has {len(cells)} cells: must have {len(head)}")
    of = {name: cell.strip() for name, cell in zip(head, cells, strict=True)}

    def where(column: str) -> str:
        return f"row {line}, column {column}"

    agent, tasks = of["agent"], [entry.task.name for entry in suite.entries]
    checked_name(agent, f"{where('agent')}: the name of an agent")
    if agent in list_agents() or agent in [each.name for each in suite.contestants]:
        raise UserError(
            f"{where('agent')}: {agent!r} is the name of an agent that can be run here: must be "
            f"another name, such as {agent}_of_others"
        )
    if of["task"] not in tasks:
        hint = did_you_mean(of["task"], tasks)
        raise UserError(
            f"{where('task')}: must be a task of the suite ({', '.join(tasks)}), not "
            f"{of['task']!r}{hint}"
        )
    seed, env_steps = (_whole(of[name], where(name)) for name in ("seed", "env_steps"))
    seconds = _number(of["seconds"], where("seconds")) if of["seconds"] else None
    if seconds is not None and seconds < 0:
        raise UserError(f"{where('seconds')}: must be at least 0 or empty, not {of['seconds']!r}")
    value = _number(of["return"], where("return"))
    return _Row(line, agent, of["task"], seed, env_steps, seconds, value)


def _number(text: str, where: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: must be a finite number, not {text!r}")
    return value


def _whole(text: str, where: str) -> int:
    """A whole number; one with a decimal point or an exponent is accepted, as tables of numbers
    with gaps are written so."""
    if text.isascii() and text.isdecimal() and len(text) < 20:
        value: float = int(text)
    else:
        try:
            value = _number(text, where)
        except UserError:
            value = -1
    if not 0 <= value <= _MOST_COUNT or value != int(value):
        raise UserError(f"{where}: must be a whole number of at least 0, not {text!r}")
    return int(value)


def _check_together(rows: Sequence[_Row]) -> None:
    """Refuse rows that contradict each other."""
    seen: dict[tuple[str, str, int, int], int] = {}
    timed: dict[tuple[str, str], _Row] = {}
    for row in rows:
        key = (row.agent, row.task, row.seed, row.env_steps)
        if key in seen:
            raise UserError(
                f"row {row.line}, column env_steps: {row.env_steps} is there twice for agent "
                f"{row.agent}, task {row.task}, seed {row.seed}, also in row {seen[key]}"
            )
        seen[key] = row.line
        first = timed.setdefault((row.agent, row.task), row)
        if (first.seconds is None) != (row.seconds is None):
            raise UserError(
                f"row {row.line}, column seconds: must be given in all rows of agent {row.agent} "
                f"on {row.task} or in none, as in row {first.line}"
            )
    before: dict[tuple[str, str, int], _Row] = {}
    for row in sorted(rows, key=lambda row: row.env_steps):
        run = (row.agent, row.task, row.seed)
        last = before.get(run, row)
        if last.seconds is not None and row.seconds is not None and row.seconds < last.seconds:
            raise UserError(
                f"row {row.line}, column seconds: {row.seconds:g} is less than the "
                f"{last.seconds:g} of row {last.line}, which has fewer env steps"
            )
        before[run] = row
