"""What a study leaves in its folder beside `study.db`; everything is rewritten after each trial."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from es_rl.files import write_whole
from experiments.comparison.figures import COLOURS, DPI, LOOK, WIDTH, save
from experiments.flags.settings_files import settings_toml
from experiments.tuning.study import Tuning, from_json, importances, value_of

STUDY = "study.db"
"""Optuna's storage."""
FILES = (STUDY, "best.toml", "trials.csv", "importances.json", "study.png")
"""The files in a study's folder."""
_OWN = ("devices", "lanes")
"""Settings that suit one machine: `best.toml` has them only if flags have fixed them."""
_ENDED = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def write_all(tuning: Tuning, out: Path, command: str) -> None:
    """Write the best settings, the table of trials, the importances and the figure.

    Args:
      tuning: the study.
      out: its folder.
      command: the command line, for a comment.
    """
    best, found = tuning.best(), importances(tuning.study)
    if best is not None:
        write_whole(out / "best.toml", best_toml(tuning, best, command).encode())
    write_whole(out / "trials.csv", trials_csv(tuning).encode())
    write_whole(out / "importances.json", (json.dumps(found, indent=1) + "\n").encode())
    _draw(tuning, found, out / "study.png")


def best_toml(tuning: Tuning, best: FrozenTrial, command: str) -> str:
    """The best settings as a file for `es-rl train --settings`; all settings are in it."""
    protocol = tuning.protocol
    seeds = [*range(protocol.first_seed, protocol.first_seed + protocol.seeds)]
    seconds = "" if protocol.seconds is None else f" or {protocol.seconds:g} s"
    trials = len(tuning.settled())
    comment = (
        f"{protocol.agent} on {protocol.env}: the best of {trials} trials, trial {best.number}.",
        f"Found by: {command}",
        f"Objective: {protocol.objective}, the mean over seeds {seeds[0]} to {seeds[-1]} is "
        f"{value_of(best):.6g}; {protocol.env_steps:,} env steps{seconds} a seed.",
        "Report other seeds: the best of many trials was lucky on these.",
    )
    settings = from_json(best.user_attrs["settings"])
    searched = {name: settings[name] for name in tuning.searched}
    fixed = {name: settings[name] for name in protocol.fixed}
    others = {k: v for k, v in settings.items() if k not in {*searched, *fixed, *_OWN}}
    parts = (
        ("Searched:", searched),
        ("Fixed by flags:", fixed),
        ("From the environment's preset, or defaults:", others),
    )
    return settings_toml(protocol.agent, [part for part in parts if part[1]], comment)


def trials_csv(tuning: Tuning) -> str:
    """A table with a row for each trial that has ended, also for those that were tried again."""
    protocol = tuning.protocol
    seeds = range(protocol.first_seed, protocol.first_seed + protocol.seeds)
    columns = ("number", "state", "value", *(f"seed_{seed}" for seed in seeds), "seconds")
    text = io.StringIO()
    table = csv.DictWriter(text, (*columns, "message", *tuning.searched), restval="")
    table.writeheader()
    for trial in tuning.study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        settings = trial.user_attrs.get("settings", {})
        values = {f"seed_{s['seed']}": s["value"] for s in trial.user_attrs.get("seeds", [])}
        table.writerow(
            {
                "number": trial.number,
                "state": _ENDED[trial.state],
                "value": trial.value if trial.state == TrialState.COMPLETE else None,
                **values,
                "seconds": seconds_of(trial),
                "message": message_of(trial),
                **{name: json.dumps(settings.get(name)) for name in tuning.searched},
            }
        )
    return text.getvalue()


def seconds_of(trial: FrozenTrial) -> float:
    """Seconds from the start to the end of a trial."""
    return trial.duration.total_seconds() if trial.duration is not None else 0.0


def message_of(trial: FrozenTrial) -> str:
    """Why a trial has failed; "" if it has not."""
    if trial.state != TrialState.FAIL:
        return ""
    return str(trial.user_attrs.get("message", "the process was stopped"))


def line_of(tuning: Tuning, trial: FrozenTrial) -> str:
    """One line about a trial that has ended."""
    best = tuning.best()
    match trial.state:
        case TrialState.COMPLETE:
            said = f"{value_of(trial):.6g}"
        case TrialState.PRUNED:
            steps = tuning.protocol.seeds * tuning.protocol.evaluations
            share = max(trial.intermediate_values) / steps
            said = f"pruned at {share:.0%} of its budget"
        case _:
            said = f"failed: {message_of(trial)}"
    so_far = "" if best is None else f"; best {value_of(best):.6g} (trial {best.number})"
    settings = " ".join(f"{k}={_short(v)}" for k, v in shown_settings(tuning, trial).items())
    return f"trial {trial.number}: {said}{so_far}; {seconds_of(trial):.1f} s; {settings}"


def shown_settings(tuning: Tuning, trial: FrozenTrial) -> dict[str, Any]:
    """The settings of a trial that are searched."""
    settings = trial.user_attrs["settings"]
    return {name: settings[name] for name in tuning.searched}


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "()"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(tuning: Tuning, found: dict[str, float], path: Path) -> None:
    """Draw the values of trials with the best so far and, if there are any, the importances."""
    rows = 0.6 + 0.3 * len(found) if found else 0.0
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 3.6 + rows), dpi=DPI, layout="constrained")
        if found:
            above, below = figure.subplots(2, height_ratios=[3.6, rows])
            _draw_importances(below, found)
        else:
            above = figure.subplots()
        _draw_values(above, tuning)
        figure.suptitle(f"{tuning.protocol.agent} on {tuning.protocol.env}", fontsize=12)
        save(figure, path)


def _draw_values(axes: Axes, tuning: Tuning) -> None:
    trials = tuning.settled()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    numbers, values = [t.number for t in complete], [value_of(t) for t in complete]
    axes.plot(numbers, values, "o", color=COLOURS[4], label="trial")
    if pruned:
        last = [t.intermediate_values[max(t.intermediate_values)] for t in pruned]
        then = [t.number for t in pruned]
        axes.plot(then, last, "x", color=COLOURS[1], label="pruned, its last value")
    if complete:
        ends = [*numbers, trials[-1].number]
        best = np.maximum.accumulate(values).tolist()
        axes.step(ends, [*best, best[-1]], where="post", color=COLOURS[0], label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{tuning.protocol.objective}, mean over seeds")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if complete or pruned:
        axes.legend(frameon=False, fontsize=9)


def _draw_importances(axes: Axes, found: dict[str, float]) -> None:
    axes.grid(False, axis="y")
    axes.barh([*found], [*found.values()], color=COLOURS[2])
    axes.invert_yaxis()
    axes.set_xlabel("importance (PED-ANOVA; the sum is 1)")
