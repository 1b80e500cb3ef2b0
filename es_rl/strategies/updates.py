"""Updates that are skipped if they would make finite numbers non-finite."""

import jax
import jax.numpy as jnp

from es_rl.noise import PyTree


@jax.jit
def update_if_finite(new: PyTree, old: PyTree, *, allowed: jax.Array) -> tuple[PyTree, jax.Array]:
    """Skip an update that is not allowed or that makes finite numbers non-finite.

    Args:
      new: the arrays after the update.
      old: the arrays before the update.
      allowed: bool scalar; if it is False, the update is skipped in any case.

    Returns:
      `new`, or an exact copy of `old`, and whether the update was skipped (bool scalar).
    """
    skipped = ~allowed
    for now, before in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
        # An optimiser may hold an infinity on purpose, such as the best loss before the first one.
        if jnp.issubdtype(jnp.result_type(now), jnp.inexact):
            skipped |= jnp.any(jnp.isfinite(before) & ~jnp.isfinite(now))
    # XLA would fuse a jnp.where with the update and then round the update differently.
    return jax.lax.cond(skipped, lambda _, old: old, lambda new, _: new, new, old), skipped
