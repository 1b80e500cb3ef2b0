"""The registry of agents: `register`, `make` and `list_agents`."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from agents import settings as checked
from agents.base import Agent
from agents.evolution.agent import EvolutionAgent
from agents.evolution.config import EggrollConfig, EvolutionConfig
from agents.object_settings import OBJECTS, VOID, made_void
from agents.policies.actors import ZeroActor
from agents.policies.functions import described
from agents.policies.network import Weights
from agents.policies.policy import Policy, check_savable
from agents.ppo.agent import PPOAgent
from agents.ppo.config import PPOConfig
from agents.presets import ppo, ppo_gymnasium
from agents.presets.evolution import eggroll_preset, open_es_preset
from agents.presets.preset import Preset
from agents.sbx_ppo import SbxPPOAgent, SbxPPOConfig
from agents.training.run_config import RunConfig
from agents.untrained import UntrainedAgent, UntrainedConfig
from envs.base import Env, EnvSpec, HostEnv
from envs.errors import UserError, did_you_mean
from envs.installing import OWN_NAME
from envs.precision import in_32_bits
from es_rl import processes


@dataclass(frozen=True)
class _Entry:
    config: type
    agent: type[Agent]
    preset: Callable[[str], Preset]


_AGENTS: dict[str, _Entry] = {}


def _untuned(env_id: str) -> Preset:
    return Preset()


def register(
    name: str,
    config: type,
    agent: type[Agent],
    preset: Callable[[str], Preset] = _untuned,
) -> None:
    """Register an agent under a name for `make` and the `es-rl` command.

    The fields of the agent's configuration become flags of `es-rl train ENV --agent NAME`; the
    docstring below a field is the help of its flag. `--import MODULE` imports a module that calls
    this function.

    Args:
      name: an identifier.
      config: a frozen dataclass. All fields have defaults, and are numbers, bools, strings, choices
        of strings (Literal) or tuples of these. Its `__post_init__` may refuse values by raising
        `envs.UserError("field=value: must be ...")`.
      agent: a subclass of `agents.Agent`, made as `agent(name, env, config)`.
      preset: returns the tuned settings on an environment, given its id.

    Raises:
      UserError: the name is taken or not an identifier, the configuration is not such a dataclass,
        a field has the name of an option of `agents.make` or `agents.train`, or the agent is not
        such a class.
    """
    if not name.isidentifier() or name in _AGENTS:
        raise UserError(f"name={name!r}: must be an identifier that no agent has yet")
    if not is_dataclass(config) or not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise UserError(f"config={config!r}: must be a frozen dataclass")
    reserved = {"train_env", *(field.name for field in fields(RunConfig))}
    taken = reserved & {field.name for field in fields(config)}
    if taken:
        raise UserError(
            f"config={config!r}: the field {min(taken)} must have another name, as agents.make or "
            "agents.train has an option of this name"
        )
    if not isinstance(agent, type) or Agent not in agent.__mro__:
        raise UserError(f"agent={agent!r}: must be a subclass of agents.Agent")
    _AGENTS[name] = _Entry(config, agent, preset)


register("eggroll", EggrollConfig, EvolutionAgent, eggroll_preset)
register("open_es", EvolutionConfig, EvolutionAgent, open_es_preset)
register("ppo", PPOConfig, PPOAgent, ppo.PRESETS.preset)
register("sbx_ppo", SbxPPOConfig, SbxPPOAgent, ppo_gymnasium.PRESETS.preset)
register("random", UntrainedConfig, UntrainedAgent)
register("zero", UntrainedConfig, UntrainedAgent)


def list_agents() -> list[str]:
    """The names that `make` takes."""
    return list(_AGENTS)


def _entry(name: str) -> _Entry:
    if name not in _AGENTS:
        accepted = f"{', '.join(_AGENTS)}{did_you_mean(name, _AGENTS)}"
        raise UserError(f"agent={name!r}: must be one of {accepted}; {OWN_NAME}")
    return _AGENTS[name]


def agent_type(name: str) -> type[Agent]:
    """The class of an agent.

    Raises:
      UserError: unknown agent.
    """
    return _entry(name).agent


def config_type(name: str) -> type:
    """The configuration dataclass of an agent.

    Raises:
      UserError: unknown agent.
    """
    return _entry(name).config


def preset(name: str, env_id: str) -> Preset:
    """The tuned settings of an agent on an environment, or its defaults if there are none.

    Raises:
      UserError: unknown agent.
    """
    return _entry(name).preset(env_id)


def configure(name: str, env_id: str, /, **settings: Any) -> Any:
    """An agent's configuration on an environment: its preset, with the given settings replaced.

    Raises:
      UserError: unknown agent or setting, or a value out of range.
    """
    known = [f.name for f in fields(config_type(name))]
    for setting in settings:
        if setting not in known:
            hint = did_you_mean(setting, known, most=3) or f": must be of {', '.join(known)}"
            raise UserError(f"{setting}={settings[setting]!r}: no such setting of {name}{hint}")
    configured = config_type(name)(**{**preset(name, env_id).settings, **settings})
    checked.check(configured)
    return configured


@in_32_bits
def make(
    name: str, env: Env | HostEnv, /, *, train_env: Env | HostEnv | None = None, **settings: Any
) -> Agent:
    """Build an agent for an environment.

    Args:
      name: one of `list_agents`.
      env: from `envs.make`. Policies are for it, and evaluations play it.
      train_env: the environment that training plays, with the same spaces; `env` unless given. For
        example, it may be the same environment with another reward.
      **settings: fields of the agent's configuration. A field that is not given has the value of
        the environment's preset, or else its default. `network`, `critic`, `strategy`, `shaping`
        and `fitness` may be objects of the user's if the agent takes them.

    Raises:
      UserError: the agent or a setting is unknown; a value is out of range; policies do not support
        a space, or could not be saved with it; an object is not accepted by the agent or does not
        fit the environment; the agent cannot use the environment or several processes, or takes no
        `train_env`; `train_env` has other spaces; or a package is not installed.
    """
    objects = {k: v for k, v in settings.items() if k in OBJECTS and _is_object(v)}
    plain = {k: v for k, v in settings.items() if k not in objects}
    _check_objects(name, objects, plain)
    void = made_void(objects)
    # Presets apply to built-in parts only.
    plain |= {f.name: f.default for f in fields(config_type(name)) if f.name in void}
    config = configure(name, env.spec.id, **plain)
    nothing = np.zeros(0, np.float32)
    untrained = Policy(
        env.spec, ZeroActor(env.spec.action_space), Weights({}, nothing, nothing), agent=name
    )
    check_savable(untrained)
    agent = agent_type(name)
    if processes.count() > 1 and not agent.in_processes:
        able = ", ".join(name for name, entry in _AGENTS.items() if entry.agent.in_processes)
        raise UserError(f"agent={name}: trains in one process only: must be one of {able}")
    own = {}
    if train_env is not None:
        check_train_env(name, env, train_env)
        own["train_env"] = train_env
    for played in (env, *own.values()):
        obstacle = agent.obstacle(played) or agent.missing_package()
        if obstacle is not None:
            raise UserError(f"agent={name!r}: {obstacle}")
    taken = (objects,) if agent.takes else ()
    return agent(name, env, config, *taken, **own)  # type: ignore[call-arg]


def _is_object(value: Any) -> bool:
    return value is not None and not isinstance(value, str)


def check_train_env(name: str, env: Env | HostEnv, train_env: Env | HostEnv) -> None:
    """Check that an agent can train on this environment and be evaluated on the other one.

    Raises:
      UserError: the agent trains where it is evaluated, or the environments differ in a space.
    """
    if not isinstance(getattr(train_env, "spec", None), EnvSpec):
        raise UserError(f"train_env={train_env!r}: must be an environment, as envs.make gives it")
    given = f"train_env={train_env.spec.id}"
    if not agent_type(name).takes_train_env:
        able = ", ".join(name for name, entry in _AGENTS.items() if entry.agent.takes_train_env)
        raise UserError(
            f"{given}: {name} trains on the environment of its evaluations: must be left out, or "
            f"the agent one of {able}"
        )
    for space in ("observation_space", "raw_observation_space", "action_space"):
        found, wanted = getattr(train_env.spec, space), getattr(env.spec, space)
        if found != wanted:
            raise UserError(
                f"{given}: its {space} is {found}: must be {wanted}, as in the environment of "
                "evaluations"
            )


def _check_objects(name: str, objects: dict[str, Any], plain: dict[str, Any]) -> None:
    """Refuse objects that the agent does not take, and settings that have no effect beside an
    object."""
    takes = agent_type(name).takes
    for setting, value in objects.items():
        if setting not in takes:
            accepted = f"an object for {' or '.join(takes)}" if takes else "no object"
            raise UserError(f"{setting}={described(value)}: {name} takes {accepted}")
    for owner in objects:
        for setting in VOID.get(owner, ()):
            if setting == owner or (setting not in plain and setting not in objects):
                continue
            given = described(objects[setting]) if setting in objects else plain[setting]
            raise UserError(f"{setting}={given}: must not be given with a {owner} of one's own")
