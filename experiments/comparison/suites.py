"""What a comparison is to run: TOML files of tasks, agents, budgets and settings."""

import difflib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import envs
from agents import list_agents
from agents.presets.evolution import preset
from agents.registry import config_type
from agents.settings import LARGEST, expected
from envs.errors import UserError
from envs.registry import split_id
from experiments.comparison.results import Task

_BUNDLED = Path(__file__).parent / "suites"
_KINDS = {f.name: f.type for f in fields(Task) if f.name != "random_return"}
_DEFAULTS = {f.name: f.default for f in fields(Task)}


@dataclass(frozen=True)
class Suite:
    """Tasks, and who is to learn them."""

    name: str
    agents: tuple[str, ...]
    """Who is compared unless `--agents` says otherwise."""
    tasks: tuple[Task, ...]
    settings: Mapping[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """(env, agent) -> settings that differ from the agent's preset for the environment."""


def bundled() -> list[str]:
    """The names of the suites that come along."""
    return sorted(path.stem for path in _BUNDLED.glob("*.toml"))


def load(name: str, imported: Sequence[str] = ()) -> Suite:
    """A bundled suite by its name, or one of your own by its path.

    Args:
      name: of the suite.
      imported: modules that ids of environments may name ("gymnasium/my_module:MyEnv-v0"): none
        is imported because a file says so.

    Raises:
      UserError: there is none, or something in it is wrong; the message says what is accepted.
    """
    path = Path(name) if name.endswith(".toml") else _BUNDLED / f"{name}.toml"
    if not path.is_file():
        close = difflib.get_close_matches(name, bundled(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        accepted = f"must be one of {', '.join(bundled())}, or the path of a .toml file"
        raise UserError(f"suite={name}: {accepted}{hint}")
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"suite={name}: is no TOML, which it must be ({error})") from error
    try:
        return _suite(path.stem, raw, imported)
    except ValueError as error:
        raise UserError(f"suite={name}: {error}") from error


def _suite(name: str, raw: dict[str, Any], imported: Sequence[str]) -> Suite:
    _only(raw, "the suite", ("agents", "tasks"))
    agents, tasks = raw.get("agents"), raw.get("tasks")
    if not isinstance(agents, list) or not agents or not all(isinstance(a, str) for a in agents):
        raise UserError(f"agents must be a list of {', '.join(list_agents())}")
    for agent in agents:
        config_type(agent)
    if not isinstance(tasks, list) or not tasks or not all(isinstance(t, dict) for t in tasks):
        raise UserError("tasks must be a list of tables, each with an env")
    read = [_task(dict(task), imported) for task in tasks]
    ids = [task.env for task, _ in read]
    if len(set(ids)) < len(ids):
        raise UserError("an env stands twice: each task must have another")
    settings = {(t.env, agent): given for t, own in read for agent, given in own.items()}
    return Suite(name, tuple(agents), tuple(task for task, _ in read), settings)


def _task(raw: dict[str, Any], imported: Sequence[str]) -> tuple[Task, dict[str, dict[str, Any]]]:
    """A task, and the settings of agents on it."""
    where = f"task {raw.get('env', '(without an env)')}"
    _only(raw, where, (*_KINDS, "settings"))
    settings = raw.pop("settings", {})
    for key, kind in _KINDS.items():
        largest = math.inf if key == "env_steps" else LARGEST
        wanted = expected(raw.get(key, _DEFAULTS.get(key)), kind, largest=largest)
        if wanted is not None:
            raise UserError(f"{where}: {key} must be {wanted}, not {raw.get(key)!r}")
    for key in ("env_steps", "seconds", "evaluations", "evaluation_episodes"):
        if raw.get(key, 1) <= 0:
            raise UserError(f"{where}: {key} must be greater than 0, not {raw[key]}")
    _check_env_kwargs(raw.get("env_kwargs", {}), where)
    module, raw["env"] = split_id(raw["env"])
    if module is not None and module not in imported:
        raise UserError(f"{where}: the environment needs --import {module}")
    if raw["env"] not in envs.list_ids():
        close = difflib.get_close_matches(raw["env"], envs.list_ids(), n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else "; `es-rl envs` lists them"
        raise UserError(f"{where}: unknown environment{hint}")
    if not isinstance(settings, dict):
        raise UserError(f"{where}: settings must be a table of agents")
    for agent, given in settings.items():
        known = [f.name for f in fields(config_type(agent))]
        if not isinstance(given, dict):
            raise UserError(f"{where}: the settings of {agent} must be a table")
        _only(given, f"{where}, settings of {agent}", known)
        given.update({k: tuple(v) for k, v in given.items() if isinstance(v, list)})
        try:
            config_type(agent)(**{**preset(agent, raw["env"]).settings, **given})
        except ValueError as error:
            raise UserError(f"{where}, settings of {agent}: {error}") from error
    return Task(**raw), settings


def _check_env_kwargs(given: Any, where: str) -> None:
    if not isinstance(given, dict):
        raise UserError(f"{where}: env_kwargs must be a table, not {given!r}")
    try:
        json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: env_kwargs must hold JSON values ({error})") from error


def _only(table: dict[str, Any], where: str, known: Any) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f": must be of {', '.join(known)}"
            raise UserError(f"{where}: no {key!r} is known{hint}")
