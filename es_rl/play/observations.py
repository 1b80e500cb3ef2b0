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


@struct.dataclass
class Moments:
    """Moments of the observations seen so far; mean 0 and std 1 before the first."""

    count: jax.Array
    """float32 scalar, how many observations."""
    mean: jax.Array
    """(d,)."""
    m2: jax.Array
    """(d,), the sum of squared deviations from the mean."""

    @property
    def std(self) -> jax.Array:
        """(d,), at least 1e-6."""
        variance = self.m2 / jnp.maximum(self.count, 1.0)
        return jnp.where(self.count > 0, jnp.sqrt(jnp.maximum(variance, 1e-12)), 1.0)


def empty(size: int) -> Moments:
    """No observation yet, of vectors of `size` numbers."""
    return Moments(jnp.float32(0), jnp.zeros(size), jnp.zeros(size))


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
    # Arrays are divided by nothing: XLA may make products with reciprocals of that, which round
    # otherwise, and does so or not with the number of devices.
    count, per_step = moments.count + n, 1 / jnp.maximum(n, 1.0)
    shift = moments.std * total * per_step
    m2 = moments.std**2 * jnp.maximum(squares - total**2 * per_step, 0.0)
    share = n / jnp.maximum(count, 1.0)
    mean = moments.mean + shift * share
    m2 = moments.m2 + m2 + shift**2 * (moments.count * share)
    sound = jnp.isfinite(mean).all() & jnp.isfinite(m2).all()
    merged = Moments(count, mean, m2)
    # Not jnp.where, which XLA would fuse with the sums, and round them differently.
    return jax.lax.cond(sound, lambda new, _: new, lambda _, old: old, merged, moments)
