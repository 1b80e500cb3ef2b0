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
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from envs.base import Env, State

_BLOCK = 8
"""Actions are computed for multiples of so many lanes: for fewer XLA may multiply matrices in
another order, and then a return would depend on the number of lanes."""
Array: TypeAlias = jax.Array | np.ndarray
PyTree: TypeAlias = Any


class Behaviour(NamedTuple):
    """How members act: pure functions of one lane, vmapped by the rollout.

    `shared` is whatever pytree all members have in common, as parameters and noise.
    """

    select: Callable[[PyTree, jax.Array], PyTree]
    """(shared, member) -> what this member has of its own; called when an episode starts."""
    memory: PyTree
    """What a policy remembers when an episode starts, a pytree of arrays; () for nothing."""
    act: Callable[
        [PyTree, PyTree, PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree, jax.Array]
    ]
    """(shared, selected, memory, obs, key) -> (action, memory, the observation as a flat vector
    to take statistics of)."""


class Jobs(NamedTuple):
    """The episodes to play, J of them."""

    member: np.ndarray
    """(J,) int32, who plays."""
    episode: np.ndarray
    """(J,) int32, which episode: jobs with the same number share start state and randomness."""


class Played(NamedTuple):
    """What came of J jobs, in job order."""

    returns: Array
    """(J,), undiscounted: float32 on the accelerator, float64 on the host."""
    lengths: Array
    """(J,) int32, env steps."""
    obs_sum: Array
    """(J, d) sums of the observation vectors that `act` returned."""
    obs_squares: Array
    """(J, d) sums of their squares."""
    lane_steps: Array
    """(devices,) int32, how many steps were executed, those of idle lanes included."""
    nonfinite_actions: Array | None = None
    """(J,) int32, steps whose action was not finite; None on the accelerator, where they are not
    counted: what comes of them is, in the observations."""


