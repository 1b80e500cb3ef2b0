"""Fitness: one number per member from the returns of its K episodes. Higher is better."""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from envs.errors import UserError

FitnessName: TypeAlias = Literal["mean", "median", "min", "cvar", "success"]
Fitness: TypeAlias = FitnessName | Callable[[jax.Array], jax.Array]
"""The name of a fitness, or a function from returns (N, K) to fitness (N,) that JAX can trace."""

CVAR_FRACTION = 0.25
"""The share of a member's episodes, the worst ones, whose mean return is the "cvar" fitness."""


def aggregate(returns: jax.Array, success: jax.Array | None, fitness: Fitness) -> jax.Array:
    """Return the fitness (N,) of N members that have played K episodes each.

    If the return of any of a member's episodes (for "success": its outcome) is not finite, every
    named fitness of this member is not finite.

    Args:
      returns: (N, K) undiscounted returns.
      success: (N, K), 1 if the environment reported success at the end of the episode, 0 if it
        reported failure, NaN if it reported nothing; None if the environment never reports success.
      fitness: "mean"; "median"; "min", the worst episode; "cvar", the mean of the worst quarter of
        the episodes, at least one (the conditional value at risk: Rockafellar and Uryasev 2000);
        "success", the share of successful episodes; or a function of the returns.

    Raises:
      UserError: the name is unknown, "success" is chosen but the environment does not report it, or
        the function returns a shape other than (N,).
    """
    if callable(fitness):
        result = jnp.asarray(fitness(returns))
        if result.shape != returns.shape[:1]:
            raise UserError(
                f"fitness={getattr(fitness, '__name__', fitness)}: returned an array of shape "
                f"{result.shape}: must be {returns.shape[:1]}, one number per member"
            )
        return result
    match fitness:
        case "mean":
            return returns.mean(axis=1)
        case "median":
            result = jnp.median(returns, axis=1)
        case "min":
            result = returns.min(axis=1)
        case "cvar":
            worst = max(1, round(CVAR_FRACTION * returns.shape[1]))
            result = jnp.sort(returns, axis=1)[:, :worst].mean(axis=1)
        case "success":
            if success is None:
                raise UserError("fitness='success': the environment does not report success")
            return success.mean(axis=1)
        case _:
            accepted = ", ".join(get_args(FitnessName))
            raise UserError(f"fitness={fitness!r}: must be one of {accepted}")
    return jnp.where(jnp.isfinite(returns).all(axis=1), result, jnp.nan)
