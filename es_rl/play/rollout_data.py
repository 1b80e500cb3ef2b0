"""The data of a rollout on the accelerator: jobs, lanes and start states."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.base import State
from es_rl.play.jobs import Played
from es_rl.play.player import PyTree


class LaneState(NamedTuple):
    """The data of S lanes that change in every step. The first axis of every array is S."""

    state: State
    """The states of the environments."""
    memory: PyTree
    """The policy's memory of each episode."""
    total: jax.Array
    """(S,), the return of each episode so far."""
    obs_sum: jax.Array
    """(S, d), the sum of each episode's observation vectors so far."""
    obs_squares: jax.Array
    """(S, d), the sum of the squares of these vectors."""


class Window(NamedTuple):
    """The start states of P neighbouring episodes of a device."""

    starts: State
    """The start states. The first axis of every array is P."""
    first: jax.Array
    """(1,) int32, the first of these episodes. It is -P before the first start state is made."""


class Progress(NamedTuple):
    """The progress of a rollout between two steps.

    The first axis of every array is spread over the devices. Shapes are those on one device.
    """

    lane_state: LaneState
    """The data of the lanes."""
    job: jax.Array
    """(S,) int32, the job of each lane. The numbers of inactive lanes have no meaning."""
    active: jax.Array
    """(S,) bool, whether each lane plays."""
    queued: jax.Array
    """(1,) int32, the number of the first waiting job. All later jobs wait as well."""
    played: Played
    """The results of the jobs that have ended."""
    window: Window | None
    """The start states that lanes can take; None if `Episodes` has those of all episodes."""


class Queue(NamedTuple):
    """One device's share of the jobs."""

    member: jax.Array
    """(J,) int32, the member that plays each job."""
    episode: jax.Array
    """(J,) int32, the episode of each job, as an index into `keys`."""
    keys: jax.Array
    """(E,) typed keys of the device's episodes."""
    length: jax.Array
    """(1,) int32, the number of jobs. Later entries are padding."""


class Episodes(NamedTuple):
    """The episodes of a rollout. The first axis of every array is spread over the devices."""

    queue: Queue
    """The jobs of each device."""
    starts: State | None
    """The start states of each device's episodes; None if they take more than `Rollout.pool_bytes`,
    and are made in portions."""


def blank(one: PyTree, count: int) -> PyTree:
    """(count, ...) arrays of one value that does not matter, for the shapes and dtypes of `one`."""

    def blank(x: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0, impl=x.dtype._impl.name), (count, *x.shape))
        return jnp.zeros((count, *x.shape), x.dtype)

    return jax.tree.map(blank, one)


def where(fresh: jax.Array, new: Any, old: Any) -> Any:
    """Select `new` where `fresh` is true, else `old`.

    `fresh` is (S,), or has more axes. The values have the axes of `fresh` first, and may have more
    axes. They may be typed keys.
    """
    return jnp.where(fresh.reshape(fresh.shape + (1,) * (old.ndim - fresh.ndim)), new, old)
