"""The contract that every environment keeps, whichever suite it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import gymnasium
import jax
import numpy as np
from flax import struct


@dataclass(frozen=True)
class EnvSpec:
    """What an environment is, apart from its dynamics."""

    id: str
    """The name that `envs.make` takes, as "brax/ant"."""
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    max_episode_steps: int
    """Steps after which an episode is truncated."""
    reward_threshold: float | None = None
    """The mean return at which the task counts as solved, where its authors named one."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The keyword arguments that `envs.make` was given."""
    frames_per_second: float = 30.0
    """How many environment steps make a second of the simulated world."""


@struct.dataclass
class State:
    """One environment's state; a pytree, to be vmapped over."""

    inner: Any
    """What the suite needs to go on."""
    obs: jax.Array
    reward: jax.Array
    """float32 scalar, the reward of the step that led here; 0 after a reset."""
    terminated: jax.Array
    """bool scalar: the task's own end; nothing is to be gained from here on."""
    truncated: jax.Array
    """bool scalar: the time limit cut the episode. Never true together with `terminated`."""
    steps: jax.Array
    """int32 scalar, steps since the reset."""


@runtime_checkable
class Env(Protocol):
    """An environment on the accelerator: pure functions of one environment's state."""

    spec: EnvSpec

    def reset(self, key: jax.Array) -> State:
        """A start state. `key` is a typed key (jax.random.key)."""
        ...

    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        """The next state. `action` is an element of `spec.action_space`."""
        ...

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        """One RGB image (height, width, 3) uint8 per state.

        Raises:
          RuntimeError: the environment has no picture, or the renderer cannot start.
        """
        ...


Transition: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""obs (n, ...), reward (n,) float64, terminated (n,) bool, truncated (n,) bool."""


class Lanes(Protocol):
    """Host environments stepped side by side; no lane is ever reset unasked."""

    def reset(self, lanes: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Start a new episode in each of the named lanes; their observations (n, ...)."""
        ...

    def step(self, lanes: np.ndarray, actions: np.ndarray) -> Transition:
        """Step each of the named lanes once."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class HostEnv(Protocol):
    """An environment that steps on the host, outside JAX."""

    spec: EnvSpec

    def lanes(self, count: int) -> Lanes:
        """`count` independent copies, ready to be reset."""
        ...

    def film(self, act: Any, seed: int) -> tuple[float, list[np.ndarray]]:
        """Play one episode with act(obs) -> action; its return and one RGB image per step."""
        ...


def time_limited(
    steps: jax.Array, terminated: jax.Array, limit: int
) -> tuple[jax.Array, jax.Array]:
    """(terminated, truncated) after `steps` steps: the limit truncates what has not ended."""
    terminated = terminated.astype(bool)
    return terminated, (steps >= limit) & ~terminated
