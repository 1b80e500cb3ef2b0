"""Settings of an agent as a TOML file, such as `best.toml` of `es-rl tune`.

A file holds one `name = value` for each setting of the agent, and may name the agent:

    agent = "eggroll"
    population_size = 64
    hidden = [32]
    max_update_norm = "none"

TOML has no null, so that the text "none" stands for None where a setting takes it. A setting that
the file leaves out has the value of the environment's preset, or else its default.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from agents.registry import config_type
from envs.errors import UserError, did_you_mean, one_line

NONE = "none"
"""How files write None."""


def read_settings(path: Path, agent: str) -> dict[str, Any]:
    """Read the settings of an agent; their values are not checked, as `agents.configure` does so.

    Raises:
      UserError: there is no such file, it is no TOML, is of another agent, or has an unknown name.
    """
    raw = read_toml(path)
    of = raw.pop("agent", agent)
    if of != agent:
        raise UserError(f"holds settings of agent {of!r}: must be of {agent}")
    check_known(raw, "the file", [each.name for each in fields(config_type(agent))])
    return {name: from_toml(agent, name, value) for name, value in raw.items()}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
      UserError: there is no such file, or it is no TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"is no TOML file, which it must be ({one_line(error)})") from error


def from_toml(agent: str, setting: str, value: Any) -> Any:
    """The value of an agent's setting: lists become tuples, and "none" None where it is taken."""
    if value == NONE and NoneType in get_args(get_type_hints(config_type(agent))[setting]):
        return None
    return tuple(value) if isinstance(value, list) else value


def check_known(table: Mapping[str, Any], where: str, known: Iterable[str]) -> None:
    """Refuse a table with a key that is not known.

    Raises:
      UserError: there is such a key; the message says where, and names a similar known one.
    """
    accepted = list(known)
    for key in table:
        if key not in accepted:
            hint = did_you_mean(key, accepted) or f": must be of {', '.join(accepted)}"
            raise UserError(f"{where}: no {key!r} is known{hint}")


def settings_toml(
    agent: str, parts: Sequence[tuple[str, Mapping[str, Any]]], comment: Iterable[str] = ()
) -> str:
    """The text of a file of settings, which `read_settings` reads.

    Args:
      agent: the registered name of the agent.
      parts: the settings in parts, each below a comment of one line.
      comment: lines that come first, as a comment.
    """
    lines = [*(f"# {one_line(line)}" for line in comment), f"agent = {json.dumps(agent)}"]
    for title, settings in parts:
        lines += ["", f"# {title}"]
        lines += [f"{name} = {_as_toml(value)}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def _as_toml(value: Any) -> str:
    if value is None:
        return json.dumps(NONE)
    return json.dumps(value)  # TOML writes numbers, texts, lists and booleans as JSON does
