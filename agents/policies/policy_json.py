"""The parts of a policy as JSON in `policy.json`, which may come from an untrusted source."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from gymnasium import spaces

from agents.policies import nested
from agents.policies import spaces as _spaces
from agents.policies.actors import Actor, RandomActor, ZeroActor
from agents.policies.functions import described
from agents.policies.masks import mask_of
from agents.policies.network import Network, NetworkConfig, network_for
from agents.policies.policy_files import DESCRIPTION, check_evaluation
from envs.base import EnvSpec
from envs.errors import UserError, one_line
from envs.host.nested import flat_space, is_nested

FORMAT = 7
"""The version of the file format that this code writes and reads."""
_MODULE_OPTIONS = (
    "squash",
    "normalize_observations",
    "action_mask",
    "stochastic_evaluation",
    "matmul_precision",
)
"""The settings that are saved for a policy with a network of the user's."""
_WRONG = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""The errors that reading a damaged description may raise."""


def spec_to_json(spec: EnvSpec) -> dict[str, Any]:
    """An environment's description in JSON values."""
    raw = spec.raw_observation_space
    return {
        **vars(spec),
        "raw_observation_space": None if raw is None else nested.to_json(raw),
        "observation_space": _spaces.to_json(spec.observation_space),
        "action_space": _spaces.to_json(spec.action_space),
    }


def spec_from_json(description: dict[str, Any]) -> EnvSpec:
    """The `EnvSpec` that `spec_to_json` wrote.

    Raises:
      UserError: the values do not describe an environment.
    """
    read = {k: _spaces.from_json(description[k]) for k in ("observation_space", "action_space")}
    spec = EnvSpec(**{**description, **read, "raw_observation_space": _raw_space(description)})
    raw = spec.raw_observation_space
    if raw is not None and flat_space(raw) != spec.observation_space:
        raise UserError("observation_space must be the flat one of raw_observation_space")
    # `envs.make` imports the module whose name stands before a colon in the id.
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
    """The Dict or Tuple observation space of a saved environment; None if it has none."""
    if description["raw_observation_space"] is None:
        return None
    raw = nested.from_json(description["raw_observation_space"])
    if not is_nested(raw):
        raise UserError("raw_observation_space must be a Dict or a Tuple")
    return raw


def evaluation_to_json(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """An evaluation as JSON values; returns that are not finite become strings."""
    if evaluation is None:
        return None
    returns = [x if math.isfinite(x) else str(x) for x in evaluation["returns"]]
    return {**evaluation, "returns": returns}


def evaluation_from_json(description: dict[str, Any] | None) -> dict[str, Any] | None:
    """The evaluation that `evaluation_to_json` wrote.

    Raises:
      UserError: the values do not describe an evaluation.
    """
    if description is None:
        return None
    if isinstance(description, dict) and isinstance(description.get("returns"), list):
        returns = description["returns"]
        numbers = [float(x) if x in ("inf", "-inf", "nan") else x for x in returns]
        description = {**description, "returns": numbers}
    check_evaluation(description)
    return description


def check_format(description: dict[str, Any]) -> None:
    """Raise a UserError if the file has another version of the format."""
    version = description.get("format")
    if version != FORMAT:
        raise UserError(f"written in format {version!r}, this version reads {FORMAT}")


@contextmanager
def reading() -> Iterator[None]:
    """Turn the errors of reading a damaged description into a UserError."""
    try:
        yield
    except _WRONG as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{DESCRIPTION} is damaged ({reason}): must be as Policy.save writes it"
        ) from error


@dataclass(frozen=True)
class OwnNetwork:
    """A saved actor with a network of the user's, which the file does not contain."""

    name: str
    """The name of the network's class or function; it is never imported."""
    config: NetworkConfig
    """The saved settings that apply to such a network."""

    def with_network(self, spec: EnvSpec, network: Any) -> Network:
        """The actor with the network that the user has given.

        Raises:
          UserError: the network was not given, or does not fit the spaces.
        """
        if network is None:
            raise UserError(
                f"its network is of the user's own, {one_line(self.name)}: must be loaded with it: "
                "agents.load_policy(folder, network=module)"
            )
        return network_for(spec, self.config, network)


def actor_to_json(actor: Actor) -> dict[str, Any]:
    """An actor in JSON values, without its weights."""
    match actor:
        case Network(module=None):
            return {"kind": "network", **asdict(actor.config)}
        case Network():
            options = {name: getattr(actor.config, name) for name in _MODULE_OPTIONS}
            return {"kind": "module", "class": described(actor.module), **options}
        case RandomActor() | ZeroActor():
            kind = "random" if isinstance(actor, RandomActor) else "zero"
            return {"kind": kind, "action_mask": actor.mask is not None}
    raise TypeError(f"a policy with a {type(actor).__name__} cannot be saved")


def network_config(options: dict[str, Any]) -> NetworkConfig:
    """The configuration of a built-in network, from the values in a file."""
    hidden = options["hidden"]
    return NetworkConfig(**{**options, "hidden": None if hidden is None else tuple(hidden)})


def actor_from_json(description: dict[str, Any], spec: EnvSpec) -> Actor | OwnNetwork:
    """The actor that `actor_to_json` wrote.

    Raises:
      UserError: the values do not describe an actor.
    """
    match description:
        case {"kind": "module", "class": str(name), **options}:
            if options.keys() != set(_MODULE_OPTIONS):
                raise UserError(f"the options of a module must be {', '.join(_MODULE_OPTIONS)}")
            return OwnNetwork(name, NetworkConfig(**options))
        case {"kind": "network", **options}:
            return network_for(spec, network_config(options))
        case {"kind": "random" | "zero" as kind, "action_mask": bool(masked)}:
            mask = mask_of(spec) if masked else None
            return (RandomActor if kind == "random" else ZeroActor)(spec.action_space, mask)
    raise UserError("the actor's kind must be network, module, random or zero")
