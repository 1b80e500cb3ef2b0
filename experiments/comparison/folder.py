"""The folder of a comparison: what it may hold, how it is claimed, and the returns of random
actions."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import NoneType
from typing import Any

from agents.policies.policy_files import read_json
from envs.errors import UserError, one_line
from es_rl.files import check_plain, write_whole
from experiments.comparison import imported, results
from experiments.comparison.results import Results, Run, Task, run_text
from experiments.comparison.suites import RANDOM_FILE, Suite, checked_name
from experiments.comparison.trials import run_folder
from experiments.flags.outputs import can_be_made

_FILES = (
    *("tasks.json", "results.json", "results.csv", "table.md", "table.tex", "settings.md"),
    *("settings.tex", "report.html"),
)
_FOLDERS = ("figures", "runs", imported.FOLDER)
"""The folders inside a comparison's folder."""


def check_folder(out: Path, suite: Suite) -> Results | None:
    """Check that the folder is new or empty, or holds a comparison on the same tasks.

    Returns:
      The results that it holds, if any.

    Raises:
      UserError: the folder holds something else.
    """
    try:
        check_plain(out, _FILES, _FOLDERS)
    except (OSError, ValueError) as error:
        raise UserError(f"out={out}: must be a folder of a comparison: {error}") from error
    begun, ended = out / "tasks.json", out / "results.json"
    if not begun.exists() and not ended.exists():
        if not can_be_made(out) or (out.is_dir() and any(out.iterdir())):
            raise UserError(f"out={out}: must be an empty or a new folder, or one of a comparison")
        return None
    described = json.loads(_described(suite))
    earlier = None
    try:
        same = not begun.exists() or _tasks(read_json(begun)) == described
        if ended.exists():
            earlier = results.load(ended)
            for task in earlier.tasks:
                same &= asdict(replace(task, random_return=None)) in described
                if type(task.random_return) not in (float, NoneType):
                    raise UserError("results.json: random_return must be a decimal number or null")
            for run in earlier.runs:
                _check_place(run, suite)
    except ValueError as error:
        raise UserError(f"out={out}: must be a folder of a comparison: {error}") from error
    if not same:
        raise UserError(f"out={out}: holds other tasks or budgets: must be another folder")
    return earlier


def _tasks(raw: Any) -> list[dict[str, Any]]:
    """The tasks of `tasks.json`; fields that are newer than the file have their defaults.

    Raises:
      UserError: the values are no tasks.
    """
    try:
        return [asdict(Task(**task)) for task in raw]
    except TypeError as error:
        raise UserError(f"tasks.json holds no tasks ({one_line(error)})") from error


def _check_place(run: Run, suite: Suite) -> None:
    """Refuse a run whose place in the folder would be another than that of a run of the suite."""
    if run.task not in [entry.task.name for entry in suite.entries]:
        raise UserError(f"results.json has a run of {run.task!r}, which is no task of the suite")
    checked_name(run.agent, "results.json: the name of an agent")
    if type(run.seed) is not int or run.seed < 0:
        raise UserError(f"results.json: seed={run.seed!r}: must be a whole number of at least 0")
    if type(run.error) not in (str, NoneType):
        raise UserError("results.json: error must be a text or null")
    try:
        run_text(run)
    except (TypeError, ValueError) as error:
        raise UserError(f"results.json: a run cannot be written ({one_line(error)})") from error


def claim(out: Path, suite: Suite, earlier: Results | None) -> None:
    """Make the folder, and record the suite in it.

    What only `results.json` has is put back into the folder: results that were copied without the
    runs, to another machine for example, can be added to.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "tasks.json", _described(suite).encode())
    if earlier is None:
        return
    for task in earlier.tasks:
        if task.random_return is not None and not _random_path(out, task).exists():
            save_random_return(out, task, task.random_return)
    for run in earlier.runs:
        path = run_folder(out, run.task, run.agent, run.seed) / "run.json"
        if run.error is None and not run.imported_from and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, run_text(run).encode())


def _described(suite: Suite) -> str:
    return json.dumps([asdict(entry.task) for entry in suite.entries], indent=1) + "\n"


def _random_path(out: Path, task: Task) -> Path:
    return out / "runs" / task.name / RANDOM_FILE


def has_random_return(out: Path, task: Task) -> bool:
    """Whether the mean return of random actions on a task is saved."""
    return _random_path(out, task).exists()


def save_random_return(out: Path, task: Task, mean: float) -> None:
    """Save the mean return of random actions on a task."""
    path = _random_path(out, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(mean if math.isfinite(mean) else None).encode())


def saved_random_return(out: Path, task: Task) -> float | None:
    """The mean return of random actions; None if it is not measured yet, NaN if it is not finite.

    Raises:
      UserError: the file holds something else.
    """
    path = _random_path(out, task)
    if not path.exists():
        return None
    found = read_json(path)
    if type(found) not in (float, NoneType):
        raise UserError(
            f"out={path.parent}: random.json must hold a decimal number or null; remove it"
        )
    return math.nan if found is None else found
