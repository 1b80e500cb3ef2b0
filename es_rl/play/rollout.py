"""Population rollouts on the accelerator, with every lane busy until the queue of jobs is empty.

A job is one episode of one member. On each device S lanes step in lockstep. When an episode ends,
its lane takes the next job, with a start state from a pool that one vmapped reset has made. If the
start states of all episodes would take too much memory, the pool holds those of a window of
episodes, which moves on when lanes need later ones. Devices exchange nothing until all of them have
finished.

All randomness of an episode comes from its key and the step number, so a return does not depend on
the lane, nor on the number of lanes or devices. The exception is rounding: physics in a batch of
another size may be computed in another order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from envs.base import Env, State
from es_rl.play.jobs import Array, Jobs, Played, info_names, pack, reset_key, step_keys, unpack
from es_rl.play.player import Behaviour, PyTree
from es_rl.play.rollout_data import Episodes, LaneState, Progress, Queue, Window, blank, where

_BLOCK = 8
"""Actions are computed for a multiple of this many lanes. For fewer lanes XLA may multiply matrices
in another order, and a return would then depend on the number of lanes."""
NO_LIMIT = 2**31 - 1
"""More steps than any rollout takes."""
POOL_BYTES = 1 << 26
"""The bytes of start states that a device holds before any of them is used. Where the states of all
lanes together take more, it is as many start states as there are lanes."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """Plays the same jobs repeatedly, each time with new episodes.

    `play` plays all of them in one call. `start`, `advance` and `finish` do the same in parts, so
    that the host can report progress in between. The number of parts does not change the results.
    All methods must be called under jit.
    """

    env: Env
    """The environment."""
    behaviour: Behaviour
    """How members act."""
    jobs: Jobs
    """The jobs to play."""
    mesh: Mesh
    """A mesh with one axis, over which the jobs are spread in contiguous shares."""
    num_lanes: int
    """S, the number of environments that each device steps side by side."""
    tail: int = 0
    """When no job waits and at most this many lanes still play, these finish one after the other,
    as one lane alone steps faster than together with idle lanes. With 0 this is never done, which
    saves compiling a second step function."""
    max_steps: int | None = None
    """The number of steps after which episodes are cut; None to cut none."""
    shared_spec: PyTree = PartitionSpec()
    """The sharding of `shared` over the mesh, as a prefix of its tree. Each device gets its
    part."""
    pool_bytes: int = POOL_BYTES
    """See `POOL_BYTES`."""

    def play(self, shared: PyTree, keys: jax.Array) -> Played:
        """Play every job to its end.

        Args:
          shared: the shared data of the `Behaviour`.
          keys: (episodes,) typed keys, one per distinct episode of the jobs.
        """
        episodes, progress = self.start(shared, keys)
        return self.finish(self.advance(shared, episodes, progress, jnp.int32(NO_LIMIT)))

    def start(self, shared: PyTree, keys: jax.Array) -> tuple[Episodes, Progress]:
        """Make the start states. No lane has a job yet. Takes the same arguments as `play`."""
        member, episode, starting, lengths = map(jnp.asarray, self._shares)
        queue = Queue(member, episode, keys[starting], lengths)
        return self._on_devices(self._start_share, self.shared_spec, self._apart)(shared, queue)

    def advance(
        self, shared: PyTree, episodes: Episodes, progress: Progress, steps: jax.Array
    ) -> Progress:
        """Play until every job has ended, or for a number of steps of all lanes side by side.

        Args:
          shared: the shared data of the `Behaviour`.
          episodes: the episodes from `start`.
          progress: the progress from `start` or from the last `advance`.
          steps: int32 scalar, the most steps to play. A step of a single lane (see `tail`) counts
            like a step of all lanes.
        """
        specs = self.shared_spec, self._apart, self._apart, PartitionSpec()
        return self._on_devices(self._advance_share, *specs)(shared, episodes, progress, steps)

    def ended(self, progress: Progress) -> jax.Array:
        """Return (devices,) int32, the number of jobs that have ended on each device."""
        active = progress.active.reshape(self.mesh.size, -1)
        return progress.queued - jnp.sum(active, axis=1, dtype=jnp.int32)

    def finish(self, progress: Progress) -> Played:
        """Return the results of the jobs, once all of them have ended."""
        packed = self._on_devices(pack, self._apart)(progress.played)
        # This is the only exchange between devices.
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        gathered = jax.lax.with_sharding_constraint(packed, everywhere)
        parts = gathered.reshape(self.mesh.size, -1, gathered.shape[-1])
        # Without the barrier XLA may fuse later operations with this one, and then sums would round
        # differently for each number of devices.
        played = unpack(parts, len(self.jobs.member), progress.played.info)
        return jax.lax.optimization_barrier(played)

    @property
    def _apart(self) -> PartitionSpec:
        return PartitionSpec(self.mesh.axis_names[0])

    def _on_devices(self, function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
        """Return a function that every device runs on its part of the arguments."""
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=self._apart, check_vma=False
        )

    @cached_property
    def _shares(self) -> tuple[np.ndarray, ...]:
        """The shares of all devices, concatenated along the first axis.

        These are the member of each job, the episode of each job as numbered on the device, the
        global numbers of the device's episodes, and the number of jobs of each device.
        """
        devices, count = self.mesh.size, len(self.jobs.member)
        share = -(-count // devices)
        padded = np.minimum(np.arange(devices * share), count - 1).reshape(devices, share)
        # A device resets each of its episodes once, even if several of its jobs share it.
        numbers = [np.unique(self.jobs.episode[jobs]) for jobs in padded]
        shares = zip(numbers, padded, strict=True)
        local = [np.searchsorted(n, self.jobs.episode[jobs]) for n, jobs in shares]
        most = max(map(len, numbers))
        starting = [np.pad(n, (0, most - len(n)), mode="edge") for n in numbers]
        lengths = np.clip(count - share * np.arange(devices), 0, share)
        as_int = [np.asarray(x, np.int32) for x in (local, starting, lengths)]
        return self.jobs.member[padded].reshape(-1), *(x.reshape(-1) for x in as_int)

    def _start_share(self, shared: PyTree, queue: Queue) -> tuple[Episodes, Progress]:
        one = jax.eval_shape(self.env.reset, queue.keys[0])
        state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one))
        portion = max(self.num_lanes, self.pool_bytes // state_bytes)
        starts, window = None, None
        if portion < len(queue.keys):
            # Values that do not matter: nothing of a lane without a job is counted.
            nobody = blank(one, self.num_lanes)
            window = Window(blank(one, portion), jnp.full(1, -portion, jnp.int32))
        else:
            starts = self._start_states(queue.keys)
            # If there are fewer jobs than lanes, the others step from a state that can be stepped.
            nobody = jax.tree.map(
                lambda x: jnp.broadcast_to(x[:1], (self.num_lanes, *x.shape[1:])), starts
            )
        num_jobs, size = queue.member.shape[0], self._observation_size(shared, one)
        zeros, per_job = jnp.zeros((self.num_lanes, size)), jnp.zeros((num_jobs, size))
        lane_state = LaneState(
            nobody,
            self._fresh_memory(self.num_lanes),
            jnp.zeros(self.num_lanes),
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
            info={name: jnp.full(num_jobs, jnp.nan) for name in names if name in one.info},
        )
        progress = Progress(
            lane_state,
            job=jnp.zeros(self.num_lanes, jnp.int32),
            active=jnp.zeros(self.num_lanes, bool),
            queued=jnp.zeros(1, jnp.int32),
            played=nothing,
            window=window,
        )
        return Episodes(queue, starts), progress

    def _start_states(self, keys: jax.Array) -> State:
        return jax.vmap(lambda key: self.env.reset(reset_key(key)))(keys)

    def _advance_share(
        self, shared: PyTree, episodes: Episodes, progress: Progress, steps: jax.Array
    ) -> Progress:
        queue, starts = episodes

        def many_left(carry: tuple[Progress, jax.Array]) -> jax.Array:
            progress, steps = carry
            waiting = (progress.queued < queue.length)[0]
            return (waiting | (jnp.sum(progress.active) > self.tail)) & (steps > 0)

        def refill_and_go_on(carry: tuple[Progress, jax.Array]) -> tuple[Progress, jax.Array]:
            progress, steps = carry
            if starts is None:
                progress = self._refill_from_windows(queue, progress)
            else:
                progress = self._refill(queue, starts, progress)
            return self._until_one_ends(shared, queue, progress, steps)

        def some_left(carry: tuple[Progress, jax.Array]) -> jax.Array:
            progress, steps = carry
            return progress.active.any() & (steps > 0)

        def go_on_with_one(carry: tuple[Progress, jax.Array]) -> tuple[Progress, jax.Array]:
            progress, steps = carry
            lane = jnp.argmax(progress.active)[None]
            alone = progress._replace(
                lane_state=jax.tree.map(lambda x: _rows(x, lane), progress.lane_state),
                job=_rows(progress.job, lane),
                active=jnp.ones(1, bool),
            )
            alone, steps = self._until_one_ends(shared, queue, alone, steps)
            lane_state = jax.tree.map(
                lambda x, of: x.at[lane].set(of), progress.lane_state, alone.lane_state
            )
            active = progress.active.at[lane].set(alone.active)
            progress = progress._replace(lane_state=lane_state, active=active, played=alone.played)
            return progress, steps

        carry = jax.lax.while_loop(many_left, refill_and_go_on, (progress, steps))
        if self.tail:
            carry = jax.lax.while_loop(some_left, go_on_with_one, carry)
        return carry[0]

    def _refill_from_windows(self, queue: Queue, progress: Progress) -> Progress:
        """Give the next jobs to the idle lanes, and move the window on as often as they need it."""
        assert progress.window is not None
        size, last = len(progress.window.starts.steps), len(queue.keys)

        def refill(progress: Progress) -> Progress:
            assert progress.window is not None
            return self._refill(queue, progress.window.starts, progress, progress.window.first)

        def waiting(progress: Progress) -> jax.Array:
            return ((progress.queued < queue.length) & ~progress.active.all())[0]

        def move_on(progress: Progress) -> Progress:
            first = jnp.minimum(_rows(queue.episode, progress.queued), last - size)
            keys = _rows(queue.keys, first + jnp.arange(size))
            return refill(progress._replace(window=Window(self._start_states(keys), first)))

        return jax.lax.while_loop(waiting, move_on, refill(progress))

    def _refill(
        self, queue: Queue, starts: State, progress: Progress, first: jax.Array | int = 0
    ) -> Progress:
        """Give the next jobs of the queue to the idle lanes, in lane order.

        Args:
          queue: the jobs.
          starts: the start states of neighbouring episodes.
          progress: the progress so far.
          first: the first of these episodes. A job of another episode waits, and so do those after
            it.
        """
        idle = ~progress.active
        job = jnp.where(idle, progress.queued + jnp.cumsum(idle) - 1, progress.job)
        fresh = idle & (job < queue.length)
        job = jnp.minimum(job, queue.member.shape[0] - 1)
        episode = _rows(queue.episode, job)
        if progress.window is not None:
            outside = (episode < first) | (episode >= first + len(starts.steps))
            fresh &= jnp.cumsum(idle & outside) == 0
            episode = jnp.where(fresh, episode - first, 0)
        started = LaneState(
            jax.tree.map(lambda x: _rows(x, episode), starts),
            self._fresh_memory(len(job)),
            *jax.tree.map(jnp.zeros_like, progress.lane_state[2:]),
        )
        return Progress(
            jax.tree.map(lambda new, old: where(fresh, new, old), started, progress.lane_state),
            job,
            progress.active | fresh,
            progress.queued + jnp.sum(fresh),
            progress.played,
            progress.window,
        )

    def _until_one_ends(
        self, shared: PyTree, queue: Queue, progress: Progress, most: jax.Array
    ) -> tuple[Progress, jax.Array]:
        """Step all lanes until an episode has ended, and record its result.

        At most `most` steps are made. Returns the progress, and `most` minus the steps made.
        """
        job, active = progress.job, progress.active
        # The factors are looked up here and not in every step, as the lookup is most of the extra
        # cost of a perturbed network.
        select = jax.vmap(self.behaviour.select, in_axes=(None, 0))
        selected = _whole_blocks(select(shared, _rows(queue.member, job)))
        episode_key = _rows(queue.keys, _rows(queue.episode, job))
        act = jax.vmap(self.behaviour.act, in_axes=(None, 0, 0, 0, 0))

        def step(carry: tuple[LaneState, jax.Array]) -> tuple[LaneState, jax.Array]:
            lane_state, steps = carry
            policy_key, env_key = jax.vmap(step_keys)(episode_key, lane_state.state.steps)
            seen = _whole_blocks((lane_state.memory, lane_state.state.obs, policy_key))
            acted = act(shared, selected, *seen)
            action, memory, vector = jax.tree.map(lambda x: x[: len(job)], acted)
            state = jax.vmap(self.env.step)(lane_state.state, action, env_key)
            lane_state = LaneState(
                state,
                memory,
                lane_state.total + state.reward,
                lane_state.obs_sum + vector,
                lane_state.obs_squares + vector**2,
            )
            return lane_state, steps + 1

        def ended(lane_state: LaneState) -> jax.Array:
            over = lane_state.state.terminated | lane_state.state.truncated
            if self.max_steps is not None:
                over |= lane_state.state.steps >= self.max_steps
            return active & over

        lane_state, steps = jax.lax.while_loop(
            lambda carry: ~ended(carry[0]).any() & (carry[1] < most),
            step,
            (progress.lane_state, jnp.int32(0)),
        )
        over = ended(lane_state)
        # A lane that still plays gets a job number one past the end, which `_noted` drops.
        finished = jnp.where(over, job, queue.member.shape[0])
        played = _noted(progress.played, lane_state, finished, steps * len(job))
        progress = progress._replace(lane_state=lane_state, active=active & ~over, played=played)
        return progress, most - steps

    def _fresh_memory(self, count: int) -> PyTree:
        def stack(x: jax.Array) -> jax.Array:
            return jnp.broadcast_to(x, (count, *x.shape))

        return jax.tree.map(stack, self.behaviour.memory)

    def _observation_size(self, shared: PyTree, start: State) -> int:
        def observe(shared: PyTree, obs: jax.Array, key: jax.Array) -> jax.Array:
            selected = self.behaviour.select(shared, jnp.int32(0))
            return self.behaviour.act(shared, selected, self.behaviour.memory, obs, key)[2]

        (size,) = jax.eval_shape(observe, shared, start.obs, jax.random.key(0)).shape
        return size


def _noted(played: Played, lane_state: LaneState, job: jax.Array, lane_steps: jax.Array) -> Played:
    """Add the results of lanes whose episodes have ended.

    Args:
      played: the results so far.
      lane_state: the data of S lanes.
      job: (S,), the job that each lane has ended; one past the last job if it has not ended.
      lane_steps: the number of steps that all lanes together have made.
    """

    def put(jobs: Array, values: jax.Array) -> jax.Array:
        return jnp.asarray(jobs).at[job].set(values, mode="drop")

    over = lane_state.state.terminated | lane_state.state.truncated  # not cut by `max_steps`
    reported = {name: lane_state.state.info[name].astype(jnp.float32) for name in played.info}
    return Played(
        returns=put(played.returns, lane_state.total),
        lengths=put(played.lengths, lane_state.state.steps),
        obs_sum=put(played.obs_sum, lane_state.obs_sum),
        obs_squares=put(played.obs_squares, lane_state.obs_squares),
        lane_steps=played.lane_steps + lane_steps,
        info={
            name: put(before, jnp.where(over, reported[name], jnp.nan))
            for name, before in played.info.items()
        },
    )


def _whole_blocks(rows: PyTree) -> PyTree:
    """Repeat lanes until their number is a multiple of `_BLOCK`."""

    def fill(x: jax.Array) -> jax.Array:
        return x if len(x) % _BLOCK == 0 else x[np.arange(_BLOCK * -(-len(x) // _BLOCK)) % len(x)]

    return jax.tree.map(fill, rows)


def _rows(x: jax.Array, index: jax.Array) -> jax.Array:
    """Return x[index] for indices that are in range, which needs a third of the operations."""
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
