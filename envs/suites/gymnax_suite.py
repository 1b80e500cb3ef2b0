"""Adapter of gymnax (https://github.com/RobertTLange/gymnax): classic control, bsuite, MinAtar."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.adapting.transitions import (
    cast_like,
    ignore_warnings,
    import_suite,
    next_state,
    start_state,
    traced_once,
)
from envs.base import EnvSpec, State
from envs.errors import NoPicture, UserError, one_line
from envs.pictures.scene import Scene, no_scene
from envs.precision import in_32_bits

_NAMES = (
    *("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    *("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar"),
    *("Catch-bsuite", "DeepSea-bsuite", "MemoryChain-bsuite", "UmbrellaChain-bsuite"),
    "DiscountingChain-bsuite",
    *("FourRooms-misc", "MetaMaze-misc", "PointRobot-misc", "BernoulliBandit-misc"),
    *("GaussianBandit-misc", "Reacher-misc", "Swimmer-misc", "Pong-misc"),
)
"""The environments of gymnax 0.0.9, except MNISTBandit, which downloads its images, and
SimpleBandit, whose `reset` mixes up the fields of its state."""
_LIMITS = ("max_steps_in_episode", "max_timesteps")
"""The names that gymnax and suites of its kind give to their own limit."""
_IMAGES = ("-MinAtar", "-Pixels")
"""Parts of the names of environments whose observations are images."""


def names() -> tuple[str, ...]:
    """Return the names of the environments, without importing gymnax."""
    return _NAMES


def make(name: str, max_episode_steps: int | None = None, **kwargs: Any) -> "GymnaxEnv":
    """Build an environment of gymnax.

    Args:
      name: its name, such as "Breakout-MinAtar".
      max_episode_steps: the steps after which an episode is truncated; gymnax's own limit
        (`EnvParams.max_steps_in_episode`) unless given.
      **kwargs: arguments of the environment's class, or fields of its `EnvParams`.

    Raises:
      UserError: gymnax is not installed, or an argument is unknown.
    """
    if name not in _NAMES:
        raise UserError(f"env='gymnax/{name}': must be one of {', '.join(_NAMES)}")
    gymnax = import_suite(f"gymnax/{name}", "gymnax", "gymnax")
    _, defaults = gymnax.make(name)
    known = {field.name for field in fields(defaults)}
    own = {key: value for key, value in kwargs.items() if key not in known}
    try:
        env, params = gymnax.make(name, **own)
    except TypeError as error:
        raise UserError(f"env='gymnax/{name}': {one_line(error)}") from error
    params = params.replace(**{key: value for key, value in kwargs.items() if key in known})
    return GymnaxEnv(f"gymnax/{name}", env, params, max_episode_steps)


@in_32_bits
def from_gymnax(
    env: Any, params: Any, *, id: str, max_episode_steps: int | None = None
) -> "GymnaxEnv":
    """Adapt a `gymnax.environments.environment.Environment` of your own.

    Args:
      env: the environment.
      params: its `EnvParams`.
      id: the name of the environment, such as "mine/maze".
      max_episode_steps: the steps after which an episode is truncated;
        `params.max_steps_in_episode` unless given.

    Raises:
      UserError: neither says after how many steps an episode is truncated.
    """
    return GymnaxEnv(id, env, params, max_episode_steps)


class GymnaxEnv:
    """A gymnax environment with the interface `envs.Env`, stepped without gymnax's auto-reset.

    gymnax reports one `done` for both kinds of end. Here the environment's own limit is moved
    beyond ours, so that `done` means termination, and reaching `max_episode_steps` is truncation.
    MinAtar's observations of zeros and ones, and images of numbers from 0 to 1, are uint8 here.
    """

    def __init__(self, id: str, env: Any, params: Any, max_episode_steps: int | None):
        ignore_warnings()
        limits = [field.name for field in fields(params) if field.name in _LIMITS]
        if not limits and max_episode_steps is None:
            raise UserError(
                f"{id}: its params have no {_LIMITS[0]}: max_episode_steps must be given"
            )
        limit = int(max_episode_steps or getattr(params, limits[0]))
        self._env = env
        self._params = params.replace(**dict.fromkeys(limits, limit + 1))
        observations = _space(env.observation_space(params))
        self._is_image = any(kind in str(getattr(env, "name", "")) for kind in _IMAGES)
        if self._is_image:
            observations = spaces.Box(0, 255, observations.shape, np.uint8)
        self.spec = EnvSpec(id, observations, _space(env.action_space(params)), limit)

    def _observation(self, obs: jax.Array) -> jax.Array:
        space = self.spec.observation_space
        scaled = jnp.round(jnp.asarray(obs) * 255) if self._is_image else jnp.asarray(obs)
        return jnp.reshape(scaled.astype(space.dtype), space.shape)

    @traced_once
    def reset(self, key: jax.Array) -> State:
        obs, inner = self._env.reset_env(jax.random.key_data(key), self._params)
        action = jnp.asarray(self.spec.action_space.sample())
        like = jax.eval_shape(self._step, inner, action, key)
        return start_state(cast_like(inner, like[1]), self._observation(obs), self._info(like[4]))

    def _info(self, info: dict[str, Any]) -> dict[str, jax.Array]:
        """The scalars in the info that are to be logged; zeros for their shapes."""
        kept = {key: info[key] for key in self.spec.info_keys if key in info}
        return {
            key: jnp.zeros(()) if isinstance(x, jax.ShapeDtypeStruct) else jnp.float32(x)
            for key, x in kept.items()
        }

    def _step(self, inner: Any, action: jax.Array, key: jax.Array) -> Any:
        return self._env.step_env(jax.random.key_data(key), inner, action, self._params)

    @traced_once
    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        obs, inner, reward, done, info = self._step(state.inner, action, key)
        obs, limit, kept = self._observation(obs), self.spec.max_episode_steps, self._info(info)
        return next_state(state, inner, obs, reward, done, limit, kept)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        if not self._is_image:
            raise NoPicture(f"{self.spec.id} has no picture")
        return [minatar_picture(np.asarray(state.obs)) for state in states]

    def scene(self, states: Sequence[State]) -> Scene:
        raise no_scene(self.spec.id)


def minatar_picture(obs: np.ndarray) -> np.ndarray:
    """Draw an observation of MinAtar (height, width, channels) with one colour per channel."""
    hues = np.linspace(0, 2 * np.pi, obs.shape[-1], endpoint=False)[:, None]
    colors = 150 + 105 * np.cos(hues - np.array([0, 2, 4]) * np.pi / 3)
    last = obs.shape[-1] - 1 - np.argmax(obs[..., ::-1], axis=-1)
    image = np.where(obs.any(-1, keepdims=True), colors[last], 0).astype(np.uint8)
    return image.repeat(32, axis=0).repeat(32, axis=1)


def _space(space: Any) -> spaces.Space:
    """Convert a space of gymnax to Gymnasium's."""
    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n))
    shape = tuple(map(int, np.atleast_1d(space.shape))) if space.shape != () else ()
    low, high = (np.broadcast_to(np.asarray(x, np.float32), shape) for x in (space.low, space.high))
    return spaces.Box(low, high, shape, np.float32)
