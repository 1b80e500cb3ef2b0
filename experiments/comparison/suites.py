"""Suites: TOML files that define the tasks, agents, budgets and settings of a comparison.

A suite has these fields (docs/how-to/compare.md shows a whole one):

    agents    names of agents, or tables: name (in tables and figures), agent (the registered name,
              the same unless given), preset (false: without the agent's presets), and any setting
              of that agent
    modules   modules to import first, which register environments or agents of your own
    tasks     tables with the fields of `results.Task`, in `settings.NAME` settings of the agent of
              that name on this task alone, and in `published.NAME` the agent's published score
    relative_to    the agent whose return is the score 1 of a further table (random actions: 0);
                   there is none unless given. Published scores are shown in it.

Wherever there are settings of an agent, `settings_file` may name a file of them, such as
`best.toml` of `es-rl tune`, as a path from the suite's folder; settings beside it replace those of
the file.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import envs
from agents import list_agents
from agents.registry import config_type, configure, preset
from agents.settings import LARGEST, expected
from envs.errors import UserError, did_you_mean
from envs.installing import OWN_NAME
from envs.registry import split_id
from experiments.comparison.results import UNLIMITED, Task
from experiments.flags.settings_files import check_known, from_toml, read_settings, read_toml
from experiments.startup import import_modules

_BUNDLED = Path(__file__).parent / "suites"
_KINDS = {f.name: f.type for f in fields(Task) if f.name != "random_return"}
_DEFAULTS = {f.name: f.default for f in fields(Task)}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
"""A valid name of an agent or a task; names become names of folders."""
RANDOM_FILE = "random.json"
"""The file beside the agents' folders of a task, with the mean return of random actions."""
_SETTINGS_FILE = "settings_file"
"""The key beside an agent's settings that names a file of more of them."""


@dataclass(frozen=True)
class Contestant:
    """An agent that takes part in a comparison."""

    name: str
    """The agent's name in tables and figures."""
    kind: str
    """The registered name of the agent."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings for all tasks, which replace those of the agent's presets."""
    preset: bool = True
    """Whether other settings come from the agent's presets; from its defaults if not."""

    def source(self, env_id: str) -> str:
        """Where the settings come from that the suite does not give."""
        return preset(self.kind, env_id).source if self.preset else "the suite; else the defaults"


