"""The settings of a run, those first that are not the defaults."""

import json
from dataclasses import asdict
from typing import Any, NamedTuple

from agents.registry import config_type, list_agents, preset
from agents.training.run_config import RunConfig
from envs.errors import one_line
from experiments.run_page.run import Run

_NO_SETTINGS = ("seed", "eval_episodes")
"""Options that are not compared with their defaults: the page shows the seed elsewhere, and a run
that was given no number of episodes has chosen one."""


class Row(NamedTuple):
    """A setting, in words."""

    name: str
    value: str
    default: str
    """The default of the agent or of runs; "" if it is not known."""
    origin: str
    """Whether it is tuned for the task, or was given; "" for a default."""


class Settings(NamedTuple):
    """All settings of a run."""

    changed: list[Row]
    """Those that differ from the defaults of the agent and of runs."""
    others: list[Row]
    source: str
    """Where the settings that are tuned for the task come from; "" if none are."""


def settings(run: Run) -> Settings:
    """The settings of a run, beside their defaults; those of a user's agent have none here."""
    saved = run.saved
    options = _plain(asdict(saved.options))
    rows = [
        Row(name, _text(value), "", "given")
        for name in ("env_kwargs", "train_env", "train_env_kwargs", "initial")
        if (value := getattr(saved, name))
    ]
    known = saved.agent in list_agents()
    tuned = preset(saved.agent, saved.env) if known else None
    defaults = _plain(asdict(config_type(saved.agent)())) if known else {}
    rows += _rows(saved.settings, defaults, _plain(tuned.settings) if tuned else {})
    compared = _plain(asdict(RunConfig())) | {name: options[name] for name in _NO_SETTINGS}
    rows += _rows(options, compared, _plain(tuned.run) if tuned else {})
    changed = [row for row in rows if row.origin]
    source = tuned.source if tuned and (tuned.settings or tuned.run) else ""
    return Settings(changed, [row for row in rows if not row.origin], source)


def _rows(values: dict[str, Any], defaults: dict[str, Any], tuned: dict[str, Any]) -> list[Row]:
    rows = []
    for name, value in values.items():
        default, origin = "", ""
        if name in defaults:
            default = _text(defaults[name])
            if value != defaults[name]:
                origin = "tuned" if tuned.get(name) == value else "given"
        rows.append(Row(one_line(name), _text(value), default, origin))
    return rows


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as they are after a way through JSON."""
    return dict(json.loads(json.dumps(values)))


def _text(value: Any) -> str:
    return one_line(value if isinstance(value, str) else json.dumps(value))
