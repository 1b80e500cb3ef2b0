"""Policies: calling, saving and loading them. Loading a policy never runs code from its files.

A saved policy is a folder of two files: `policy.json` (environment, spaces, network, evaluation)
and `weights.safetensors` (parameters and observation statistics).
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from agents.policies import nested, policy_json, weight_names
from agents.policies.actors import Actor, ZeroActor
from agents.policies.functions import described
from agents.policies.network import NetworkConfig, Weights
from agents.policies.policy_files import (
    DESCRIPTION,
    MAX_DESCRIPTION_BYTES,
    MOST_EPISODES,
    WEIGHTS,
    named_file,
    parse,
    read_description,
    read_weights,
    weight_bytes,
)
from envs.base import EnvSpec
from envs.errors import UserError, one_line
from envs.precision import in_32_bits
from es_rl.files import whole, write_whole

_KEYS = {"format", "agent", "env", "actor", "weights_sha256", "training", "evaluation"}
_EPISODE_BYTES = 60
"""The most bytes that the return and the length of one episode take in `policy.json`."""


@dataclass(frozen=True, eq=False)
class Policy:
    """A policy for one environment: policy(obs) -> action, numpy in and out."""

    spec: EnvSpec
    """The environment that it was trained on."""
    actor: Actor
    """How actions are computed: a network, or the random or zero actor."""
    weights: Weights
    """The parameters and observation statistics that the actor uses."""
    agent: str
    """The name of the agent that trained it."""
    training: dict[str, Any] = field(default_factory=dict)
    """Facts about the training as JSON values: seed, env steps and so on."""
    evaluation: dict[str, Any] | None = None
    """The evaluation that is saved with the policy: {"seed": int, "returns": [float], "lengths":
    [int]}."""

    def __post_init__(self) -> None:
        # The name becomes part of titles, in which brackets are markup.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_ .+-]{0,99}", self.agent):
            raise UserError(
                f"agent={self.agent!r}: must be a name of at most 100 letters, digits and _ . + -"
            )

    @cached_property
    def _act(self) -> Any:
        return jax.jit(jax.vmap(self.actor.act, in_axes=(None, 0, 0, 0)))

    @cached_property
    def _flatten(self) -> Any:
        space = self.spec.raw_observation_space
        assert space is not None
        return jax.jit(jax.vmap(partial(nested.flatten, space)))

    @in_32_bits
    def __call__(self, obs: Any, key: jax.Array | None = None) -> np.ndarray:
        """The action for one observation, or the actions for a batch of observations.

        Args:
          obs: an element of the observation space, or a stack of n elements. If the environment
            returns a Dict or Tuple, obs may be such a dict or tuple, each part single or stacked;
            or flat vectors.
          key: a typed key for a policy that draws its actions; unless given, every call draws new
            random numbers.

        Raises:
          UserError: the observation has a wrong shape, or the policy has a memory.
        """
        if jax.tree.leaves(self.actor.memory):
            raise UserError("this policy has a memory: call policy.step(obs, memory)")
        return self.step(obs, key=key)[0]

    @in_32_bits
    def step(
        self, obs: Any, memory: Any = None, key: jax.Array | None = None
    ) -> tuple[np.ndarray, Any]:
        """(action, memory) for one observation, or for a batch of observations.

        Args:
          obs: as in a call.
          memory: the memory that the previous step returned; None at the start of an episode.
          key: as in a call.

        Raises:
          UserError: the observation has a wrong shape.
        """
        batch, batched = self._batch(obs)
        if key is None:
            key = jax.random.key(int.from_bytes(os.urandom(4), "little"))
        if memory is None:
            memory = jax.tree.map(lambda x: np.stack([x] * len(batch)), self.actor.memory)
        keys = jax.random.split(key, len(batch))
        actions, memory = self._act(self.weights, memory, batch, keys)
        actions = np.asarray(actions, self.spec.action_space.dtype)
        return (actions if batched else actions[0]), memory

    @property
    def digest(self) -> str:
        """The SHA-256 of the file that holds its weights, in hex."""
        return _digest(self._weights_file())

    def _weights_file(self) -> bytes:
        return safetensors.numpy.save(weight_names.named(self.weights))

    def _batch(self, obs: Any) -> tuple[np.ndarray, bool]:
        """The observations (n, ...) as the actor takes them, and whether `obs` was a batch."""
        raw = self.spec.raw_observation_space
        if raw is not None and isinstance(obs, Mapping | tuple):
            parts, batched = nested.parts_of(raw, obs)
            rows = parts if batched else [part[None] for part in parts]
            return self._flatten(rows), batched
        obs = np.asarray(obs)
        shape = self.spec.observation_space.shape or ()
        batched = obs.shape[1:] == shape and obs.ndim == len(shape) + 1
        if not batched and obs.shape != shape:
            raise UserError(f"obs has shape {obs.shape}: {nested.must_be(shape)}")
        return (obs if batched else obs[None]), batched

    def save(self, folder: str | Path) -> None:
        """Write `policy.json` and `weights.safetensors` into `folder`, which is made if it is
        missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self._weights_file()
        with whole(folder / DESCRIPTION) as file:
            file.write(_as_bytes(_to_json(self, _digest(weights))))
            # Both files get their names at the end, one right after the other: the description
            # has the digest of the weights, and a policy of two savings could not be loaded.
            file.flush()
            write_whole(folder / WEIGHTS, weights)

    def export_onnx(self, path: str | Path) -> None:
        """Write the policy as an ONNX model: see `agents.policies.export.export_onnx`."""
        # Imported here, as the converter is an optional extra.
        from agents.policies.export import export_onnx

        export_onnx(self, path)