@dataclass(frozen=True)
class Entry:
    """A task of a suite, and the agents' settings on it."""

    task: Task
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings on this task only, by the name of the contestant."""
    published: dict[str, float] = field(default_factory=dict)
    """Published scores relative to `Suite.relative_to`, by the name of the contestant."""

    def settings_of(self, contestant: Contestant) -> dict[str, Any]:
        """The whole configuration of a contestant on this task, as JSON values.

        A setting that neither the contestant nor the task sets comes from the agent's preset, or
        is the default.

        Raises:
          UserError: a setting is unknown, or its value out of range.
        """
        given = {**contestant.settings, **self.settings.get(contestant.name, {})}
        env_id = self.task.env if contestant.preset else ""  # of which there is no preset
        return asdict(configure(contestant.kind, env_id, **given))


@dataclass(frozen=True)
class Suite:
    """The tasks of a comparison, and the contestants that are trained on them."""

    name: str
    contestants: tuple[Contestant, ...]
    """The agents that are compared."""
    entries: tuple[Entry, ...]
    """The tasks, with the settings of agents on each."""
    relative_to: str = ""
    """The contestant whose mean return is the relative score 1; none if empty."""

    def with_budgets(self, scale: float, seconds: float | None) -> "Suite":
        """This suite with other budgets.

        Args:
          scale: multiplies the env steps and the seconds of every task.
          seconds: the budget of every run in seconds, in place of env steps; None for no change.

        Raises:
          UserError: a number is out of range.
        """
        if scale != 1 and seconds is not None:
            raise UserError(f"seconds={seconds}: must not be given with scale={scale}")
        for name, value in (("scale", scale), ("seconds", seconds)):
            if value is not None and not 0 < value < LARGEST:
                raise UserError(f"{name}={value}: must be greater than 0 and finite")

        def budget(task: Task) -> Task:
            if seconds is not None:
                return replace(task, env_steps=UNLIMITED, seconds=float(seconds))
            steps = max(1, round(task.env_steps * scale))
            return replace(task, env_steps=steps, seconds=task.seconds * scale)

        if (scale, seconds) == (1, None):
            return self
        entries = (replace(entry, task=budget(entry.task)) for entry in self.entries)
        return replace(self, entries=tuple(entries))

    def choose(self, names: Sequence[str]) -> tuple[Contestant, ...]:
        """The contestants with these names, which may also be registered agents; all contestants if
        there are no names.

        Raises:
          UserError: a name is unknown, or is given twice.
        """
        known = {contestant.name: contestant for contestant in self.contestants}
        others = {name: Contestant(name, name) for name in list_agents()}
        for name in names:
            if name not in known and name not in others:
                accepted = list(dict.fromkeys((*known, *others)))
                hint = did_you_mean(name, accepted)
                raise UserError(
                    f"agents={name}: must be of {', '.join(accepted)}{hint}; {OWN_NAME}"
                )
        if len(set(names)) < len(names):
            raise UserError(f"agents={','.join(names)}: names an agent twice: must name each once")
        return tuple({**others, **known}[name] for name in names or known)

    def choose_tasks(self, names: Sequence[str]) -> tuple[Task, ...]:
        """The tasks with these names; all tasks if there are no names.

        Raises:
          UserError: a name is unknown, or is given twice.
        """
        known = {entry.task.name: entry.task for entry in self.entries}
        for name in names:
            if name not in known:
                accepted = f"{', '.join(known)}{did_you_mean(name, known)}"
                raise UserError(f"tasks={name}: must be of {accepted}")
        if len(set(names)) < len(names):
            raise UserError(f"tasks={','.join(names)}: names a task twice: must name each once")
        return tuple(known[name] for name in names or known)


def bundled() -> list[str]:
    """The names of the suites that are part of this package."""
    return sorted(path.stem for path in _BUNDLED.glob("*.toml"))


def bundled_with(env_id: str) -> str | None:
    """The first bundled suite that compares eggroll with ppo on an environment, if there is one."""
    for name in bundled():
        raw = tomllib.loads((_BUNDLED / f"{name}.toml").read_text())
        names = {each if isinstance(each, str) else each["name"] for each in raw["agents"]}
        if {"eggroll", "ppo"} <= names and env_id in [task["env"] for task in raw["tasks"]]:
            return name
    return None


def load(name: str, imported: Sequence[str] = ()) -> Suite:
    """Load a bundled suite by its name, or a suite of your own by its path.

    The modules that the suite names are imported.

    Args:
      name: the name or path of the suite.
      imported: modules, besides those of the suite, that ids of environments may name
        ("gymnasium/my_module:MyEnv-v0").

    Raises:
      UserError: there is no such suite, or it is invalid; the message says what is accepted.
    """
    path = Path(name) if name.endswith(".toml") else _BUNDLED / f"{name}.toml"
    if not path.is_file():
        accepted = f"must be one of {', '.join(bundled())}, or the path of a .toml file"
        raise UserError(f"suite={name}: {accepted}{did_you_mean(name, bundled())}")
    try:
        return _suite(path, read_toml(path), imported)
    except ValueError as error:
        raise UserError(f"suite={name}: {error}") from error


def _suite(path: Path, raw: dict[str, Any], imported: Sequence[str]) -> Suite:
    check_known(raw, "the suite", ("agents", "modules", "tasks", "relative_to"))
    modules = raw.get("modules", [])
    if not isinstance(modules, list) or not all(isinstance(m, str) for m in modules):
        raise UserError("modules must be a list of names of modules")
    # Modules may register agents and environments that the rest of the suite names.
    import_modules(modules)
    contestants = _contestants(raw.get("agents"), path.parent)
    tasks = raw.get("tasks")
    if not isinstance(tasks, list) or not tasks or not all(isinstance(t, dict) for t in tasks):
        raise UserError("tasks must be a list of tables, each with an env")
    known = (*imported, *modules)
    entries = [_entry(dict(task), known, contestants, path.parent) for task in tasks]
    names = [entry.task.name for entry in entries]
    if len(set(names)) < len(names):
        raise UserError("two tasks have one name: each must have a name of its own (name = ...)")
    relative_to = raw.get("relative_to", "")
    if relative_to != "" and relative_to not in [contestant.name for contestant in contestants]:
        raise UserError(f"relative_to must name one of the agents, not {relative_to!r}")
    if not relative_to and any(entry.published for entry in entries):
        raise UserError("published scores need relative_to, the agent whose score is 1")
    return Suite(path.stem, contestants, tuple(entries), relative_to)


def _contestants(raw: Any, folder: Path) -> tuple[Contestant, ...]:
    if not isinstance(raw, list) or not raw or not all(isinstance(a, str | dict) for a in raw):
        raise UserError(f"agents must be a list of {', '.join(list_agents())}, or of tables")
    tables = [{"name": a} if isinstance(a, str) else dict(a) for a in raw]
    found = tuple(_contestant(table, folder) for table in tables)
    names = [contestant.name for contestant in found]
    if len(set(names)) < len(names):
        raise UserError("two agents have one name: each must have a name of its own")
    return found


def _contestant(raw: dict[str, Any], folder: Path) -> Contestant:
    kind = raw.pop("agent", raw.get("name"))
    if not isinstance(kind, str):
        raise UserError(f"an agent must have a name, or name one of {', '.join(list_agents())}")
    config_type(kind)
    name = checked_name(raw.pop("name", kind), "the name of an agent")
    with_preset = raw.pop("preset", True)
    if type(with_preset) is not bool:
        raise UserError(f"agent {name}: preset must be true or false, not {with_preset!r}")
    settings = _checked_settings(raw, kind, f"agent {name}", folder)
    return Contestant(name, kind, settings, with_preset)


def _entry(
    raw: dict[str, Any],
    modules: Sequence[str],
    contestants: Sequence[Contestant],
    folder: Path,
) -> Entry:
    where = f"task {raw.get('name', raw.get('env', '(without an env)'))}"
    check_known(raw, where, (*_KINDS, "settings", "published"))
    settings = raw.pop("settings", {})
    published = _checked_scores(raw.pop("published", {}), contestants, where)
    _check_values(raw, where)
    module, raw["env"] = split_id(raw["env"])
    if module is not None and module not in modules:
        raise UserError(f"{where}: the environment needs modules = [{module!r}], or --import")
    if raw["env"] not in envs.list_ids():
        hint = did_you_mean(raw["env"], envs.list_ids(), most=3) or "; `es-rl envs` lists them"
        raise UserError(f"{where}: unknown environment{hint}; {OWN_NAME}")
    if not isinstance(settings, dict):
        raise UserError(f"{where}: settings must be a table of agents")
    kinds = {name: name for name in list_agents()} | {c.name: c.kind for c in contestants}
    check_known(settings, f"{where}, settings", kinds)
    checked = {
        name: _checked_settings(given, kinds[name], f"{where}, settings of {name}", folder)
        for name, given in settings.items()
    }
    entry = Entry(Task(**raw), checked, published)
    # `es-rl compare --agents` may choose agents for which the suite has only settings.
    others = [Contestant(name, name) for name in checked if kinds[name] == name]
    for contestant in (*contestants, *others):
        try:
            entry.settings_of(contestant)
        except ValueError as error:
            raise UserError(f"{where}, settings of {contestant.name}: {error}") from error
    return entry


def _check_values(raw: dict[str, Any], where: str) -> None:
    """Refuse fields of a task that have a wrong type or are out of range."""
    for key, kind in _KINDS.items():
        largest = UNLIMITED if key == "env_steps" else LARGEST
        wanted = expected(raw.get(key, _DEFAULTS.get(key)), kind, largest=largest)
        if wanted is not None:
            raise UserError(f"{where}: {key} must be {wanted}, not {raw.get(key)!r}")
    for key in ("env_steps", "seconds", "evaluations", "evaluation_episodes", "final_episodes"):
        if raw.get(key, 1) <= 0:
            raise UserError(f"{where}: {key} must be greater than 0, not {raw[key]}")
    if "name" in raw:
        checked_name(raw["name"], "the name of a task")
    for key in ("env_kwargs", "train_env_kwargs"):
        _check_env_kwargs(raw.get(key, {}), f"{where}: {key}")


def checked_name(name: Any, what: str) -> str:
    """A name of an agent or a task that may also be the name of a folder.

    Raises:
      UserError: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{what} must be at most 100 letters, digits and _ . + -, not {name!r}")
    if name == RANDOM_FILE:
        raise UserError(f"{what} must not be {name}, the name of a file beside its folder")
    return name


