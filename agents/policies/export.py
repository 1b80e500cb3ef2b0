"""Policies as ONNX models: observation in, action out, for machines without JAX."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from gymnasium import spaces
from jax.extend.core import jaxpr_as_fun

from agents.policies import nested
from agents.policies import spaces as _spaces
from agents.policies.actors import RandomActor
from agents.policies.network import Network
from envs.errors import UserError
from envs.installing import pip_install
from envs.precision import in_32_bits
from es_rl.files import write_whole

if TYPE_CHECKING:
    from agents.policies.policy import Policy

OPSET = 21
"""The version of ONNX's operator set; onnxruntime 1.20 and later support it."""


@in_32_bits
def export_onnx(policy: "Policy", path: str | Path) -> None:
    """Write a policy as an ONNX model that computes the same actions as `policy(obs)`.

    Normalisation of observations, memory, squashing and the bounds of the action space are part of
    the model.

    The input "obs" is one observation (float32, or int32 for categories). If the environment
    returns a Dict or Tuple, each part is an input, such as "obs_room" or "obs_pose_0". A policy
    with a memory has further inputs "memory_0", "memory_1" and so on, which are zeros at the start
    of an episode.

    The output "action" is float32 for a Box and int32 for discrete spaces. The outputs
    "next_memory_0" and so on are the memory for the next step. The model's metadata hold the
    environment's id and spaces as JSON.

    Args:
      policy: a policy that draws no actions, as ONNX has no random keys.
      path: the file to write; an existing file is replaced.

    Raises:
      UserError: jax2onnx is not installed, or the policy draws its actions.
      OSError: the file cannot be written.
    """
    write_whole(Path(path), to_onnx(policy).SerializeToString())


def to_onnx(policy: "Policy") -> Any:
    """The `onnx.ModelProto` of a policy; see `export_onnx`."""
    if isinstance(policy.actor, RandomActor):
        raise UserError(f"agent={policy.agent}: draws its actions: must be one that was trained")
    discrete = not isinstance(policy.spec.action_space, spaces.Box)
    if discrete and isinstance(policy.actor, Network) and policy.actor.config.stochastic_evaluation:
        raise UserError(
            f"agent={policy.agent}: draws its actions: must be without stochastic_evaluation"
        )
    convert = _converter()
    key = jax.random.key(0)  # nothing is drawn with it
    memory = [np.asarray(part) for part in jax.tree.leaves(policy.actor.memory)]
    tree = jax.tree.structure(policy.actor.memory)

    raw = policy.spec.raw_observation_space
    obs_names = ["obs"] if raw is None else nested.names(raw)

    def act(*inputs: jax.Array) -> list[jax.Array]:
        seen, parts = inputs[: len(obs_names)], inputs[len(obs_names) :]
        obs = seen[0] if raw is None else nested.flatten(raw, seen)
        remembered = jax.tree.unflatten(tree, parts)
        action, following = policy.actor.act(policy.weights, remembered, obs, key)
        return [action, *jax.tree.leaves(following)]

    empty = [_spaces.empty(policy.spec.observation_space)]
    inputs = [*(empty if raw is None else nested.empty_parts(raw)), *memory]
    described = [
        jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)) for x in inputs
    ]
    # The converter replaces functions of JAX and Flax while it traces. A program that was traced
    # before consists of primitives only, which the converter supports best.
    program = jaxpr_as_fun(jax.make_jaxpr(act)(*described))
    names = [f"memory_{i}" for i in range(len(memory))]
    with _quiet():
        model = convert(
            lambda *args: tuple(program(*args)),
            described,
            model_name="policy",
            opset=OPSET,
            input_names=[*obs_names, *names],
            output_names=["action", *(f"next_{name}" for name in names)],
        )
    for name, value in _described(policy).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    return model


def _described(policy: "Policy") -> dict[str, str]:
    """The metadata of a policy's model."""
    spec, raw = policy.spec, policy.spec.raw_observation_space
    told = {} if raw is None else {"raw_observation_space": json.dumps(nested.to_json(raw))}
    return {
        **told,
        "env": spec.id,
        "agent": policy.agent,
        "observation_space": json.dumps(_spaces.to_json(spec.observation_space)),
        "action_space": json.dumps(_spaces.to_json(spec.action_space)),
    }


def _converter() -> Any:
    """The function `jax2onnx.to_onnx`.

    Raises:
      UserError: jax2onnx is not installed.
    """
    try:
        with _quiet():
            from jax2onnx import to_onnx
    except ImportError as error:
        raise UserError(f"export: {error} ({pip_install('onnx')})") from error
    return to_onnx


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the converter's reports about its missing optional packages."""
    log = logging.getLogger("jax2onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
