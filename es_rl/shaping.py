"""Fitness shaping: from one raw fitness per member to the weights of the update.

Every function takes fitness (population_size,), higher is better, and a group size; members
i*G ... i*G+G-1 form a group and `group_size=0` makes the population one group. Constant fitness
gives zero weights, and equal fitness equal weights.
"""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

Shaping: TypeAlias = Literal["zscore", "centered_rank", "none"]
GroupStd: TypeAlias = Literal["group", "population"]

_EPSILON = 1e-8


def _groups(fitness: jax.Array, group_size: int) -> jax.Array:
    return fitness.reshape(-1, group_size or fitness.size)


def replace_nonfinite(fitness: jax.Array, group_size: int = 0) -> tuple[jax.Array, jax.Array]:
    """Give members without a finite fitness the worst finite one of their group.

    Returns:
      The fitness (population_size,), NaN in groups where nobody has a finite one and finite
      elsewhere, and how many members had none (int32 scalar).
    """
    finite = jnp.isfinite(fitness)
    worst = jnp.min(_groups(jnp.where(finite, fitness, jnp.inf), group_size), axis=1, keepdims=True)
    worst = jnp.where(jnp.isfinite(worst), worst, jnp.nan)
    filled = jnp.where(_groups(finite, group_size), _groups(fitness, group_size), worst)
    return filled.reshape(fitness.shape), jnp.sum(~finite).astype(jnp.int32)


def mean_and_std(fitness: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of what is finite in an array of any shape (scalars); NaN if nothing is."""
    finite = jnp.isfinite(fitness)
    # Not jnp.nanmean: it divides by a variable, where XLA multiplies by the inverse of a constant,
    # and so rounds differently. This share is exactly 1 where everything is finite.
    share = fitness.size / jnp.sum(finite)
    mean = jnp.mean(jnp.where(finite, fitness, 0.0)) * share
    return mean, jnp.std(jnp.where(finite, fitness, mean)) * jnp.sqrt(share)


def zscore(fitness: jax.Array, group_size: int = 0, group_std: GroupStd = "group") -> jax.Array:
    """(f - group mean) / (std + 1e-8), with the group's own std or the population's."""
    # Differences to one member first: exact where a large constant would swallow the digits.
    groups = _groups(fitness - fitness[0], group_size)
    centred = groups - jnp.mean(groups, axis=1, keepdims=True)
    std = jnp.std(groups, axis=1, keepdims=True) if group_std == "group" else jnp.std(groups)
    # Rounding in the mean must not turn a constant group into noise of unit size.
    varies = jnp.max(groups, axis=1, keepdims=True) > jnp.min(groups, axis=1, keepdims=True)
    return jnp.where(varies, centred / (std + _EPSILON), 0.0).reshape(fitness.shape)


def centered_rank(fitness: jax.Array, group_size: int = 0) -> jax.Array:
    """Ranks within the group scaled to [-1/2, 1/2]; equal fitness shares the average rank."""

    def ranks(group: jax.Array) -> jax.Array:
        ordered = jnp.sort(group)
        below = jnp.searchsorted(ordered, group, side="left")
        not_above = jnp.searchsorted(ordered, group, side="right")
        return (below + not_above - 1) / 2 / max(group.size - 1, 1) - 0.5 * (group.size > 1)

    return jax.vmap(ranks)(_groups(fitness, group_size)).reshape(fitness.shape)


def shape_fitness(
    fitness: jax.Array, method: Shaping, group_size: int = 0, group_std: GroupStd = "group"
) -> jax.Array:
    """The weights of the update: "zscore", "centered_rank" or "none".

    Groups that are NaN throughout, as `replace_nonfinite` leaves them, get zeros, and the others
    what they would get without them.
    """
    live = jnp.isfinite(fitness)
    # At the mean of the others they add nothing to the population's sum of squares, and what they
    # add to the number of members is taken out again. All of it is exact where there are none.
    filled = jnp.where(live, fitness, mean_and_std(fitness)[0])
    match method:
        case "zscore":
            weights = zscore(filled, group_size, group_std)
            if group_std == "population":
                weights = weights * jnp.sqrt(jnp.sum(live) / fitness.size)
        case "centered_rank":
            weights = centered_rank(filled, group_size)
        case "none":
            weights = fitness
    return jnp.where(live, weights, 0.0)
