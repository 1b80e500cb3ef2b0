"""Environments as saved policies describe them."""

from typing import Any

from gymnasium import spaces

from agents.policies import nested
from agents.policies import spaces as _spaces
from envs.base import EnvSpec
from envs.errors import UserError
from envs.host.nested import flat_space, is_nested


def spec_to_json(spec: EnvSpec) -> dict[str, Any]:
    """A description of an environment that `spec_from_json` reads."""
    raw = spec.raw_observation_space
    return {
        **vars(spec),
        "raw_observation_space": None if raw is None else nested.to_json(raw),
        "observation_space": _spaces.to_json(spec.observation_space),
        "action_space": _spaces.to_json(spec.action_space),
    }


def spec_from_json(description: dict[str, Any]) -> EnvSpec:
    """The environment that `spec_to_json` described, checked as a stranger may have written it.

    Raises:
      ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError: it is none.
    """
    read = {k: _spaces.from_json(description[k]) for k in ("observation_space", "action_space")}
    spec = EnvSpec(**{**description, **read, "raw_observation_space": _raw_space(description)})
    raw = spec.raw_observation_space
    if raw is not None and flat_space(raw) != spec.observation_space:
        raise UserError("observation_space must be the flat one of raw_observation_space")
    # `envs.make` imports the module that stands before a colon.
    if not spec.id.isprintable() or ":" in spec.id or len(spec.id) > 200:
        raise UserError(f"the environment's id {spec.id!r} must be as `es-rl envs` lists it")
    if type(spec.max_episode_steps) is not int or not 1 <= spec.max_episode_steps <= 10**9:
        raise UserError("max_episode_steps must be an integer from 1 to 1000000000")
    for number in (spec.reward_threshold, spec.frames_per_second):
        if not isinstance(number, int | float | None):
            raise UserError(f"{number!r} must be a number")
    if not spec.frames_per_second > 0:
        raise UserError(f"frames_per_second {spec.frames_per_second!r} must be above 0")
    if not isinstance(spec.kwargs, dict):
        raise UserError("the environment's arguments must be an object")
    for name in spec.kwargs:
        if not name.isidentifier():
            raise UserError(f"the environment's argument {name!r} must be a name")
    return spec


def _raw_space(description: dict[str, Any]) -> spaces.Space | None:
    """The Dict or Tuple space of a saved environment, where it has one."""
    if description["raw_observation_space"] is None:
        return None
    raw = nested.from_json(description["raw_observation_space"])
    if not is_nested(raw):
        raise UserError("raw_observation_space must be a Dict or a Tuple")
    return raw
