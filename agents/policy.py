"""Policies: to call, to save, and to load from files that cannot run code.

A saved policy is a folder of two files: `policy.json` (environment, spaces, network, evaluation)
and `weights.safetensors` (parameters and observation statistics).
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from agents import spaces as _spaces
from agents.actors import RandomActor, ZeroActor
from agents.network import Network, NetworkConfig, Weights
from envs.base import EnvSpec

FORMAT = 2
"""The version of the files that this code writes and reads."""

_MAX_WEIGHT_BYTES = 4 << 30


class Actor(Protocol):
    """A rule for actions, as a pure function."""

    @property
    def memory(self) -> Any:
        """What it remembers when an episode starts, a pytree of arrays; () for nothing."""
        ...

    def act(
        self, weights: Weights, memory: Any, obs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        """One action for one observation, and what to remember for the next."""
        ...


@dataclass(frozen=True, eq=False)
class Policy:
    """A policy for one environment: policy(obs) -> action, numpy in and out."""

    spec: EnvSpec
    """The environment that it was trained on."""
    actor: Actor
    weights: Weights
    agent: str
    """The name of the agent that made it."""
    training: dict[str, Any] = field(default_factory=dict)
    """JSON values: seed, env steps and so on."""
    evaluation: dict[str, Any] | None = None
    """What it was saved with: {"seed": int, "returns": [float], "lengths": [int]}."""

    @cached_property
    def _act(self) -> Any:
        return jax.jit(jax.vmap(self.actor.act, in_axes=(None, 0, 0, 0)))

    def __call__(self, obs: np.ndarray | int, key: jax.Array | None = None) -> np.ndarray:
        """The action for one observation, or the actions for a batch of them.

        Args:
          obs: an element of the observation space, or a stack of n elements.
          key: a typed key, for the random policy (fresh randomness unless given).

        Raises:
          ValueError: the observation has another shape, or the policy has a memory.
        """
        if jax.tree.leaves(self.actor.memory):
            raise ValueError("this policy has a memory: call policy.step(obs, memory)")
        return self.step(obs, key=key)[0]

    def step(
        self, obs: np.ndarray | int, memory: Any = None, key: jax.Array | None = None
    ) -> tuple[np.ndarray, Any]:
        """(action, memory) for one observation, or for a batch of them.

        Args:
          obs: an element of the observation space, or a stack of n elements.
          memory: what the step before returned; None where the episode starts.
          key: as in a call.

        Raises:
          ValueError: the observation has another shape.
        """
        obs = np.asarray(obs)
        shape = self.spec.observation_space.shape or ()
        batched = obs.shape[1:] == shape and obs.ndim == len(shape) + 1
        if not batched and obs.shape != shape:
            raise ValueError(f"obs has shape {obs.shape}: must be {shape} or (n, *{shape})")
        if key is None:
            key = jax.random.key(int.from_bytes(os.urandom(4), "little"))
        batch = obs if batched else obs[None]
        if memory is None:
            memory = jax.tree.map(lambda x: np.stack([x] * len(batch)), self.actor.memory)
        keys = jax.random.split(key, len(batch))
        actions, memory = self._act(self.weights, memory, batch, keys)
        return (np.asarray(actions) if batched else np.asarray(actions)[0]), memory

    def save(self, folder: str | Path) -> None:
        """Write `policy.json` and `weights.safetensors` into `folder`, making it if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        blob = safetensors.numpy.save(_flatten(self.weights))
        description = {
            "format": FORMAT,
            "agent": self.agent,
            "env": _spec_to_json(self.spec),
            "actor": _actor_to_json(self.actor),
            "weights_sha256": hashlib.sha256(blob).hexdigest(),
            "training": self.training,
            "evaluation": self.evaluation,
        }
        _write(folder / "weights.safetensors", blob)
        _write(folder / "policy.json", (json.dumps(description, indent=1) + "\n").encode())