def load_policy(folder: str | Path, *, network: Any = None, trusted: bool = False) -> Policy:
    """Read a saved policy. Files from anybody are safe: all is checked, and no code is run.

    Args:
      folder: the policy's folder, or a run's folder that holds one as `policy/`.
      network: the user's network, if the policy was trained with one; must not be given for other
        policies.
      trusted: accept environment arguments that name files, which the environment will open.

    Raises:
      UserError: the folder holds no policy, a file is damaged, or the network is not the policy's.
        The message is one line that says what is wrong.
    """
    folder = _with_policy_inside(Path(folder))
    try:
        policy, digest = _from_json(read_description(folder / DESCRIPTION), network)
        named = None if trusted else named_file(policy.spec.kwargs)
        if named is not None:
            raise UserError(
                f"the environment's argument {named} must not be a path or a module, unless the "
                "policy is trusted (--trust, or load_policy(..., trusted=True))"
            )
        expected_by = DESCRIPTION if network is None else f"network={described(network)}"
        shapes = weight_names.shapes(policy.actor)
        arrays = read_weights(folder / WEIGHTS, shapes, digest, expected_by)
        return replace(policy, weights=weight_names.from_named(policy.actor, arrays))
    except ValueError as error:
        raise UserError(f"policy {str(folder)!r}: {one_line(error)}") from error


def read_network_config(folder: str | Path) -> NetworkConfig:
    """Read only the network settings of a saved policy.

    This does not start JAX.

    Raises:
      UserError: the folder holds no policy, the policy is damaged, or it has no built-in network.
    """
    folder = _with_policy_inside(Path(folder))
    try:
        saved = read_description(folder / DESCRIPTION)
        policy_json.check_format(saved)
        with policy_json.reading():
            options = dict(saved["actor"])
            kind = options.pop("kind")
            if kind == "network":
                return policy_json.network_config(options)
        raise UserError(f"its actor is of the kind {one_line(kind)}: must be a built-in network")
    except ValueError as error:
        raise UserError(f"policy {str(folder)!r}: {one_line(error)}") from error


def _with_policy_inside(folder: Path) -> Path:
    """The folder of a policy: `folder` itself, or `folder/policy` if it is a run's folder."""
    inside = folder / "policy"
    is_run = not os.path.exists(folder / DESCRIPTION) and os.path.exists(inside / DESCRIPTION)
    return inside if is_run else folder


def check_savable(policy: Policy, *, episodes: int = 0) -> None:
    """Refuse a policy that could be saved but not loaded, before any training.

    The policy's description is written to memory and read again as `load_policy` reads it; the
    result must equal the original.

    Args:
      policy: a policy; of its weights only the shapes matter.
      episodes: the number of episodes of the evaluation that will be saved with it.

    Raises:
      UserError: a part of the policy is lost or changed; the message names it.
    """
    written = _to_json(policy, "")
    start = f"env={policy.spec.id}: a policy for it could not be loaded once saved"
    try:
        data = _as_bytes(written)
        loaded, _ = _from_json(parse(DESCRIPTION, data), getattr(policy.actor, "module", None))
        weight_bytes(weight_names.shapes(policy.actor))
    except (UserError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{start} ({one_line(error.__cause__ or error)})") from error
    for name, value in vars(policy.spec).items():
        found = getattr(loaded.spec, name)
        if found != value:
            raise UserError(f"{start}: its {name} {value!r} would become {found!r}")
    read = _to_json(loaded, "")
    changed = [name for name in written if read[name] != written[name]]
    if changed:
        raise UserError(f"{start}: its {changed[0]} would become {read[changed[0]]!r}")
    most = min((MAX_DESCRIPTION_BYTES - len(data)) // _EPISODE_BYTES, MOST_EPISODES)
    if episodes > most:
        raise UserError(
            f"eval_episodes={episodes}: must be at most {most}, as many as a policy is saved with"
        )


def _to_json(policy: Policy, digest: str) -> dict[str, Any]:
    """The content of `policy.json`; `digest` is the SHA-256 of the weights file."""
    return {
        "format": policy_json.FORMAT,
        "agent": policy.agent,
        "env": policy_json.spec_to_json(policy.spec),
        "actor": policy_json.actor_to_json(policy.actor),
        "weights_sha256": digest,
        "training": policy.training,
        "evaluation": policy_json.evaluation_to_json(policy.evaluation),
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _as_bytes(written: dict[str, Any]) -> bytes:
    return (json.dumps(written, indent=1) + "\n").encode()


def _from_json(saved: dict[str, Any], network: Any) -> tuple[Policy, str]:
    """A policy without its weights, and the digest of the weights file.

    Args:
      saved: the content of `policy.json`.
      network: the user's network, if the policy has one.

    Raises:
      UserError: the description is not of a policy, has another format, or needs a network that was
        not given.
    """
    policy_json.check_format(saved)
    with policy_json.reading():
        unknown = saved.keys() - _KEYS
        if unknown:
            raise UserError(f"it has no {min(unknown)!r}")
        spec = policy_json.spec_from_json(saved["env"])
        actor = policy_json.actor_from_json(saved["actor"], spec)
        policy = Policy(
            spec,
            ZeroActor(spec.action_space) if isinstance(actor, policy_json.OwnNetwork) else actor,
            Weights({}, np.zeros(0), np.zeros(0)),
            saved["agent"],
            dict(saved["training"]),
            policy_json.evaluation_from_json(saved["evaluation"]),
        )
        digest = saved["weights_sha256"]
    if isinstance(actor, policy_json.OwnNetwork):
        policy = replace(policy, actor=actor.with_network(spec, network))
    elif network is not None:
        raise UserError(
            f"network={described(network)}: must not be given, as the policy has a network of ours"
        )
    return policy, digest
