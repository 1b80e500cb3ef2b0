"""Optimisers of our own, scaling by a learning rate that can be logged, and reading that rate."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from envs.errors import UserError


class ClipUpState(NamedTuple):
    """The state of `clip_up` beside its learning rate."""

    velocity: optax.Updates
    """The last update, a pytree like the parameters."""


def clip_up(
    learning_rate: float | optax.Schedule, momentum: float = 0.9, max_speed: float | None = None
) -> optax.GradientTransformationExtraArgs:
    """Make ClipUp: steps of bounded length along normalised gradients with momentum.

    With the gradient g of the fitness, v <- m v + a g / |g|, then v <- v min(1, max_speed / |v|),
    and v is added to the parameters (Toklu, Liskowski and Srivastava 2020, arXiv 2008.02387,
    Algorithm 1). The norms are over all leaves together. As for every optimiser of Optax, the
    argument of `update` is minus g. A gradient of zeros adds nothing to the velocity.

    Args:
      learning_rate: a, the length of what one gradient adds to the velocity, in the unit of the
        parameters, or a schedule of it over updates. It is kept in the state for
        `learning_rate_of`.
      momentum: m, from 0 to below 1.
      max_speed: the length of the longest update; twice the learning rate unless given, as the
        authors have it in all their experiments.

    Raises:
      UserError: an argument is out of range.
    """
    if not callable(learning_rate) and not 0 < learning_rate < math.inf:
        raise UserError(f"learning_rate={learning_rate}: must be greater than 0")
    if not 0 <= momentum < 1:
        raise UserError(f"momentum={momentum}: must be at least 0 and less than 1")
    if max_speed is not None and not 0 < max_speed < math.inf:
        raise UserError(f"max_speed={max_speed}: must be greater than 0")
    make = optax.inject_hyperparams(_clip_up, static_args=("momentum", "max_speed"))
    return make(learning_rate, momentum=momentum, max_speed=max_speed)


def _clip_up(
    learning_rate: Any, momentum: float, max_speed: float | None
) -> optax.GradientTransformation:
    longest = 2 * learning_rate if max_speed is None else max_speed

    def update(
        gradient: optax.Updates, state: ClipUpState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ClipUpState]:
        length = optax.tree.norm(gradient)
        scale = learning_rate / jnp.where(length == 0, 1.0, length)
        velocity = jax.tree.map(lambda v, g: momentum * v - scale * g, state.velocity, gradient)
        shorter = longest / jnp.maximum(optax.tree.norm(velocity), longest)
        velocity = jax.tree.map(
            lambda v, old: (shorter * v).astype(old.dtype), velocity, state.velocity
        )
        return velocity, ClipUpState(velocity)

    return optax.GradientTransformation(
        lambda params: ClipUpState(optax.tree.zeros_like(params)), update
    )


def at_learning_rate(
    learning_rate: float | optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
    """Scale by minus the learning rate, and keep it in the state for `learning_rate_of`."""
    return optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate)


def learning_rate_of(opt_state: optax.OptState) -> jax.Array | None:
    """Return the learning rate of the last update; None unless the state holds exactly one.

    A state holds a learning rate if `optax.inject_hyperparams` has made the optimiser, or the part
    of it that takes a `learning_rate`. Later scalings of the step, such as by
    `optax.contrib.reduce_on_plateau`, are not included.
    """

    def is_array(_: Any, value: Any) -> bool:
        return isinstance(value, jax.Array)

    found = optax.tree.get_all_with_path(opt_state, "learning_rate", filtering=is_array)
    return found[0][1] if len(found) == 1 else None
