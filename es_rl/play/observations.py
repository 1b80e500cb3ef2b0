"""Running mean and variance of observations.

Brax's running statistics merge one batch of steps after another, so their last bits depend on which
steps share a batch, and thereby on the number of lanes. Here every episode adds up its own steps in
order, and episodes are merged in job order, so the result does not depend on how the episodes were
distributed over lanes. The sums are of standardised observations, so that squares lose no digits.
"""

import jax
import jax.numpy as jnp
from flax import struct

from es_rl.play.jobs import Array

_CLIP = 10.0
"""Standardised observations are clipped to +-10, as in Stable-Baselines3's VecNormalize."""
_LEAST_STD = 1e-6
"""The smallest standard deviation."""


@struct.dataclass
class Moments:
    """Mean and standard deviation of the observations so far."""

    count: jax.Array
    """float32 scalar, the number of observations."""
    mean: jax.Array
    """(d,), the mean of each entry; 0 before the first observation."""
    std: jax.Array
    """(d,), the standard deviation of each entry, at least 1e-6; 1 before the first observation."""
    frozen: jax.Array
    """bool scalar, whether the moments stay as they are. They do in a run that starts from a saved
    policy: its network was trained with them, and others would change its actions."""


def empty(size: int) -> Moments:
    """Return the moments before the first observation, for vectors of `size` numbers."""
    return Moments(jnp.float32(0), jnp.zeros(size), jnp.ones(size), jnp.bool_(False))


def standardize(obs: jax.Array, mean: Array, std: Array) -> jax.Array:
    """Return (obs - mean) / std. Episodes add these up, and networks get them after `clip`."""
    return (obs - mean) / std


def clip(standardized: jax.Array) -> jax.Array:
    """Bound standardised observations, so that one outlier cannot saturate a network."""
    return jnp.clip(standardized, -_CLIP, _CLIP)


def merge(moments: Moments, lengths: Array, total: Array, squares: Array) -> Moments:
    """Add the episodes of one generation (Chan et al. 1979, the parallel variance formula).

    Episodes with a sum that is not finite are left out. If the result would still not be finite,
    the moments stay as they are. So no episode can make the moments unusable. Frozen moments stay
    as they are too.

    Args:
      moments: the moments that the observations were standardised with.
      lengths: (episodes,), the number of observations of each episode.
      total: (episodes, d), sums of the standardised observations.
      squares: (episodes, d), sums of the squares of the standardised observations.
    """
    finite = jnp.isfinite(total).all(axis=1) & jnp.isfinite(squares).all(axis=1)
    live = jnp.where(finite, lengths, 0).astype(jnp.float32)
    n = jnp.sum(live)
    total = jnp.sum(jnp.where(finite[:, None], total, 0.0), axis=0)
    squares = jnp.sum(jnp.where(finite[:, None], squares, 0.0), axis=0)
    # Arrays are multiplied by reciprocals of scalars and never divided by scalars: XLA replaces
    # some divisions by such products, which round differently, depending on the number of devices.
    count, per_step = moments.count + n, 1 / jnp.maximum(n, 1.0)
    per_count = 1 / jnp.maximum(count, 1.0)
    # `shift` and `deviations` are relative to the old mean, in units of the old std.
    shift = total * per_step
    deviations = jnp.maximum(squares - total * shift, 0.0) + shift**2 * (
        moments.count * n * per_count
    )
    variance = moments.std**2 * ((moments.count + deviations) * per_count)
    mean = moments.mean + moments.std * shift * (n * per_count)
    std = jnp.where(count > 0, jnp.sqrt(jnp.maximum(variance, _LEAST_STD**2)), 1.0)
    sound = jnp.isfinite(mean).all() & jnp.isfinite(std).all() & ~moments.frozen
    merged = Moments(count, mean, std, moments.frozen)
    # XLA would fuse a jnp.where with the sums and then round these differently.
    return jax.lax.cond(sound, lambda new, _: new, lambda _, old: old, merged, moments)