def load_policy(folder: str | Path) -> Policy:
    """Read a saved policy, checking everything; no code from the files is run.

    Args:
      folder: the policy's folder, or a run's folder that holds one as `policy/`.

    Raises:
      ValueError: no policy is there, or a file is damaged; the message says what is wrong.
    """
    folder = Path(folder)
    if not (folder / "policy.json").exists() and (folder / "policy" / "policy.json").exists():
        folder = folder / "policy"
    for name in ("policy.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"policy {str(folder)!r}: there is no {name} in it")
    try:
        description = json.loads((folder / "policy.json").read_text())
        version = description["format"]
        if version == FORMAT:
            spec = _spec_from_json(description["env"])
            actor = _actor_from_json(description["actor"], spec)
            digest, agent = description["weights_sha256"], description["agent"]
            training, evaluation = description["training"], description["evaluation"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"policy {str(folder)!r}: policy.json is damaged ({reason})") from error
    if version != FORMAT:
        raise ValueError(
            f"policy {str(folder)!r}: written in format {version!r}, this version reads {FORMAT}"
        )
    path = folder / "weights.safetensors"
    if path.stat().st_size > _MAX_WEIGHT_BYTES:
        raise ValueError(f"policy {str(folder)!r}: weights.safetensors is larger than 4 GiB")
    weights = _load_weights(path, digest, actor)
    return Policy(spec, actor, weights, str(agent), training, evaluation)


def _load_weights(path: Path, digest: str, actor: Actor) -> Weights:
    where = f"policy {str(path.parent)!r}: weights.safetensors"
    blob = path.read_bytes()
    try:
        flat = safetensors.numpy.load(blob)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{where} is damaged ({error})") from error
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in _expected(actor).items()}
    found = {name: (leaf.shape, leaf.dtype) for name, leaf in flat.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{where} does not fit policy.json: {name} is {found.get(name, 'missing')}, "
                f"must be {expected.get(name, 'absent')}"
            )
    if hashlib.sha256(blob).hexdigest() != digest:
        raise ValueError(f"{where} is not the file that policy.json was written with")
    tree = unflatten_dict(flat, sep="/")
    return Weights(tree.get("params", {}), tree["observation"]["mean"], tree["observation"]["std"])


def _expected(actor: Actor) -> dict[str, Any]:
    if not isinstance(actor, Network):
        empty = np.zeros(0, np.float32)
        return _flatten(Weights({}, jnp.asarray(empty), jnp.asarray(empty)))
    params = jax.eval_shape(actor.init, jax.random.key(0))
    vector = jax.ShapeDtypeStruct((actor.observation_size,), np.dtype(np.float32))
    return flatten_dict(_as_tree(Weights(params, vector, vector)), sep="/")  # type: ignore[arg-type]


def _as_tree(weights: Weights) -> dict[str, Any]:
    statistics = {"mean": weights.mean, "std": weights.std}
    return {"params": weights.params, "observation": statistics}


def _flatten(weights: Weights) -> dict[str, np.ndarray]:
    flat = flatten_dict(_as_tree(weights), sep="/")
    return {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _spec_to_json(spec: EnvSpec) -> dict[str, Any]:
    return {
        **vars(spec),
        "observation_space": _spaces.to_json(spec.observation_space),
        "action_space": _spaces.to_json(spec.action_space),
    }


def _spec_from_json(description: dict[str, Any]) -> EnvSpec:
    spaces = {k: _spaces.from_json(description[k]) for k in ("observation_space", "action_space")}
    if ":" in description["id"]:
        # `envs.make` would import a module by that name.
        raise ValueError(f"the environment's id {description['id']!r} names a module")
    return EnvSpec(**{**description, **spaces})


def _actor_to_json(actor: Actor) -> dict[str, Any]:
    match actor:
        case Network():
            return {"kind": "network", **asdict(actor.config)}
        case RandomActor():
            return {"kind": "random"}
        case ZeroActor():
            return {"kind": "zero"}
    raise TypeError(f"a policy with a {type(actor).__name__} cannot be saved")


def _actor_from_json(description: dict[str, Any], spec: EnvSpec) -> Actor:
    options = dict(description)
    match options.pop("kind"):
        case "network":
            options["hidden"] = tuple(options["hidden"])
            return Network(spec.observation_space, spec.action_space, NetworkConfig(**options))
        case "random":
            return RandomActor(spec.action_space)
        case "zero":
            return ZeroActor(spec.action_space)
        case other:
            raise ValueError(f"unknown actor kind {other!r}")
