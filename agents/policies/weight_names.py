"""Conversion between the weights of a policy and the named arrays of its file."""

from typing import Any

import jax
import numpy as np

from agents.policies.actors import Actor
from agents.policies.functions import named_leaves
from agents.policies.network import Network, Weights
from agents.policies.policy_files import WEIGHTS
from envs.errors import UserError


def named(weights: Weights) -> dict[str, np.ndarray]:
    """The arrays of weights by name, contiguous as safetensors requires."""
    return {
        name: np.asarray(leaf, order="C") for name, leaf in named_leaves(_as_tree(weights)).items()
    }


def shapes(actor: Actor) -> dict[str, tuple[int, ...]]:
    """The shapes of an actor's weights by name; no weights are made."""
    return {name: leaf.shape for name, leaf in named_leaves(_as_tree(_like(actor))).items()}


def from_named(actor: Actor, arrays: dict[str, np.ndarray]) -> Weights:
    """The weights of an actor from its named arrays.

    Raises:
      UserError: a standard deviation is not above 0, or the count is below 0.
    """
    like = _as_tree(_like(actor))
    leaves = [arrays[name] for name in named_leaves(like)]
    tree = jax.tree.unflatten(jax.tree.structure(like), leaves)
    statistics = tree["observation"]
    weights = Weights(tree["params"], statistics["mean"], statistics["std"], statistics["count"])
    if not (weights.std > 0).all():
        raise UserError(f"{WEIGHTS} is of no use: all of observation/std must be above 0")
    if not weights.num_observations >= 0:
        raise UserError(f"{WEIGHTS} is of no use: observation/count must be at least 0")
    return weights


def _as_tree(weights: Weights) -> dict[str, Any]:
    statistics = {"mean": weights.mean, "std": weights.std, "count": weights.num_observations}
    return {"params": weights.params, "observation": statistics}


def _like(actor: Actor) -> Any:
    """The weights of an actor as shapes and dtypes, without values."""
    params, size = {}, 0
    if isinstance(actor, Network):
        params, size = actor.functions.params, actor.statistics_size
    vector = jax.ShapeDtypeStruct((size,), np.dtype(np.float32))
    return Weights(params, vector, vector, jax.ShapeDtypeStruct((), np.dtype(np.float32)))  # type: ignore[arg-type]