def make_jobs(population_size: int, episodes_per_member: int, sharing: int) -> Jobs:
    """One job per member and episode; `sharing` neighbouring members play the same episodes."""
    member = np.repeat(np.arange(population_size, dtype=np.int32), episodes_per_member)
    repeat = np.tile(np.arange(episodes_per_member, dtype=np.int32), population_size)
    return Jobs(member, (member // sharing) * episodes_per_member + repeat)


def episode_keys(key: jax.Array, count: int) -> jax.Array:
    """`count` keys, one per episode; the first ones do not depend on `count`."""
    return jax.vmap(lambda episode: jax.random.fold_in(key, episode))(jnp.arange(count))


def reset_key(episode_key: jax.Array) -> jax.Array:
    """The key of an episode's start state."""
    return jax.random.fold_in(episode_key, 0)


def step_keys(episode_key: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of one step: for the policy and for the environment."""
    # Number 0 belongs to the reset.
    policy_key, env_key = jax.random.split(jax.random.fold_in(episode_key, steps + 1))
    return policy_key, env_key


class _Lanes(NamedTuple):
    """What changes in every step, per lane."""

    state: State
    memory: PyTree
    total: jax.Array
    obs_sum: jax.Array
    obs_squares: jax.Array


class _Progress(NamedTuple):
    """A device's rollout between two refills."""

    lanes: _Lanes
    job: jax.Array
    """(S,) int32, what each lane plays, or has played if it is..."""
    active: jax.Array
    """(S,) bool: ...not active."""
    queued: jax.Array
    """(1,) int32: jobs from here on wait."""
    played: Played


class _Queue(NamedTuple):
    """One device's share of the jobs."""

    member: jax.Array
    episode: jax.Array
    """(J,) indices into the device's own episodes, whose keys are..."""
    keys: jax.Array
    """(E,)."""
    length: jax.Array
    """(1,) int32: jobs from here on are padding."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """Plays the same jobs, on new episodes, as often as it is asked to."""

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
        """Play every job to its end; to be called under jit.

        Args:
          shared: see `Behaviour`.
          keys: (episodes,) typed keys, one per distinct episode of the jobs.
        """
        everywhere, apart = PartitionSpec(), PartitionSpec(self.mesh.axis_names[0])
        member, episode, pool, lengths = map(jnp.asarray, self._shares)
        packed = jax.shard_map(
            lambda shared, queue: _pack(self._play_share(shared, queue)),
            mesh=self.mesh,
            in_specs=(self.shared_spec, apart),
            out_specs=apart,
            check_vma=False,
        )(shared, _Queue(member, episode, keys[pool], lengths))
        # The one exchange between devices.
        gathered = jax.lax.with_sharding_constraint(packed, NamedSharding(self.mesh, everywhere))
        parts = gathered.reshape(self.mesh.size, -1, gathered.shape[-1])
        # Else XLA may fuse what follows with it, and round sums another way for each number of
        # devices.
        return jax.lax.optimization_barrier(_unpack(parts, len(self.jobs.member)))

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

    def _play_share(self, shared: PyTree, queue: _Queue) -> Played:
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
        nothing = Played(
            jnp.zeros(num_jobs),
            jnp.zeros(num_jobs, jnp.int32),
            per_job,
            per_job,
            jnp.zeros(1, jnp.int32),
        )
        start = _Progress(
            nobody,
            job=jnp.zeros(self.lanes, jnp.int32),
            active=jnp.zeros(self.lanes, bool),
            queued=jnp.zeros(1, jnp.int32),
            played=nothing,
        )

        def many_left(progress: _Progress) -> jax.Array:
            return (progress.queued < queue.length)[0] | (jnp.sum(progress.active) > self.tail)

        def refill_and_go_on(progress: _Progress) -> _Progress:
            return self._until_one_ends(shared, queue, self._refill(queue, pool, progress))

        def finish_one(progress: _Progress) -> _Progress:
            lane = jnp.argmax(progress.active)[None]
            alone = progress._replace(
                lanes=jax.tree.map(lambda x: _rows(x, lane), progress.lanes),
                job=_rows(progress.job, lane),
                active=jnp.ones(1, bool),
            )
            return progress._replace(
                active=progress.active.at[lane].set(False),
                played=self._until_one_ends(shared, queue, alone).played,
            )

        progress = jax.lax.while_loop(many_left, refill_and_go_on, start)
        if self.tail:
            progress = jax.lax.while_loop(lambda left: left.active.any(), finish_one, progress)
        return progress.played

    def _refill(self, queue: _Queue, pool: State, progress: _Progress) -> _Progress:
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
        return _Progress(
            jax.tree.map(lambda new, old: where(fresh, new, old), started, progress.lanes),
            job,
            progress.active | fresh,
            progress.queued + jnp.sum(fresh),
            progress.played,
        )

    def _until_one_ends(self, shared: PyTree, queue: _Queue, progress: _Progress) -> _Progress:
        """Step all lanes until an episode has ended, and note what it earned."""
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
            lambda carry: ~ended(carry[0]).any(), step, (progress.lanes, jnp.int32(0))
        )
        # A job number one past the end is dropped.
        finished = jnp.where(ended(lanes), job, queue.member.shape[0])

        def put(jobs: Array, lanes: jax.Array) -> jax.Array:
            return jnp.asarray(jobs).at[finished].set(lanes, mode="drop")

        played = progress.played
        played = Played(
            put(played.returns, lanes.total),
            put(played.lengths, lanes.state.steps),
            put(played.obs_sum, lanes.obs_sum),
            put(played.obs_squares, lanes.obs_squares),
            played.lane_steps + steps * len(job),
        )
        return progress._replace(lanes=lanes, active=active & ~ended(lanes), played=played)

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


def _pack(played: Played) -> jax.Array:
    """What one device has played as one array, (jobs + 1, 2 + 2 d) int32: exchanges are few."""
    per_job = (played.returns[:, None], played.obs_sum, played.obs_squares)
    # Numbers of integers, as bits: those of floating-point numbers need not survive.
    bits = jax.lax.bitcast_convert_type(jnp.concatenate(per_job, axis=1), jnp.int32)
    rows = jnp.concatenate([jnp.asarray(played.lengths)[:, None], bits], axis=1)
    return jnp.concatenate([rows, jnp.broadcast_to(played.lane_steps, (1, rows.shape[1]))])


def _unpack(packed: jax.Array, jobs: int) -> Played:
    """What `_pack` has packed on all devices (devices, ..., ...), without the padding."""
    rows = packed[:, :-1].reshape(-1, packed.shape[-1])[:jobs]
    values = jax.lax.bitcast_convert_type(rows[:, 1:], jnp.float32)
    size = (values.shape[1] - 1) // 2
    return Played(
        values[:, 0], rows[:, 0], values[:, 1 : 1 + size], values[:, 1 + size :], packed[:, -1, 0]
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
