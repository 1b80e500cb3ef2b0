"""Adapter of the games for one player in Pgx (https://github.com/sotetsuk/pgx)."""

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
from envs.errors import NoPicture, UserError, one_line
from envs.host.nested import flat_space
from envs.pictures.scene import Scene, no_scene
from envs.suites.gymnax_suite import minatar_picture

_MINATAR = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
_NAMES = ("2048", *(f"minatar-{game}" for game in _MINATAR))
_LIMIT = 10_000
"""The steps after which an episode is truncated; the games themselves have no limit."""


def names() -> tuple[str, ...]:
    """Return the names of the games for one player, without importing Pgx."""
    return _NAMES


def make(name: str, max_episode_steps: int = _LIMIT, **kwargs: Any) -> "PgxEnv":
    """Build a game of Pgx.

    Args:
      name: its name, such as "2048" or "minatar-breakout".
      max_episode_steps: the steps after which an episode is truncated.
      **kwargs: arguments of the game's class, such as `sticky_action_prob` of MinAtar.

    Raises:
      UserError: Pgx is not installed, or an argument is unknown.
    """
    id = f"pgx/{name}"
    pgx = import_suite(id, "pgx", "pgx")
    try:
        env = type(pgx.make(name))(**kwargs)
    except TypeError as error:
        raise UserError(f"env={id!r}: {one_line(error)}") from error
    return PgxEnv(id, env, max_episode_steps)


class PgxEnv:
    """A game for one player with the interface `envs.Env`.

    MinAtar's observations are images (uint8, 0 and 255), and all of its actions are always legal.
    The observations of other games are Dicts with a mask of legal actions, which agents receive as
    flat vectors.
    """

    def __init__(self, id: str, env: Any, max_episode_steps: int):
        ignore_warnings()
        self._env = env
        state = jax.eval_shape(env.init, jax.random.key(0))
        self._is_image = id.startswith("pgx/minatar")
        shape, actions = state.observation.shape, state.legal_action_mask.shape[0]
        raw = None
        space: spaces.Box = spaces.Box(0, 255, shape, np.uint8)
        if not self._is_image:
            board = spaces.Box(-np.inf, np.inf, shape, np.float32)
            raw = spaces.Dict({"action_mask": spaces.MultiBinary(actions), "observation": board})
            space = flat_space(raw)
        self.spec = EnvSpec(
            id,
            space,
            spaces.Discrete(actions),
            max_episode_steps,
            frames_per_second=10.0,
            raw_observation_space=raw,
        )

    def _observation(self, inner: Any) -> jax.Array:
        if self._is_image:
            return inner.observation.astype(jnp.uint8) * 255
        parts = (inner.legal_action_mask, inner.observation)
        # On a CPU a conversion of each part takes as long as all the rest of a step.
        return jnp.concatenate([jnp.ravel(part) for part in parts]).astype(jnp.float32)

    @traced_once
    def reset(self, key: jax.Array) -> State:
        inner = self._env.init(key)
        like = jax.eval_shape(self._env.step, inner, jnp.int32(0), key)
        return start_state(cast_like(inner, like), self._observation(inner))

    @traced_once
    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        inner = self._env.step(state.inner, action, key)
        obs, reward, limit = self._observation(inner), inner.rewards[0], self.spec.max_episode_steps
        return next_state(state, inner, obs, reward, inner.terminated, limit)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        if not self._is_image:
            raise NoPicture(f"{self.spec.id} has no picture")
        return [minatar_picture(np.asarray(state.obs)) for state in states]

    def scene(self, states: Sequence[State]) -> Scene:
        raise no_scene(self.spec.id)
