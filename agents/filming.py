"""One episode of a policy as pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.evaluation import EVALUATION_LANES, evaluation_keys
from agents.network import Weights
from agents.policy import Policy
from envs.base import Env, HostEnv, State
from es_rl.host_rollout import episode_seeds
from es_rl.rollout import reset_key, step_keys

_MAX_FPS = 30.0


@dataclass(frozen=True)
class Film:
    """What one episode looked like."""

    frames: list[np.ndarray]
    """RGB images (height, width, 3) uint8."""
    frames_per_second: float
    episode_return: float


def film(policy: Policy, env: Env | HostEnv, *, seed: int = 0) -> Film:
    """Film episode 0 of an evaluation seed, in real time and at no more than 30 frames a second.

    Raises:
      RuntimeError: the environment has no picture, or the renderer cannot start.
    """
    keys = evaluation_keys(seed, 1)
    stride = max(1, round(env.spec.frames_per_second / _MAX_FPS))
    if isinstance(env, HostEnv):
        (host_seed,) = episode_seeds(keys, evaluation=True)
        total, frames = env.film(_acting(policy), int(host_seed))
        frames = frames[::stride]
    else:
        states = _trajectory(policy, env, keys[0])
        total = float(sum(state.reward for state in states))
        frames = env.render(states[::stride])
    return Film(frames, env.spec.frames_per_second / stride, total)


def _acting(policy: Policy) -> Callable[[np.ndarray], np.ndarray]:
    """obs -> action for one episode, which it remembers as far as the policy does."""
    memory = None

    def act(obs: np.ndarray) -> np.ndarray:
        nonlocal memory
        action, memory = policy.step(obs, memory)
        return action

    return act


def _trajectory(policy: Policy, env: Env, key: jax.Array) -> list[State]:
    """The states of one episode, the start state first."""

    def one_lane(lane: tuple[State, Any], weights: Weights) -> tuple[State, Any]:
        state, memory = lane
        policy_key, env_key = step_keys(key, state.steps)
        action, memory = policy.actor.act(weights, memory, state.obs, policy_key)
        return env.step(state, action, env_key), memory

    def body(lanes: tuple[State, Any], _: None) -> tuple[tuple[State, Any], State]:
        following = jax.vmap(one_lane, in_axes=(0, None))(lanes, policy.weights)
        return following, jax.tree.map(lambda x: x[0], following[0])

    @jax.jit
    def run() -> tuple[State, State]:
        first = env.reset(reset_key(key))
        # As many lanes as in an evaluation, all alike, for the same rounding: the same episode.
        lanes = (first, policy.actor.memory)
        lanes = jax.tree.map(lambda x: jnp.stack([x] * EVALUATION_LANES), lanes)
        _, rest = jax.lax.scan(body, lanes, None, env.spec.max_episode_steps)
        return first, rest

    first, rest = jax.device_get(run())
    ends = np.flatnonzero(rest.terminated | rest.truncated)
    return [first] + [jax.tree.map(lambda x: x[i], rest) for i in range(ends[0] + 1)]  # noqa: B023
