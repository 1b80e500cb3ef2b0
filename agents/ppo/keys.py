"""Where PPO's random numbers come from: the one place that derives keys from a run's key.

Keys form a tree: run, iteration, device, purpose, and below each purpose its own levels (steps,
lanes, epochs). Each key is either drawn from or is the parent of child keys numbered from 0, never
both. Otherwise two purposes might draw the same numbers, as `split(key)[i]` and `fold_in(key, i)`
are the same key.
"""

from typing import NamedTuple

import jax

from es_rl.play.player import CollectionKeys


class IterationKeys(NamedTuple):
    """The keys of one iteration on one device, one for each purpose."""

    collection: CollectionKeys
    """Typed keys for the steps; the collector takes their key data."""
    minibatches: jax.Array
    """The key for the order of transitions; it is split once per epoch."""


def of_iteration(
    run: jax.Array, iteration: jax.Array | int, device: jax.Array | int
) -> IterationKeys:
    """The keys of an iteration on a device; the key `run` must have no other use."""
    key = jax.random.fold_in(jax.random.fold_in(run, iteration), device)
    actions, dynamics, starts, minibatches = jax.random.split(key, 4)
    return IterationKeys(CollectionKeys(actions, dynamics, starts), minibatches)
