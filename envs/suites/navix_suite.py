"""Adapter of NAVIX (https://github.com/epignatelli/navix): the grid worlds of MiniGrid in JAX."""

from collections.abc import Sequence
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
from envs.errors import UserError, one_line
from envs.pictures.rendering import enlarged, rgb
from envs.pictures.scene import Scene, no_scene

_NAMES = (
    *(f"Navix-Empty-{size}-v0" for size in ("5x5", "6x6", "8x8", "16x16")),
    *(f"Navix-Empty-Random-{size}-v0" for size in ("5x5", "6x6", "8x8", "16x16")),
    *(f"Navix-DoorKey-{size}-v0" for size in ("5x5", "6x6", "8x8", "16x16")),
    *(f"Navix-DoorKey-Random-{size}-v0" for size in ("5x5", "6x6", "8x8", "16x16")),
    "Navix-FourRooms-v0",
    *(f"Navix-KeyCorridor{size}-v0" for size in ("S3R1", "S3R2", "S3R3", "S4R3", "S5R3", "S6R3")),
    *(f"Navix-LavaGapS{size}-v0" for size in (5, 6, 7)),
    *(f"Navix-SimpleCrossing{size}-v0" for size in ("S9N1", "S9N2", "S9N3", "S11N5")),
    *(f"Navix-Dynamic-Obstacles-{size}-v0" for size in ("5x5", "6x6", "8x8", "16x16")),
    *(f"Navix-Dynamic-Obstacles-{size}-Random-v0" for size in ("5x5", "6x6")),
    *("Navix-DistShift1-v0", "Navix-DistShift2-v0"),
    *(f"Navix-GoToDoor-{size}-v0" for size in ("5x5", "6x6", "8x8")),
)
"""The environments of NAVIX 0.7."""
_OBSERVATIONS = ("symbolic", "symbolic_first_person", "categorical", "categorical_first_person")
_IMAGES = ("rgb", "rgb_first_person")
_LIMIT = 100
"""The steps after which NAVIX truncates an episode."""


def names() -> tuple[str, ...]:
    """Return the names of the environments, without importing NAVIX."""
    return _NAMES


def make(
    name: str,
    max_episode_steps: int = _LIMIT,
    observation_fn: str = "symbolic",
    **kwargs: Any,
) -> "NavixEnv":
    """Build an environment of NAVIX.

    Args:
      name: its name, such as "Navix-DoorKey-8x8-v0".
      max_episode_steps: the steps after which an episode is truncated; 100 as in NAVIX.
      observation_fn: the name of the function in `navix.observations`: "symbolic" (the whole grid),
        "categorical", "rgb", or one of these with "_first_person".
      **kwargs: arguments of the environment's class that are JSON values.

    Raises:
      UserError: NAVIX is not installed, or an argument is unknown.
    """
    id = f"navix/{name}"
    navix = import_suite(id, "navix", "navix")
    if observation_fn not in (*_OBSERVATIONS, *_IMAGES):
        accepted = ", ".join((*_OBSERVATIONS, *_IMAGES))
        raise UserError(f"observation_fn={observation_fn!r}: must be one of {accepted}")
    seen = getattr(navix.observations, observation_fn)
    try:
        # Its own limit is moved beyond ours, so that every end that it reports is of the task.
        env = navix.make(name, max_steps=max_episode_steps + 1, observation_fn=seen, **kwargs)
    except TypeError as error:
        raise UserError(f"env={id!r}: {one_line(error)}") from error
    return NavixEnv(id, env, max_episode_steps, is_image=observation_fn in _IMAGES)


class NavixEnv:
    """A NAVIX environment with the interface `envs.Env`, stepped without NAVIX's auto-reset.

    The numbers of a grid (categories, colours, states) are float32, so that networks do not take
    the grid for an image; rgb observations are images.
    """

    def __init__(self, id: str, env: Any, max_episode_steps: int, *, is_image: bool):
        ignore_warnings()
        from navix.rendering.cache import RenderingCache

        self._env, self._cache, self._is_image = env, RenderingCache, is_image
        timestep = jax.eval_shape(self._reset, jax.random.key(0))
        self._like = jax.eval_shape(env._step, timestep, jnp.int32(0))
        shape = timestep.observation.shape
        self.spec = EnvSpec(
            id,
            spaces.Box(0, 255, shape, np.uint8 if is_image else np.float32),
            spaces.Discrete(len(env.action_set)),
            max_episode_steps,
            frames_per_second=10.0,
        )

    def _reset(self, key: jax.Array) -> Any:
        # The pictures of the grid's cells, 3 kB each, would be part of every state. Only rgb
        # observations need them.
        cache = None if self._is_image else self._cache(jnp.zeros((0,), jnp.uint8))
        return self._env.reset(jax.random.key_data(key), cache)

    def _observation(self, timestep: Any) -> jax.Array:
        return jnp.asarray(timestep.observation).astype(self.spec.observation_space.dtype)

    @traced_once
    def reset(self, key: jax.Array) -> State:
        timestep = cast_like(self._reset(key), self._like)
        return start_state(timestep, self._observation(timestep))

    @traced_once
    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        del key  # NAVIX keeps its key in its own state
        timestep = self._env._step(state.inner, jnp.asarray(action, jnp.int32))
        over, limit = timestep.is_termination(), self.spec.max_episode_steps
        obs = self._observation(timestep)
        return next_state(state, timestep, obs, timestep.reward, over, limit)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        from navix.observations import rgb as picture

        def drawn(grid_state: Any) -> jax.Array:
            return picture(grid_state.replace(cache=self._cache.init(grid_state.grid)))

        draw = jax.jit(drawn)
        return [enlarged(rgb(self.spec.id, draw(state.inner.state))) for state in states]

    def scene(self, states: Sequence[State]) -> Scene:
        raise no_scene(self.spec.id)
