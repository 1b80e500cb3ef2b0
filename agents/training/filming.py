"""Episodes of a policy as pictures, or as solids in motion.

Episode i of an evaluation seed is the one that `agents.evaluate` plays: on the host bit by bit, on
the accelerator but for rounding, which chaotic physics amplifies in a long episode.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.policies.network import Weights
from agents.policies.policy import Policy
from agents.training.evaluation import EVALUATION_LANES, evaluation_behaviour, evaluation_keys
from envs.base import Env, HostEnv, State
from envs.pictures.scene import Scene
from envs.precision import in_32_bits
from es_rl.play.host_acting import Constants, HostActing, as_float32
from es_rl.play.host_rollout import episode_seeds, with_idle_lanes
from es_rl.play.jobs import reset_key, step_keys

_MAX_FPS = 30.0


@dataclass(frozen=True)
class Film:
    """What one episode looked like."""

    frames: list[np.ndarray]
    """RGB images (height, width, 3) uint8."""
    frames_per_second: float
    episode_return: float


@dataclass(frozen=True, eq=False)
class Recording:
    """What moved in one episode, in T frames, and what it earned."""

    scene: Scene
    returns: np.ndarray
    """(T,) float, the undiscounted return so far; 0 in the first frame, the whole in the last."""
    frames_per_second: float
    """In the simulated world. The last frame may follow sooner than the others: where it ends."""
    steps: int
    """Env steps of the episode."""


@in_32_bits
def film(policy: Policy, env: Env | HostEnv, *, seed: int = 0) -> Film:
    """Film episode 0 of an evaluation seed, in real time and at no more than 30 frames a second.

    Raises:
      NoPicture: the environment has no picture, or the renderer cannot start.
    """
    keys = evaluation_keys(seed, 1)
    stride = _stride(env)
    if isinstance(env, HostEnv):
        (host_seed,) = episode_seeds(keys, evaluation=True)
        total, frames = env.film(_acting(policy)(keys[0]), int(host_seed))
        frames = frames[::stride]
    else:
        (states,) = _trajectories(policy, env, keys)
        total = float(sum(state.reward for state in states))
        frames = env.render(states[::stride])
    return Film(frames, env.spec.frames_per_second / stride, total)


@in_32_bits
def record(
    policy: Policy, env: Env | HostEnv, *, episodes: int = 1, seed: int = 0
) -> list[Recording]:
    """Record episodes 0 ... episodes-1 of an evaluation seed, at no more than 30 frames a second.

    Raises:
      UserError: the environment has no MuJoCo model, or its joint positions are not finite.
    """
    keys = evaluation_keys(seed, episodes)
    if isinstance(env, HostEnv):
        acting = _acting(policy)
        seeds = episode_seeds(keys, evaluation=True)
        played = (
            env.scene(acting(key), int(host_seed))
            for key, host_seed in zip(keys, seeds, strict=True)
        )
    else:
        played = (
            (np.array([state.reward for state in states[1:]]), env.scene(states))
            for states in _trajectories(policy, env, keys)
        )
    return [_recording(env, rewards, scene) for rewards, scene in played]


def _recording(env: Env | HostEnv, rewards: np.ndarray, scene: Scene) -> Recording:
    stride, steps = _stride(env), len(rewards)
    shown = np.append(np.arange(0, steps, stride), steps)
    # Added up one by one, as an evaluation does.
    returns = np.concatenate([np.zeros(1, rewards.dtype), np.cumsum(rewards)])[shown]
    return Recording(scene.at(shown), returns, env.spec.frames_per_second / stride, steps)


def _stride(env: Env | HostEnv) -> int:
    """Env steps from one frame to the next."""
    return max(1, round(env.spec.frames_per_second / _MAX_FPS))


def _alike(x: Any) -> Any:
    """As many rows as in an evaluation, all alike, for the same rounding: the same episode."""
    return jax.tree.map(lambda x: jnp.stack([x] * EVALUATION_LANES), x)


def _acting(policy: Policy) -> Callable[[jax.Array], Callable[[np.ndarray], np.ndarray]]:
    """key -> (obs -> action) for the episode of that key.

    What acts remembers the episode as far as the policy does.
    """

    # The program of an evaluation, as another one might round differently: the same episode.
    acting = HostActing(evaluation_behaviour(policy.actor))
    lanes = with_idle_lanes(EVALUATION_LANES) // 2

    def start(key: jax.Array) -> Callable[[np.ndarray], np.ndarray]:
        constants, carry = Constants.of(policy.weights, key[None]), None
        fresh, _, _, steps = numbers = np.zeros((4, lanes), np.int32)
        fresh[:] = 1

        def act(obs: np.ndarray) -> np.ndarray:
            nonlocal carry
            rows = np.stack([as_float32(np.asarray(obs))] * lanes)
            if carry is None:
                carry = acting.start(constants, rows)
            actions, carry = acting.act(constants, carry, numbers, rows)
            actions = np.asarray(actions)
            fresh[:] = 0
            steps[:] += 1
            return actions[0]

        return act

    return start


def _trajectories(policy: Policy, env: Env, keys: jax.Array) -> Iterator[list[State]]:
    """The states of each key's episode, the start state first."""

    def one_lane(lane: tuple[State, Any], weights: Weights, key: jax.Array) -> tuple[State, Any]:
        state, memory = lane
        policy_key, env_key = step_keys(key, state.steps)
        action, memory = policy.actor.act(weights, memory, state.obs, policy_key)
        return env.step(state, action, env_key), memory

    @jax.jit
    def run(weights: Weights, keys: jax.Array) -> tuple[State, State]:
        def body(lanes: tuple[State, Any], _: None) -> tuple[tuple[State, Any], State]:
            following = jax.vmap(one_lane, in_axes=(0, None, 0))(lanes, weights, keys)
            return following, jax.tree.map(lambda x: x[0], following[0])

        states = jax.vmap(lambda key: env.reset(reset_key(key)))(keys)
        lanes = (states, _alike(policy.actor.memory))
        _, rest = jax.lax.scan(body, lanes, None, env.spec.max_episode_steps)
        return jax.tree.map(lambda x: x[0], states), rest

    for key in keys:
        first, rest = jax.device_get(run(policy.weights, _alike(key)))
        ends = np.flatnonzero(rest.terminated | rest.truncated)
        yield [first] + [jax.tree.map(lambda x: x[i], rest) for i in range(ends[0] + 1)]  # noqa: B023