def _checked_settings(given: Any, kind: str, where: str, folder: Path) -> dict[str, Any]:
    """Settings of an agent as values of Python, those of their `settings_file` included."""
    if not isinstance(given, dict):
        raise UserError(f"{where}: must be a table of settings")
    table = dict(given)
    file = table.pop(_SETTINGS_FILE, None)
    check_known(table, where, [f.name for f in fields(config_type(kind))])
    settings = {}
    if file is not None:
        if not isinstance(file, str):
            raise UserError(f"{where}: {_SETTINGS_FILE} must be a path, not {file!r}")
        try:
            settings = read_settings(folder / file, kind)
        except UserError as error:
            raise UserError(f"{where}: {_SETTINGS_FILE} {file!r}: {error}") from error
    return {**settings, **{name: from_toml(kind, name, value) for name, value in table.items()}}


def _checked_scores(given: Any, contestants: Sequence[Contestant], where: str) -> dict[str, float]:
    """Published scores of contestants."""
    if not isinstance(given, dict):
        raise UserError(f"{where}: published must be a table of agents and scores")
    check_known(given, f"{where}, published", [contestant.name for contestant in contestants])
    for name, score in given.items():
        wanted = expected(score, float)
        if wanted is not None:
            raise UserError(f"{where}: published.{name} must be {wanted}, not {score!r}")
    return {name: float(score) for name, score in given.items()}


def _check_env_kwargs(given: Any, where: str) -> None:
    if not isinstance(given, dict):
        raise UserError(f"{where} must be a table, not {given!r}")
    try:
        json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} must hold JSON values ({error})") from error
