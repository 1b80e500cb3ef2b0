"""Running mean and variance of observations.

Brax's running statistics fold one batch after another into the state, so their last bits depend
on which steps share a batch, that is on the number of lanes. Here every episode adds up its own
steps, in their order, and episodes are merged in job order: the result does not depend on how the
episodes were spread. Sums are taken of normalised observations, whose squares lose no digits.
"""

import jax
import jax.numpy as jnp
from flax import struct

from es_rl.play.jobs import Array

_CLIP = 10.0
"""Normalised observations are clipped to +-10, as in Stable-Baselines3's VecNormalize."""
_LEAST_STD = 1e-6


@struct.dataclass
class Moments:
    """Mean and standard deviation of the observations seen so far."""

    count: jax.Array
    """float32 scalar, how many observations."""
    mean: jax.Array
    """(d,); 0 before the first observation."""
    std: jax.Array
    """(d,), at least 1e-6; 1 before the first observation."""


def empty(size: int) -> Moments:
    """The moments before any observation, of vectors of `size` numbers."""
    return Moments(jnp.float32(0), jnp.zeros(size), jnp.ones(size))


def standardize(obs: jax.Array, mean: Array, std: Array) -> jax.Array:
    """(obs - mean) / std: what episodes add up, and what `clip` makes fit for a network."""
    return (obs - mean) / std


def clip(standardized: jax.Array) -> jax.Array:
    """Bound standardised observations, so that one outlier cannot saturate a network."""
    return jnp.clip(standardized, -_CLIP, _CLIP)


def merge(moments: Moments, lengths: Array, total: Array, squares: Array) -> Moments:
    """Add the episodes of one generation (Chan et al. 1979, the parallel variance formula).

    Args:
      moments: what the observations were standardised with.
      lengths: (episodes,) how many observations each episode had.
      total: (episodes, d) sums of the standardised observations.
      squares: (episodes, d) sums of their squares.

    Episodes with a sum that is not finite are left out, and all of them where the result would not
    be finite: no episode can spoil the moments for those to come.
    """
    finite = jnp.isfinite(total).all(axis=1) & jnp.isfinite(squares).all(axis=1)
    live = jnp.where(finite, lengths, 0).astype(jnp.float32)
    n = jnp.sum(live)
    total = jnp.sum(jnp.where(finite[:, None], total, 0.0), axis=0)
    squares = jnp.sum(jnp.where(finite[:, None], squares, 0.0), axis=0)
    # Arrays are multiplied by reciprocals of scalars, never divided: XLA turns some divisions into
    # such products, which round otherwise, depending on the number of devices.
    count, per_step = moments.count + n, 1 / jnp.maximum(n, 1.0)
    per_count = 1 / jnp.maximum(count, 1.0)
    # In units of the old standard deviation, around the old mean.
    shift = total * per_step
    deviations = jnp.maximum(squares - total * shift, 0.0) + shift**2 * (
        moments.count * n * per_count
    )
    variance = moments.std**2 * ((moments.count + deviations) * per_count)
    mean = moments.mean + moments.std * shift * (n * per_count)
    std = jnp.where(count > 0, jnp.sqrt(jnp.maximum(variance, _LEAST_STD**2)), 1.0)
    sound = jnp.isfinite(mean).all() & jnp.isfinite(std).all()
    merged = Moments(count, mean, std)
    # Not jnp.where, which XLA would fuse with the sums, and round them differently.
    return jax.lax.cond(sound, lambda new, _: new, lambda _, old: old, merged, moments)
