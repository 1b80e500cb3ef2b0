"""Population rollouts on the accelerator: every lane busy until the queue of jobs is empty.

A job is one episode of one member. On each device S lanes step in lockstep; when an episode ends
its lane takes the next job, with a start state from a pool made by one vmapped reset. Devices
share nothing until all have finished.

All randomness of an episode comes from its key and the step, so a return does not depend on the
lane, nor on the number of lanes or devices (but for rounding: physics in a batch of another size
may be computed in another order).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from envs.base import Env, State
from es_rl.play.jobs import Array, Jobs, Played, info_names, pack, reset_key, step_keys, unpack
from es_rl.play.player import Behaviour, PyTree

_BLOCK = 8
"""Actions are computed for multiples of so many lanes: for fewer XLA may multiply matrices in
another order, and then a return would depend on the number of lanes."""
NO_LIMIT = 2**31 - 1
"""More steps than any rollout takes."""


class _Lanes(NamedTuple):
    """What changes in every step, per lane."""

    state: State
    memory: PyTree
    total: jax.Array
    obs_sum: jax.Array
    obs_squares: jax.Array


class Progress(NamedTuple):
    """How far a rollout is, between two steps. The first axis of every array is spread over the
    devices."""

    lanes: _Lanes
    job: jax.Array
    """(S,) int32, the job of each lane; of a lane that is not active the last one."""
    active: jax.Array
    """(S,) bool, which lanes play."""
    queued: jax.Array
    """(1,) int32: jobs from here on wait."""
    played: Played


class _Queue(NamedTuple):
    """One device's share of the jobs."""

    member: jax.Array
    """(J,) int32, who plays each job."""
    episode: jax.Array
    """(J,) int32, the episode of each job, numbered on the device."""
    keys: jax.Array
    """(E,) typed keys of the device's episodes."""
    length: jax.Array
    """(1,) int32: jobs from here on are padding."""


