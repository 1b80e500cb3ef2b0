"""Names of agents: `make` and `list_agents`."""

import difflib
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

import numpy as np

from agents.base import Agent
from agents.evolution.agent import EvolutionAgent
from agents.evolution.config import EggrollConfig, EvolutionConfig
from agents.policies.actors import ZeroActor
from agents.policies.functions import described
from agents.policies.network import BUILT_IN_SETTINGS, NetworkConfig, Weights
from agents.policies.policy import Policy, check_savable
from agents.ppo.agent import PPOAgent, PPOConfig
from agents.presets.evolution import preset
from agents.sbx_ppo import SbxPPOAgent, SbxPPOConfig
from agents.untrained import UntrainedAgent, UntrainedConfig
from envs.base import Env, HostEnv
from envs.errors import UserError
from envs.precision import in_32_bits
from es_rl import processes


@dataclass(frozen=True)
class _Entry:
    config: type
    agent: Any
    """A subclass of `Agent`, made of its name, an environment, a configuration, and objects where
    it takes any."""
    in_processes: bool = False
    """Whether several processes can train one together."""


_AGENTS = {
    "eggroll": _Entry(EggrollConfig, EvolutionAgent, in_processes=True),
    "open_es": _Entry(EvolutionConfig, EvolutionAgent, in_processes=True),
    "ppo": _Entry(PPOConfig, PPOAgent),
    "sbx_ppo": _Entry(SbxPPOConfig, SbxPPOAgent),
    "random": _Entry(UntrainedConfig, UntrainedAgent),
    "zero": _Entry(UntrainedConfig, UntrainedAgent),
}


OBJECTS = ("network", "critic", "strategy", "shaping", "fitness")
"""The settings that may be objects of the user's in place of a text."""


def list_agents() -> list[str]:
    """The names that `make` takes."""
    return list(_AGENTS)


def plays(name: str, env: Env | HostEnv) -> bool:
    """Whether an agent is for environments of this kind: sbx_ppo is for those on the host."""
    return name != "sbx_ppo" or isinstance(env, HostEnv)


def missing_package(name: str) -> str | None:
    """How to install what an agent needs, where it is missing."""
    if name == "sbx_ppo" and find_spec("sbx") is None:
        return 'needs sbx-rl, which is not installed (pip install "es-rl[sbx]")'
    return None


def config_type(name: str) -> type:
    """The configuration dataclass of an agent.

    Raises:
      UserError: unknown agent.
    """
    if name not in _AGENTS:
        raise UserError(f"agent={name!r}: must be one of {', '.join(_AGENTS)}")
    return _AGENTS[name].config


def configure(name: str, env_id: str, /, **settings: Any) -> Any:
    """An agent's configuration on an environment: its preset, but for what is given.

    Raises:
      UserError: unknown agent or setting, or a value out of range.
    """
    known = [f.name for f in fields(config_type(name))]
    for setting in settings:
        if setting not in known:
            close = difflib.get_close_matches(setting, known, n=3) or known
            raise UserError(
                f"{setting}={settings[setting]!r}: no such setting of {name}; "
                f"did you mean {', '.join(close)}?"
            )
    return config_type(name)(**{**preset(name, env_id).settings, **settings})


@in_32_bits
def make(name: str, env: Env | HostEnv, /, **settings: Any) -> Agent:
    """Build an agent for an environment.

    Args:
      name: one of `list_agents`.
      env: from `envs.make`.
      **settings: fields of the agent's configuration; the environment's preset, or else the
        default, holds for those that are not given. `network`, `critic`, `strategy`, `shaping` and
        `fitness` may be objects of the user's, where the agent takes them.

    Raises:
      UserError: unknown agent or setting, a value out of range, a space that policies cannot
        read or fill or that no policy could be saved with, an object that the agent does not take
        or that does not fit the environment, or several processes that it cannot use.
    """
    objects = {k: v for k, v in settings.items() if k in OBJECTS and _is_object(v)}
    plain = {k: v for k, v in settings.items() if k not in objects}
    _check_objects(name, objects, plain)
    if "network" in objects:  # presets describe built-in networks
        plain |= {f.name: f.default for f in fields(NetworkConfig) if f.name in BUILT_IN_SETTINGS}
    config = configure(name, env.spec.id, **plain)
    nothing = np.zeros(0, np.float32)
    untrained = Policy(
        env.spec, ZeroActor(env.spec.action_space), Weights({}, nothing, nothing), agent=name
    )
    check_savable(untrained)
    entry = _AGENTS[name]
    if processes.count() > 1 and not entry.in_processes:
        able = ", ".join(name for name, entry in _AGENTS.items() if entry.in_processes)
        raise UserError(f"agent={name}: trains in one process only: must be one of {able}")
    return entry.agent(name, env, config, *((objects,) if entry.agent.takes else ()))


def _is_object(value: Any) -> bool:
    return value is not None and not isinstance(value, str)


def _check_objects(name: str, objects: dict[str, Any], plain: dict[str, Any]) -> None:
    """Refuse objects that an agent does not take, and settings that one of them makes void."""
    config_type(name)  # knows the name
    takes = _AGENTS[name].agent.takes
    for setting, value in objects.items():
        if setting not in takes:
            accepted = f"an object for {' or '.join(takes)}" if takes else "no object"
            raise UserError(f"{setting}={described(value)}: {name} takes {accepted}")
    for setting in BUILT_IN_SETTINGS if "network" in objects else ():
        if setting in plain:
            raise UserError(
                f"{setting}={plain[setting]}: must not be given with a network of one's own"
            )
