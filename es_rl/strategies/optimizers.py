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


_UNTOLD = (
    "must be the env steps of the generation, which only strategies of eggroll and open_es take, "
    "where es_rl.accumulate is their whole optimizer"
)


class AccumulatedState(NamedTuple):
    """The state of `accumulate`."""

    inner: optax.OptState
    """The state of the optimiser that makes the updates."""
    mean: optax.Updates
    """The mean of the gradients since the last update, a pytree like the parameters."""
    generations: jax.Array
    """int32 scalar, the number of these gradients."""
    env_steps: jax.Array
    """int32 scalar, the env steps that they took."""


def accumulate(
    optimizer: optax.GradientTransformation, env_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Let a population grow until a number of env steps is played (arXiv 2008.02387, section 4).

    The gradients of successive generations are averaged, and parameters stay, until the generations
    have played that many env steps; then the optimiser makes one update from the mean. That is one
    generation of a larger population, except that fitness is shaped within each part, and that the
    optimiser gets the other arguments of `update`, such as `value`, of the last part. Schedules of
    the optimiser count updates; those of sigma count generations.

    This must be the whole optimiser of a strategy: in `optax.chain`, the steps after it would also
    be made in the generations that wait.

    Args:
      optimizer: makes the updates.
      env_steps: the least number of env steps of an update, at most 1e9. `update` takes those of
        its generation as the keyword argument `env_steps` (int32 scalar).

    Raises:
      UserError: `env_steps` is out of range, or `update` does not get those of its generation.
    """
    if not 1 <= env_steps <= 1_000_000_000:
        raise UserError(f"env_steps={env_steps}: must be from 1 to 1,000,000,000")
    least, inner = env_steps, optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> AccumulatedState:
        return AccumulatedState(
            inner.init(params), optax.tree.zeros_like(params), jnp.int32(0), jnp.int32(0)
        )

    def update(
        gradient: optax.Updates,
        state: AccumulatedState,
        params: optax.Params | None = None,
        *,
        env_steps: jax.Array | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, AccumulatedState]:
        if env_steps is None:
            raise UserError(f"env_steps=None: {_UNTOLD}")
        generations = state.generations + 1
        # More than this makes no difference, but would not fit into 32 bits.
        steps = state.env_steps + jnp.minimum(env_steps, least)
        mean = jax.tree.map(lambda m, g: m + (g - m) / generations, state.mean, gradient)

        def apply() -> tuple[optax.Updates, AccumulatedState]:
            updates, after = inner.update(mean, state.inner, params, **extra)
            none = jnp.int32(0)
            return updates, AccumulatedState(after, optax.tree.zeros_like(mean), none, none)

        def wait() -> tuple[optax.Updates, AccumulatedState]:
            # Their dtypes need not be those of the parameters.
            updates, _ = jax.eval_shape(apply)
            kept = AccumulatedState(state.inner, mean, generations, steps)
            return optax.tree.zeros_like(updates), kept

        return jax.lax.cond(steps >= least, apply, wait)

    return optax.GradientTransformationExtraArgs(init, update)


def env_steps_for(state: Any, env_steps: Any) -> dict[str, Any]:
    """What `tell` needs beyond the protocol: the env steps, if the optimiser gathers generations.

    Args:
      state: a state of any strategy.
      env_steps: those of the generation, int32 scalar.
    """
    gathers = isinstance(getattr(state, "opt_state", None), AccumulatedState)
    return {"env_steps": env_steps} if gathers else {}


def waiting(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """The metric `waiting_generations`, the number of gradients that wait for an update of
    `accumulate`; nothing for other optimisers."""
    gathers = isinstance(opt_state, AccumulatedState)
    return {"waiting_generations": opt_state.generations} if gathers else {}


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
