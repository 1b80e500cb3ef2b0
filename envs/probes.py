"""Probe environments: tiny tasks with a known solution, for testing agents and rollouts."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import EnvSpec, State, time_limited
from envs.errors import NoPicture
from envs.pictures.scene import Scene, no_scene


class Probe:
    """A task of `horizon` steps with a scalar observation and two discrete actions.

    The observation is a random sign (-1 or 1), drawn at reset and, in `resample` tasks, at every
    step. In `recall` tasks only the first observation shows the sign and all later ones are zero,
    but the reward depends on the sign. Tasks that report success do so if the last reward is
    positive.
    """

    def __init__(
        self,
        name: str,
        reward: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
        *,
        horizon: int,
        best: float | None,
        resample: bool = False,
        random_length: bool = False,
        recall: bool = False,
        reports_success: bool = False,
        kwargs: dict[str, Any] | None = None,
    ):
        self._reward = reward
        self._resample = resample
        self._random_length = random_length
        self._recall = recall
        self._reports_success = reports_success
        self.spec = EnvSpec(
            id=f"probe/{name}",
            observation_space=spaces.Box(-1.0, 1.0, (1,), np.float32),
            action_space=spaces.Discrete(2),
            max_episode_steps=horizon,
            reward_threshold=best,
            kwargs=kwargs or {},
        )

    def reset(self, key: jax.Array) -> State:
        sign_key, length_key = jax.random.split(key)
        sign = jax.random.rademacher(sign_key, (1,), jnp.float32)
        horizon = self.spec.max_episode_steps
        length = jax.random.randint(length_key, (), 1, horizon + 1)
        inner = {
            "first": sign,
            "length": length if self._random_length else jnp.int32(horizon + 1),
            "nothing": jnp.zeros(0),  # some environments have such arrays in their states
        }
        false = jnp.zeros((), bool)
        return State(
            inner, sign, jnp.float32(0), false, false, jnp.int32(0), self._info(jnp.float32(0))
        )

    def _info(self, reward: jax.Array) -> dict[str, jax.Array]:
        return {"success": reward > 0} if self._reports_success else {}

    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        steps = state.steps + 1
        last = steps >= self.spec.max_episode_steps
        sign = state.inner["first"] if self._recall else state.obs
        reward = self._reward(sign[0], action, last).astype(jnp.float32)
        obs = jnp.zeros(1) if self._recall else state.obs
        if self._resample:
            obs = jax.random.rademacher(key, (1,), jnp.float32)
        ended = steps >= state.inner["length"]
        terminated, truncated = time_limited(steps, ended, self.spec.max_episode_steps)
        info = self._info(reward)
        return State(state.inner, obs, reward, terminated, truncated, steps, info)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        raise NoPicture(f"{self.spec.id} has no picture")

    def scene(self, states: Sequence[State]) -> Scene:
        raise no_scene(self.spec.id)


def _right(obs: jax.Array, action: jax.Array) -> jax.Array:
    """Return 1 if the action matches the sign of the observation (1 for plus, 0 for minus)."""
    return jnp.where((obs > 0) == (action == 1), 1.0, 0.0)


_PROBES: dict[str, tuple[Callable[..., jax.Array], dict[str, Any]]] = {
    # The return is always 1: there is nothing to learn, and training must not fail.
    "constant_reward": (lambda obs, action, last: jnp.float32(1), {"horizon": 1, "best": 1.0}),
    # The return is the observation: a critic can learn it, a policy cannot change it.
    "observation_reward": (lambda obs, action, last: obs, {"horizon": 1, "best": 0.0}),
    # Action 1 is rewarded, whatever the observation.
    "action_reward": (lambda obs, action, last: action, {"horizon": 1, "best": 1.0}),
    # The rewarded action depends on the observation.
    "policy_reward": (
        lambda obs, action, last: _right(obs, action),
        {"horizon": 8, "best": 8.0, "resample": True},
    ),
    # Only the last of eight steps is rewarded.
    "delayed_reward": (
        lambda obs, action, last: jnp.where(last, _right(obs, action), 0.0),
        {"horizon": 8, "best": 1.0, "reports_success": True},
    ),
    # Only the last of five steps is rewarded, for the sign seen in the first: this needs memory.
    "recall": (
        lambda obs, action, last: jnp.where(last, _right(obs, action), 0.0),
        {"horizon": 5, "best": 1.0, "recall": True},
    ),
    # Like policy_reward, in episodes of random length, 1 to 50 steps, that end by termination.
    "random_length": (
        lambda obs, action, last: _right(obs, action),
        {"horizon": 50, "best": 25.5, "resample": True, "random_length": True},
    ),
}


def names() -> tuple[str, ...]:
    """Return the names of the probe tasks."""
    return tuple(_PROBES)


def make(name: str, max_episode_steps: int | None = None) -> Probe:
    """Build a probe. If `max_episode_steps` is given, its best return is not known (None)."""
    reward, options = _PROBES[name]
    if max_episode_steps is None:
        return Probe(name, reward, **options)
    options = {**options, "horizon": max_episode_steps, "best": None}
    return Probe(name, reward, **options, kwargs={"max_episode_steps": max_episode_steps})
