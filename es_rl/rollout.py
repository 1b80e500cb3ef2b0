"""Population rollouts on the accelerator: every lane busy until the queue of jobs is empty.

A job is one episode of one member. S lanes step in lockstep inside one `while_loop`; a lane whose
episode ends takes the next job in the same step, its start state from a pool made by one vmapped
reset. All randomness of an episode comes from its key and the step, so a return does not depend
on the lane, nor on the number of lanes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Env, State

Array: TypeAlias = jax.Array | np.ndarray

Act: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""(member, obs, key) -> (action, the observation as a flat vector to take statistics of)."""


class Jobs(NamedTuple):
    """The episodes to play, J of them."""

    member: Array
    """(J,) int32, who plays."""
    episode: Array
    """(J,) int32, which episode: jobs with the same number share start state and randomness."""


class Played(NamedTuple):
    """What came of J jobs, in job order."""

    returns: Array
    """(J,) float32, undiscounted."""
    lengths: Array
    """(J,) int32, env steps."""
    obs_sum: Array
    """(J, d) sums of the observation vectors that `act` returned."""
    obs_squares: Array
    """(J, d) sums of their squares."""
    lane_steps: Array
    """int32 scalar, how many steps were executed, those of idle lanes included."""


def make_jobs(population_size: int, episodes_per_member: int, sharing: int) -> Jobs:
    """One job per member and episode; `sharing` neighbouring members play the same episodes."""
    member = jnp.repeat(jnp.arange(population_size), episodes_per_member)
    repeat = jnp.tile(jnp.arange(episodes_per_member), population_size)
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


class _Carry(NamedTuple):
    state: State
    job: jax.Array
    active: jax.Array
    total: jax.Array
    obs_sum: jax.Array
    obs_squares: jax.Array
    queued: jax.Array
    played: Played


def play(env: Env, act: Act, jobs: Jobs, keys: jax.Array, *, lanes: int) -> Played:
    """Play every job to its end.

    Args:
      env: one accelerator environment; vmapped here.
      act: one member's action; vmapped here.
      jobs: what to play.
      keys: (E,) typed keys, one per distinct episode.
      lanes: S, how many environments are stepped side by side.
    """
    num_jobs = jobs.member.shape[0]
    pool = jax.vmap(lambda key: env.reset(reset_key(key)))(keys)

    def lane_step(job: jax.Array, state: State) -> tuple[State, jax.Array]:
        policy_key, env_key = step_keys(keys[jobs.episode[job]], state.steps)
        action, obs = act(jobs.member[job], state.obs, policy_key)
        return env.step(state, action, env_key), obs

    def body(carry: _Carry) -> _Carry:
        state, obs = jax.vmap(lane_step)(carry.job, carry.state)
        total = carry.total + state.reward
        obs_sum, obs_squares = carry.obs_sum + obs, carry.obs_squares + obs**2
        done = carry.active & (state.terminated | state.truncated)
        finished = jnp.where(done, carry.job, num_jobs)  # one past the end is dropped

        def put(jobs: Array, lanes: jax.Array) -> jax.Array:
            return jnp.asarray(jobs).at[finished].set(lanes, mode="drop")

        played = Played(
            put(carry.played.returns, total),
            put(carry.played.lengths, state.steps),
            put(carry.played.obs_sum, obs_sum),
            put(carry.played.obs_squares, obs_squares),
            carry.played.lane_steps + lanes,
        )
        # Lanes that are done take the next jobs of the queue, in lane order.
        job = jnp.where(done, carry.queued + jnp.cumsum(done) - 1, carry.job)
        active = carry.active & (job < num_jobs)
        job = jnp.minimum(job, num_jobs - 1)
        fresh = jax.tree.map(lambda x: x[jobs.episode[job]], pool)
        return _Carry(
            jax.tree.map(lambda new, old: _where(done, new, old), fresh, state),
            job,
            active,
            jnp.where(done, 0.0, total),
            _where(done, jnp.zeros_like(obs_sum), obs_sum),
            _where(done, jnp.zeros_like(obs_squares), obs_squares),
            carry.queued + jnp.sum(done),
            played,
        )

    job = jnp.minimum(jnp.arange(lanes), num_jobs - 1)
    state = jax.tree.map(lambda x: x[jobs.episode[job]], pool)
    obs_shape = jax.eval_shape(jax.vmap(lane_step), job, state)[1]
    zeros = jnp.zeros(obs_shape.shape, obs_shape.dtype)
    per_job = jnp.zeros((num_jobs, *zeros.shape[1:]), zeros.dtype)
    start = _Carry(
        state=state,
        job=job,
        active=jnp.arange(lanes) < num_jobs,
        total=jnp.zeros(lanes),
        obs_sum=zeros,
        obs_squares=zeros,
        queued=jnp.int32(min(lanes, num_jobs)),
        played=Played(
            jnp.zeros(num_jobs), jnp.zeros(num_jobs, jnp.int32), per_job, per_job, jnp.int32(0)
        ),
    )
    return jax.lax.while_loop(lambda carry: carry.active.any(), body, start).played


def _where(done: jax.Array, new: Any, old: Any) -> Any:
    """`new` in lanes that are done; `done` is (S,), the values (S, ...), keys included."""
    return jnp.where(done.reshape(done.shape + (1,) * (old.ndim - 1)), new, old)
