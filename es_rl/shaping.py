"""Fitness shaping: one number per member for the update, from one raw fitness per member.

Every function takes the fitness (population_size,), where higher is better, and a group size G.
Members i*G ... i*G+G-1 form a group; with `group_size=0` the whole population is one group.
Constant fitness is shaped to zeros, and equal fitness to equal numbers. Users may supply their
own function instead.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from envs.errors import UserError

ShapingName: TypeAlias = Literal["zscore", "centered_rank", "none"]
Shaping: TypeAlias = ShapingName | Callable[[jax.Array, int], jax.Array]
"""A name, or a function (fitness (N,), group size) -> (N,) that JAX can trace and hash."""
GroupStd: TypeAlias = Literal["group", "population"]
"""Whose standard deviation divides the fitness: that of the group or that of the population."""

_EPSILON = 1e-8
"""The number that is added to a standard deviation before the division."""


def _groups(fitness: jax.Array, group_size: int) -> jax.Array:
    return fitness.reshape(-1, group_size or fitness.size)


# Compiled, because otherwise every call would trace the branches again, which is slow.
@partial(jax.jit, static_argnames=("group_size", "shaping"))
def replace_nonfinite(
    fitness: jax.Array, group_size: int = 0, shaping: Shaping = "zscore"
) -> tuple[jax.Array, jax.Array]:
    """Give members without a finite fitness the worst finite fitness of their group.

    A group without any finite fitness gets a constant. It is chosen for `shaping` so that this
    group gets zeros, and so that the other groups get the numbers that they would get
    without this group. If `shaping` is a function, the constant is the mean of all finite fitness.

    Returns:
      The finite fitness (population_size,), and how many members were replaced (int32 scalar).
    """
    fitness = jnp.asarray(fitness, jnp.result_type(fitness, 0.0))
    finite = jnp.isfinite(fitness)

    def fill(fitness: jax.Array) -> jax.Array:
        groups = _groups(fitness, group_size)
        known = jnp.isfinite(groups)
        worst = jnp.min(jnp.where(known, groups, jnp.inf), axis=1, keepdims=True)
        return jnp.where(known, groups, worst).reshape(fitness.shape)

    def fill_dead(fitness: jax.Array) -> jax.Array:
        filled = fill(fitness)
        live = jnp.isfinite(filled)
        if shaping == "none":
            return jnp.where(live, filled, 0.0)
        if callable(shaping):
            return jnp.where(live, filled, jnp.nan_to_num(jnp.mean(filled, where=live)))
        # If n of the N members have the standard deviation s, all N members have it as well if the
        # fitness of the others is at the distance s sqrt(N / n) from the mean of the n members.
        distance = jnp.std(filled, where=live) * jnp.sqrt(fitness.size / jnp.sum(live))
        neutral = jnp.mean(filled, where=live) + distance
        neutral = jnp.where(jnp.isfinite(neutral), neutral, 0.0).astype(fitness.dtype)
        return jnp.where(live, filled, neutral)

    # A separate branch, as XLA would otherwise round differently if all fitness is finite.
    dead = ~_groups(finite, group_size).any(axis=1)
    fitness = jax.lax.cond(dead.any(), fill_dead, lambda fitness: fitness, fitness)
    return fill(fitness), jnp.sum(~finite).astype(jnp.int32)


@jax.jit
def statistics(fitness: jax.Array, filled: jax.Array) -> dict[str, jax.Array]:
    """Return the "mean", "std", "max" and "min" of the finite fitness (scalars); NaN if none is.

    Args:
      fitness: (population_size,), the raw fitness.
      filled: (population_size,), the result of `replace_nonfinite` for this fitness.
    """

    def of_finite(fitness: jax.Array) -> list[jax.Array]:
        known = jnp.where(jnp.isfinite(fitness), fitness, jnp.nan)
        return [f(known) for f in (jnp.nanmean, jnp.nanstd, jnp.nanmax, jnp.nanmin)]

    of_all = [f(filled) for f in (jnp.mean, jnp.std, jnp.max, jnp.min)]
    values = jax.lax.cond(
        jnp.isfinite(fitness).all(),
        lambda of_all, _: of_all,
        lambda _, fitness: of_finite(fitness),
        of_all,
        fitness,
    )
    return dict(zip(("mean", "std", "max", "min"), values, strict=True))


def zscore(fitness: jax.Array, group_size: int = 0, group_std: GroupStd = "group") -> jax.Array:
    """Return (f - group mean) / (std + 1e-8), with the std of the group or of the population."""
    # Subtract one member's fitness first, so that a large common constant costs no precision.
    groups = _groups(fitness - fitness[0], group_size)
    centred = groups - jnp.mean(groups, axis=1, keepdims=True)
    std = jnp.std(groups, axis=1, keepdims=True) if group_std == "group" else jnp.std(groups)
    # Without this, the rounding error of the mean would turn a constant group into numbers near 1.
    varies = jnp.max(groups, axis=1, keepdims=True) > jnp.min(groups, axis=1, keepdims=True)
    return jnp.where(varies, centred / (std + _EPSILON), 0.0).reshape(fitness.shape)


def centered_rank(fitness: jax.Array, group_size: int = 0) -> jax.Array:
    """Return the ranks within the group, scaled to [-1/2, 1/2]. Ties share their average rank."""

    def ranks(group: jax.Array) -> jax.Array:
        ordered = jnp.sort(group)
        below = jnp.searchsorted(ordered, group, side="left")
        not_above = jnp.searchsorted(ordered, group, side="right")
        return (below + not_above - 1) / 2 / max(group.size - 1, 1) - 0.5 * (group.size > 1)

    return jax.vmap(ranks)(_groups(fitness, group_size)).reshape(fitness.shape)


def shape_fitness(
    fitness: jax.Array, method: Shaping, group_size: int = 0, group_std: GroupStd = "group"
) -> jax.Array:
    """Return the shaped fitness (population_size,) for finite fitness.

    Raises:
      UserError: `method` is a function and returns a wrong shape.
    """
    match method:
        case "zscore":
            return zscore(fitness, group_size, group_std)
        case "centered_rank":
            return centered_rank(fitness, group_size)
        case "none":
            return fitness
    shaped = jnp.asarray(method(fitness, group_size))
    if shaped.shape != fitness.shape:
        name = getattr(method, "__qualname__", type(method).__qualname__)
        raise UserError(
            f"shaping={name}: returns shape {shaped.shape} for fitness of shape {fitness.shape}: "
            "must return one number per member"
        )
    return shaped.astype(fitness.dtype)


def shape_top_draws(
    fitness: jax.Array,
    method: Shaping,
    top_draws: int,
    num_draws: int,
    group_std: GroupStd = "group",
) -> jax.Array:
    """Return the shaped fitness (population_size,) if only the best draws make the update.

    The draws whose best member has the highest fitness are chosen, as in ARS V2-t (Mania et al.
    2018, arXiv 1803.07055, algorithm 2). The fitness of their members is shaped among themselves,
    and multiplied by num_draws / top_draws, so that the gradient estimate, which divides by the
    population size, is the mean over the chosen members. The other members get zeros.

    Args:
      fitness: (population_size,), finite.
      method: see `shape_fitness`.
      top_draws: b, the number of draws to choose.
      num_draws: D, the number of draws; neighbouring members share one.
      group_std: see `shape_fitness`.
    """
    of_draws = fitness.reshape(num_draws, -1)
    _, best = jax.lax.top_k(of_draws.max(axis=1), top_draws)
    best = jnp.sort(best)
    shaped = shape_fitness(of_draws[best].reshape(-1), method, 0, group_std)
    shaped = shaped.reshape(top_draws, -1) * (num_draws / top_draws)
    return jnp.zeros_like(of_draws).at[best].set(shaped).reshape(-1)


def without_dead_groups(shaped: jax.Array, fitness: jax.Array, group_size: int = 0) -> jax.Array:
    """Set the shaped fitness of groups without any finite fitness to 0.

    Args:
      shaped: (population_size,), the shaped fitness.
      fitness: (population_size,), the raw fitness.
      group_size: G, or 0 for one group.
    """
    groups = _groups(shaped, group_size)
    live = jnp.isfinite(_groups(fitness, group_size)).any(axis=1, keepdims=True)
    return jnp.where(live, groups, 0.0).reshape(shaped.shape)