class Episodes(NamedTuple):
    """What a rollout plays. The first axis of every array is spread over the devices."""

    queue: _Queue
    pool: State
    """The start states of a device's episodes."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """Plays the same jobs, on new episodes, as often as it is asked to.

    `play` does it in one go. `start`, `advance` and `finish` do the same in parts, so that the host
    can look up in between; how many parts there are changes no result. All are to be called under
    jit.
    """

    env: Env
    behaviour: Behaviour
    jobs: Jobs
    mesh: Mesh
    """One axis, over which neighbouring jobs are spread."""
    lanes: int
    """S, how many environments each device steps side by side."""
    tail: int = 0
    """Once no job waits and no more lanes than this still play, they finish one after the other:
    a lane alone steps faster than in the company of idle ones. 0 saves compiling another step."""
    max_steps: int | None = None
    """Episodes are cut after so many steps, or where the environment ends them."""
    shared_spec: PyTree = PartitionSpec()
    """How `shared` lies on the mesh, a prefix of its tree; each device sees its part."""

    def play(self, shared: PyTree, keys: jax.Array) -> Played:
        """Play every job to its end.

        Args:
          shared: see `Behaviour`.
          keys: (episodes,) typed keys, one per distinct episode of the jobs.
        """
        episodes, progress = self.start(shared, keys)
        return self.finish(self.advance(shared, episodes, progress, jnp.int32(NO_LIMIT)))

    def start(self, shared: PyTree, keys: jax.Array) -> tuple[Episodes, Progress]:
        """Make the start states. No lane has a job yet. The arguments are those of `play`."""
        member, episode, pool, lengths = map(jnp.asarray, self._shares)
        queue = _Queue(member, episode, keys[pool], lengths)
        return self._on_devices(self._start_share, self.shared_spec, self._apart)(shared, queue)

    def advance(
        self, shared: PyTree, episodes: Episodes, progress: Progress, steps: jax.Array
    ) -> Progress:
        """Go on until every job has ended, or for so many steps of all lanes side by side.

        Args:
          shared: see `Behaviour`.
          episodes: from `start`.
          progress: how far the rollout is.
          steps: int32 scalar; a step of a single lane at the end counts like one of all lanes.
        """
        specs = self.shared_spec, self._apart, self._apart, PartitionSpec()
        return self._on_devices(self._advance_share, *specs)(shared, episodes, progress, steps)

    def ended(self, progress: Progress) -> jax.Array:
        """(devices,) int32, how many jobs have ended on each device."""
        active = progress.active.reshape(self.mesh.size, -1)
        return progress.queued - jnp.sum(active, axis=1, dtype=jnp.int32)

    def finish(self, progress: Progress) -> Played:
        """What came of the jobs, once all of them have ended."""
        packed = self._on_devices(pack, self._apart)(progress.played)
        # The one exchange between devices.
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        gathered = jax.lax.with_sharding_constraint(packed, everywhere)
        parts = gathered.reshape(self.mesh.size, -1, gathered.shape[-1])
        # Else XLA may fuse what follows with it, and round sums another way for each number of
        # devices.
        played = unpack(parts, len(self.jobs.member), progress.played.info)
        return jax.lax.optimization_barrier(played)

    @property
    def _apart(self) -> PartitionSpec:
        return PartitionSpec(self.mesh.axis_names[0])

    def _on_devices(self, function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
        """Every device runs the function on its part of the arguments."""
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=self._apart, check_vma=False
        )

    @cached_property
    def _shares(self) -> tuple[np.ndarray, ...]:
        """Members, local episodes, their global numbers and queue lengths, device after device."""
        devices, count = self.mesh.size, len(self.jobs.member)
        share = -(-count // devices)
        padded = np.minimum(np.arange(devices * share), count - 1).reshape(devices, share)
        # A device resets each of its episodes once, however many of its jobs share it.
        numbers = [np.unique(self.jobs.episode[jobs]) for jobs in padded]
        shares = zip(numbers, padded, strict=True)
        local = [np.searchsorted(n, self.jobs.episode[jobs]) for n, jobs in shares]
        most = max(map(len, numbers))
        pool = [np.pad(n, (0, most - len(n)), mode="edge") for n in numbers]
        lengths = np.clip(count - share * np.arange(devices), 0, share)
        as_int = [np.asarray(x, np.int32) for x in (local, pool, lengths)]
        return self.jobs.member[padded].reshape(-1), *(x.reshape(-1) for x in as_int)

    def _start_share(self, shared: PyTree, queue: _Queue) -> tuple[Episodes, Progress]:
        pool = jax.vmap(lambda key: self.env.reset(reset_key(key)))(queue.keys)
        num_jobs, size = queue.member.shape[0], self._observation_size(shared, pool)
        zeros, per_job = jnp.zeros((self.lanes, size)), jnp.zeros((num_jobs, size))
        nobody = _Lanes(
            # Any values will do: every lane takes a job before the first step.
            jax.tree.map(lambda x: jnp.broadcast_to(x[:1], (self.lanes, *x.shape[1:])), pool),
            self._fresh_memory(self.lanes),
            jnp.zeros(self.lanes),
            zeros,
            zeros,
        )
        names = info_names(self.env.spec)
        nothing = Played(
            returns=jnp.zeros(num_jobs),
            lengths=jnp.zeros(num_jobs, jnp.int32),
            obs_sum=per_job,
            obs_squares=per_job,
            lane_steps=jnp.zeros(1, jnp.int32),
            info={name: jnp.full(num_jobs, jnp.nan) for name in names if name in pool.info},
        )
        progress = Progress(
            nobody,
            job=jnp.zeros(self.lanes, jnp.int32),
            active=jnp.zeros(self.lanes, bool),
            queued=jnp.zeros(1, jnp.int32),
            played=nothing,
        )
        return Episodes(queue, pool), progress

    def _advance_share(
        self, shared: PyTree, episodes: Episodes, progress: Progress, steps: jax.Array
    ) -> Progress:
        queue, pool = episodes

        def many_left(carry: tuple[Progress, jax.Array]) -> jax.Array:
            progress, steps = carry
            waiting = (progress.queued < queue.length)[0]
            return (waiting | (jnp.sum(progress.active) > self.tail)) & (steps > 0)

        def refill_and_go_on(carry: tuple[Progress, jax.Array]) -> tuple[Progress, jax.Array]:
            progress, steps = carry
            progress = self._refill(queue, pool, progress)
            return self._until_one_ends(shared, queue, progress, steps)

        def some_left(carry: tuple[Progress, jax.Array]) -> jax.Array:
            progress, steps = carry
            return progress.active.any() & (steps > 0)

        def go_on_with_one(carry: tuple[Progress, jax.Array]) -> tuple[Progress, jax.Array]:
            progress, steps = carry
            lane = jnp.argmax(progress.active)[None]
            alone = progress._replace(
                lanes=jax.tree.map(lambda x: _rows(x, lane), progress.lanes),
                job=_rows(progress.job, lane),
                active=jnp.ones(1, bool),
            )
            alone, steps = self._until_one_ends(shared, queue, alone, steps)
            lanes = jax.tree.map(lambda x, of: x.at[lane].set(of), progress.lanes, alone.lanes)
            active = progress.active.at[lane].set(alone.active)
            return progress._replace(lanes=lanes, active=active, played=alone.played), steps

        carry = jax.lax.while_loop(many_left, refill_and_go_on, (progress, steps))
        if self.tail:
            carry = jax.lax.while_loop(some_left, go_on_with_one, carry)
        return carry[0]

    def _refill(self, queue: _Queue, pool: State, progress: Progress) -> Progress:
        """Give the lanes that are idle the next jobs of the queue, in lane order."""
        idle = ~progress.active
        job = jnp.where(idle, progress.queued + jnp.cumsum(idle) - 1, progress.job)
        fresh = idle & (job < queue.length)
        job = jnp.minimum(job, queue.member.shape[0] - 1)
        episode = _rows(queue.episode, job)
        started = _Lanes(
            jax.tree.map(lambda x: _rows(x, episode), pool),
            self._fresh_memory(len(job)),
            *jax.tree.map(jnp.zeros_like, progress.lanes[2:]),
        )
        return Progress(
            jax.tree.map(lambda new, old: where(fresh, new, old), started, progress.lanes),
            job,
            progress.active | fresh,
            progress.queued + jnp.sum(fresh),
            progress.played,
        )

    def _until_one_ends(
        self, shared: PyTree, queue: _Queue, progress: Progress, most: jax.Array
    ) -> tuple[Progress, jax.Array]:
        """Step all lanes until an episode has ended, and note what it earned.

        `most` bounds the number of steps; returned is what is left of it.
        """
        job, active = progress.job, progress.active
        # Looked up here rather than in every step: this is most of what a perturbed network costs
        # beyond an unperturbed one.
        select = jax.vmap(self.behaviour.select, in_axes=(None, 0))
        selected = _whole_blocks(select(shared, _rows(queue.member, job)))
        episode_key = _rows(queue.keys, _rows(queue.episode, job))
        act = jax.vmap(self.behaviour.act, in_axes=(None, 0, 0, 0, 0))

        def step(carry: tuple[_Lanes, jax.Array]) -> tuple[_Lanes, jax.Array]:
            lanes, steps = carry
            policy_key, env_key = jax.vmap(step_keys)(episode_key, lanes.state.steps)
            seen = _whole_blocks((lanes.memory, lanes.state.obs, policy_key))
            acted = act(shared, selected, *seen)
            action, memory, vector = jax.tree.map(lambda x: x[: len(job)], acted)
            state = jax.vmap(self.env.step)(lanes.state, action, env_key)
            lanes = _Lanes(
                state,
                memory,
                lanes.total + state.reward,
                lanes.obs_sum + vector,
                lanes.obs_squares + vector**2,
            )
            return lanes, steps + 1

        def ended(lanes: _Lanes) -> jax.Array:
            over = lanes.state.terminated | lanes.state.truncated
            if self.max_steps is not None:
                over |= lanes.state.steps >= self.max_steps
            return active & over

        lanes, steps = jax.lax.while_loop(
            lambda carry: ~ended(carry[0]).any() & (carry[1] < most),
            step,
            (progress.lanes, jnp.int32(0)),
        )
        # A job number one past the end is dropped.
        finished = jnp.where(ended(lanes), job, queue.member.shape[0])
        played = _noted(progress.played, lanes, finished, steps * len(job))
        progress = progress._replace(lanes=lanes, active=active & ~ended(lanes), played=played)
        return progress, most - steps

    def _fresh_memory(self, lanes: int) -> PyTree:
        def stack(x: jax.Array) -> jax.Array:
            return jnp.broadcast_to(x, (lanes, *x.shape))

        return jax.tree.map(stack, self.behaviour.memory)

    def _observation_size(self, shared: PyTree, pool: State) -> int:
        def observe(shared: PyTree, obs: jax.Array, key: jax.Array) -> jax.Array:
            selected = self.behaviour.select(shared, jnp.int32(0))
            return self.behaviour.act(shared, selected, self.behaviour.memory, obs, key)[2]

        (size,) = jax.eval_shape(observe, shared, pool.obs[0], jax.random.key(0)).shape
        return size


def _noted(played: Played, lanes: _Lanes, job: jax.Array, lane_steps: jax.Array) -> Played:
    """Add what lanes have earned.

    Args:
      played: what is known so far.
      lanes: S of them.
      job: (S,) the job that each lane has ended; one past the last for a lane that plays on.
      lane_steps: how many steps all lanes together have made.
    """

    def put(jobs: Array, lanes: jax.Array) -> jax.Array:
        return jnp.asarray(jobs).at[job].set(lanes, mode="drop")

    over = lanes.state.terminated | lanes.state.truncated  # by the environment, not cut
    reported = {name: lanes.state.info[name].astype(jnp.float32) for name in played.info}
    return Played(
        returns=put(played.returns, lanes.total),
        lengths=put(played.lengths, lanes.state.steps),
        obs_sum=put(played.obs_sum, lanes.obs_sum),
        obs_squares=put(played.obs_squares, lanes.obs_squares),
        lane_steps=played.lane_steps + lane_steps,
        info={
            name: put(before, jnp.where(over, reported[name], jnp.nan))
            for name, before in played.info.items()
        },
    )


def _whole_blocks(lanes: PyTree) -> PyTree:
    """The lanes, repeated up to a multiple of `_BLOCK`."""

    def fill(x: jax.Array) -> jax.Array:
        return x if len(x) % _BLOCK == 0 else x[np.arange(_BLOCK * -(-len(x) // _BLOCK)) % len(x)]

    return jax.tree.map(fill, lanes)


def _rows(x: jax.Array, index: jax.Array) -> jax.Array:
    """x[index] for an index that is known to be within: a third of the operations to compile."""
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def where(fresh: jax.Array, new: Any, old: Any) -> Any:
    """`new` in lanes that are fresh: (S,), or of more axes; the values have more, keys included."""
    return jnp.where(fresh.reshape(fresh.shape + (1,) * (old.ndim - fresh.ndim)), new, old)
