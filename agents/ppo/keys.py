"""Where PPO's random numbers come from: the one place that derives keys from a run's key.

The keys of an iteration form a tree: run, iteration, device, use, and below a use what it needs
(steps, lanes, epochs). Each key is used in one way only: to draw from, or as the parent of children
that are counted from 0. Otherwise two uses might draw the same numbers, as `split(key)[i]` and
`fold_in(key, i)` are the same key.
"""

from typing import NamedTuple

import jax

from es_rl.play.player import CollectionKeys


class IterationKeys(NamedTuple):
    """The keys of one iteration on one device, one for each use."""

    collection: CollectionKeys
    """Typed keys here, whose data the collector takes."""
    minibatches: jax.Array
    """For the order of transitions: split by epoch."""


def of_iteration(
    run: jax.Array, iteration: jax.Array | int, device: jax.Array | int
) -> IterationKeys:
    """The keys of an iteration on a device; `run` is used for nothing else."""
    key = jax.random.fold_in(jax.random.fold_in(run, iteration), device)
    actions, dynamics, starts, minibatches = jax.random.split(key, 4)
    return IterationKeys(CollectionKeys(actions, dynamics, starts), minibatches)
