"""Where PPO's random numbers come from: the one place that derives keys from a run's key.

The keys of an iteration form a tree: run, iteration, device, use, and below a use what it needs
(steps, lanes, epochs). Each key is used in one way only: to draw from, or as the parent of children
that are counted from 0. Otherwise two uses might draw the same numbers, as `split(key)[i]` and
`fold_in(key, i)` are the same key.
"""

from typing import NamedTuple

import jax


class IterationKeys(NamedTuple):
    """The keys of one iteration on one device, one for each use."""

    actions: jax.Array
    """To sample actions: `at` a step."""
    dynamics: jax.Array
    """For the steps of environments: `at` a step, then split by lane."""
    starts: jax.Array
    """For the start states of new episodes: `at` a step, then split by lane. On the host it seeds
    the generator of the seeds that environments are reset with."""
    minibatches: jax.Array
    """For the order of transitions: split by epoch."""


def of_iteration(
    run: jax.Array, iteration: jax.Array | int, device: jax.Array | int
) -> IterationKeys:
    """The keys of an iteration on a device; `run` is used for nothing else."""
    key = jax.random.fold_in(jax.random.fold_in(run, iteration), device)
    return IterationKeys(*jax.random.split(key, len(IterationKeys._fields)))


def at(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """The key of a use at a step of the iteration."""
    return jax.random.fold_in(key, step)
