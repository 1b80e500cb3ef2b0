"""Adapter of Jumanji (https://github.com/instadeepai/jumanji): games, packing, routing."""

import inspect
import math
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
from envs.host.nested import flat_space, leaves_of
from envs.pictures.rendering import no_picture, rgb
from envs.pictures.scene import Scene, no_scene
from envs.precision import in_32_bits

_NAMES = (
    *("Game2048-v1", "GraphColoring-v1", "Minesweeper-v0", "RubiksCube-v0"),
    *("RubiksCube-partly-scrambled-v0", "SlidingTilePuzzle-v0", "Sudoku-v0", "Sudoku-very-easy-v0"),
    *("BinPack-v2", "FlatPack-v0", "JobShop-v0", "Knapsack-v1", "Tetris-v0"),
    *("Cleaner-v0", "Connector-v3", "CVRP-v1", "LevelBasedForaging-v0", "MMST-v0", "Maze-v0"),
    *("PacMan-v1", "RobotWarehouse-v0", "SearchAndRescue-v0", "Snake-v1", "TSP-v1"),
)
"""The environments of Jumanji 1.1, except Sokoban, which downloads its levels, and MultiCVRP, whose
mask has fewer entries than it has actions."""
_LONGEST = 10_000
"""The steps after which an episode is truncated where the environment itself has no limit."""


def names() -> tuple[str, ...]:
    """Return the names of the environments, without importing Jumanji."""
    return _NAMES


def make(name: str, max_episode_steps: int | None = None, **kwargs: Any) -> "JumanjiEnv":
    """Build an environment of Jumanji.

    Args:
      name: its name, such as "Snake-v1".
      max_episode_steps: the steps after which an episode is truncated; unless given, the
        environment's own `time_limit`, or 10,000 if it has none.
      **kwargs: arguments of the environment's class that are JSON values.

    Raises:
      UserError: Jumanji is not installed, or an argument is unknown or has a wrong value.
    """
    id = f"jumanji/{name}"
    jumanji = import_suite(id, "jumanji", "jumanji")
    try:
        env = jumanji.make(name, **kwargs)
        limit = max_episode_steps or getattr(env, "time_limit", None) or _LONGEST
        if "time_limit" in inspect.signature(type(env)).parameters:
            # Beyond our limit, so that every end that the environment reports is of the task.
            env = jumanji.make(name, **{**kwargs, "time_limit": limit + 1})
    except (TypeError, ValueError) as error:
        raise UserError(f"env={id!r}: {one_line(error)}") from error
    return JumanjiEnv(id, env, limit)


@in_32_bits
def from_jumanji(env: Any, *, id: str, max_episode_steps: int) -> "JumanjiEnv":
    """Adapt a `jumanji.Environment` of your own, without Jumanji's wrappers.

    Args:
      env: the environment. Every end that it reports counts as the end of the task, so it should
        have no time limit, or one beyond `max_episode_steps`.
      id: the name of the environment, such as "mine/maze".
      max_episode_steps: the steps after which an episode is truncated.
    """
    return JumanjiEnv(id, env, max_episode_steps)


class JumanjiEnv:
    """A Jumanji environment with the interface `envs.Env`.

    Its observations are Dicts (`EnvSpec.raw_observation_space`), which agents receive as flat
    vectors. Where a mask of joint actions comes with them, as in Tetris, the actions are one
    Discrete space. Rewards of several agents are added up.
    """

    def __init__(self, id: str, env: Any, max_episode_steps: int):
        ignore_warnings()
        self._env = env
        state, timestep = jax.eval_shape(env.reset, jax.random.PRNGKey(0))
        raw = _space(timestep.observation)
        mask = getattr(timestep.observation, "action_mask", None)
        self._joint = None
        action_space = _action_space(env.action_spec)
        if isinstance(action_space, spaces.MultiDiscrete) and mask is not None:
            sizes = tuple(action_space.nvec.tolist())
            if mask.shape == sizes:
                self._joint, action_space = sizes, spaces.Discrete(math.prod(sizes))
        self.spec = EnvSpec(
            id,
            flat_space(raw),
            action_space,
            max_episode_steps,
            frames_per_second=10.0,
            raw_observation_space=raw,
        )
        action = jnp.asarray(action_space.sample())
        self._like, _ = jax.eval_shape(self._step, state, action)

    def _flat(self, observation: Any) -> jax.Array:
        assert self.spec.raw_observation_space is not None
        parts = []
        for path, _ in leaves_of(self.spec.raw_observation_space):
            part = observation
            for name in path:
                part = getattr(part, str(name))
            parts.append(jnp.ravel(part).astype(jnp.float32))
        return jnp.concatenate(parts)

    def _step(self, inner: Any, action: jax.Array) -> Any:
        wanted = self._env.action_spec
        if self._joint is not None:
            action = jnp.stack(jnp.unravel_index(action, self._joint))
        return self._env.step(inner, jnp.reshape(action, wanted.shape).astype(wanted.dtype))

    @traced_once
    def reset(self, key: jax.Array) -> State:
        inner, timestep = self._env.reset(jax.random.key_data(key))
        return start_state(cast_like(inner, self._like), self._flat(timestep.observation))

    @traced_once
    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        del key  # Jumanji keeps its key in its own state
        inner, timestep = self._step(state.inner, action)
        obs, reward = self._flat(timestep.observation), jnp.sum(timestep.reward)
        limit = self.spec.max_episode_steps
        return next_state(state, inner, obs, reward, timestep.last(), limit)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        name = self.spec.id
        try:
            viewer = self._env._viewer
            viewer._display = _pixels  # otherwise a window opens
            # The array may be overwritten by the next picture.
            frames = [np.array(viewer.render(jax.device_get(state.inner))) for state in states]
            viewer.close()
        except Exception as error:
            raise no_picture(name, error) from error
        return [rgb(name, frame) for frame in frames]

    def scene(self, states: Sequence[State]) -> Scene:
        raise no_scene(self.spec.id)


def _pixels(figure: Any) -> np.ndarray:
    """The picture of a figure of matplotlib, whatever backend the user has chosen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _space(observation: Any) -> spaces.Space:
    """The space of an observation, or of a part of it, from its shapes and dtypes."""
    if hasattr(observation, "dtype"):
        if observation.dtype == bool and observation.shape:
            return spaces.MultiBinary(observation.shape)
        return spaces.Box(-np.inf, np.inf, observation.shape, np.float32)
    named = hasattr(observation, "_asdict")
    parts = observation._asdict() if named else vars(observation)
    return spaces.Dict({name: _space(part) for name, part in parts.items()})


def _action_space(spec: Any) -> spaces.Space:
    """Convert a spec of Jumanji's actions."""
    if hasattr(spec, "num_values"):
        sizes = np.asarray(spec.num_values)
        return spaces.MultiDiscrete(sizes) if sizes.shape else spaces.Discrete(int(sizes))
    low, high = (np.broadcast_to(np.asarray(x), spec.shape) for x in (spec.minimum, spec.maximum))
    if np.issubdtype(spec.dtype, np.integer):
        low, high = low.astype(np.int64), high.astype(np.int64)
        return spaces.MultiDiscrete(high - low + 1, start=low)
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), spec.shape, np.float32)
