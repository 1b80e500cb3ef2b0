"""Population rollouts of environments that step on the host: the same jobs, the same results."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import numpy as np

from envs.base import Lanes
from es_rl.rollout import Jobs, Played, PyTree

HostAct: TypeAlias = Callable[
    [PyTree, np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[jax.Array, PyTree, jax.Array]
]
"""(memory, members, episodes, steps, obs), each with S rows -> (actions, memory, observation
vectors (S, d))."""

_EVALUATION_BIT = 1 << 31


def episode_seeds(keys: jax.Array, *, evaluation: bool) -> list[int]:
    """One seed per episode key for `reset`: below 2^31 for training, from 2^31 for evaluation."""
    bits = np.asarray(jax.random.key_data(keys))[..., -1] & (_EVALUATION_BIT - 1)
    return [int(b) + evaluation * _EVALUATION_BIT for b in bits]


def play_on_host(
    envs: Lanes, act: HostAct, memory: PyTree, jobs: Jobs, seeds: list[int], *, lanes: int
) -> Played:
    """Play every job to its end.

    Args:
      envs: `lanes` host environments.
      act: the members' actions, for all lanes in one call.
      memory: what a policy remembers when an episode starts; () for nothing.
      jobs: what to play.
      seeds: one per distinct episode, given to the environment's reset.
      lanes: S; rows of idle lanes are still passed to `act`, so that its shapes never change.
    """
    member, episode = np.asarray(jobs.member), np.asarray(jobs.episode)
    num_jobs = len(member)
    busy = np.arange(min(lanes, num_jobs))
    job = np.minimum(np.arange(lanes), num_jobs - 1)
    first = envs.reset(busy, [seeds[e] for e in episode[job[busy]]])
    obs = np.zeros((lanes, *first.shape[1:]), first.dtype)
    obs[busy] = first
    queued, executed = len(busy), 0
    returns, lengths = np.zeros(num_jobs), np.zeros(num_jobs, np.int32)
    obs_sum: np.ndarray | None = None
    start = jax.tree.map(lambda x: np.stack([x] * lanes), memory)
    memory = start
    while len(busy):
        actions, memory, observed = act(memory, member[job], episode[job], lengths[job], obs)
        vectors = np.asarray(observed, np.float64)
        if obs_sum is None:
            obs_sum = np.zeros((num_jobs, vectors.shape[1]))
            obs_squares = np.zeros_like(obs_sum)
        obs[busy], reward, terminated, truncated = envs.step(busy, np.asarray(actions)[busy])
        playing = job[busy]
        returns[playing] += reward
        lengths[playing] += 1
        obs_sum[playing] += vectors[busy]
        obs_squares[playing] += vectors[busy] ** 2
        executed += lanes
        done = busy[terminated | truncated]
        refilled = done[: num_jobs - queued]
        if len(refilled):
            job[refilled] = np.arange(queued, queued + len(refilled))
            obs[refilled] = envs.reset(refilled, [seeds[e] for e in episode[job[refilled]]])
            queued += len(refilled)
            memory = jax.tree.map(partial(_put, lanes=refilled), start, memory)
        busy = np.setdiff1d(busy, done[len(refilled) :])
    assert obs_sum is not None
    float32 = [np.asarray(x, np.float32) for x in (returns, obs_sum, obs_squares)]
    return Played(float32[0], lengths, float32[1], float32[2], np.asarray([executed], np.int32))


def _put(new: np.ndarray, old: jax.Array, lanes: np.ndarray) -> np.ndarray:
    mixed = np.array(old)
    mixed[lanes] = new[lanes]
    return mixed
