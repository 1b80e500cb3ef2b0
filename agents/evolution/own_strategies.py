"""Strategies and shapings of the user's, which are checked when an agent is made."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import es_rl
from agents.evolution.config import EvolutionConfig
from agents.policies.functions import described
from envs.errors import UserError
from es_rl.strategies.optimizers import env_steps_for


def strategy_of(
    config: EvolutionConfig, objects: Mapping[str, Any], params: Any, layout: es_rl.Layout
) -> es_rl.Strategy:
    """The strategy of an agent: the user's, or else one that the configuration describes.

    Args:
      config: describes the strategy if the user gives none.
      objects: the user's objects; "strategy" and "shaping" are used.
      params: the parameters to be trained, a pytree of `jax.ShapeDtypeStruct`.
      layout: how the network uses its parameters, for the strategy of the configuration.

    Raises:
      UserError: the object is not a strategy, or the strategy or the shaping returns wrong values.
      Exception: whatever the user's object raises when it is traced.
    """
    if "strategy" in objects:
        strategy: es_rl.Strategy = objects["strategy"]
        if isinstance(strategy, type) or not isinstance(strategy, es_rl.Strategy):
            raise UserError(
                f"strategy={described(strategy)}: must be an object with population_size, "
                "episode_sharing, num_draws, init, ask and tell (es_rl.Strategy)"
            )
        _check(strategy, params)
        return strategy
    own = config.strategy(_shaping_of(objects), layout)
    if "shaping" in objects:
        _check(own, params)
    return own


def _shaping_of(objects: Mapping[str, Any]) -> Any:
    shaping = objects.get("shaping")
    if "shaping" in objects and not callable(shaping):
        raise UserError(
            f"shaping={described(shaping)}: must be a text or a function (fitness (N,), group "
            "size) -> shaped fitness (N,)"
        )
    return shaping


def _check(strategy: es_rl.Strategy, params: Any) -> None:
    """Trace a generation of a strategy, without running it."""
    state = jax.eval_shape(strategy.init, jax.eval_shape(jax.random.key, 0), params)
    noise = jax.eval_shape(strategy.ask, state)
    called = f"strategy={described(strategy)}"
    if not isinstance(noise, es_rl.Noise):
        raise UserError(f"{called}: ask returns {type(noise).__name__}: must return es_rl.Noise")
    fitness = jax.ShapeDtypeStruct((strategy.population_size,), jnp.float32)
    steps = env_steps_for(state, jax.ShapeDtypeStruct((), jnp.int32))
    following, metrics = jax.eval_shape(strategy.tell, state, noise, fitness, **steps)
    before, after = (_kinds(s) for s in (state, following))
    for path in {**before, **after}:
        if before.get(path) != after.get(path):
            raise UserError(
                f"{called}: state{path} is {after.get(path)} after tell: must be "
                f"{before.get(path)}, as after init"
            )
    for name, value in metrics.items():
        if value.shape:
            raise UserError(f"{called}: metric {name} has shape {value.shape}: must be a scalar")


def _kinds(tree: Any) -> dict[str, str]:
    """Shape and dtype of every array in a pytree, by the array's path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}
