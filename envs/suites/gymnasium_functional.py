"""Adapter of functional JAX environments (`gymnasium.experimental.functional`)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv

from envs.adapting.transitions import cast_like, next_state, start_state, traced_once
from envs.base import EnvSpec, State
from envs.errors import UserError, one_line
from envs.host.nested import is_nested
from envs.pictures.scene import Scene, no_scene
from envs.precision import in_32_bits


@in_32_bits
def from_func_env(
    func_env: FuncEnv, *, id: str, max_episode_steps: int, reward_threshold: float | None = None
) -> "FunctionalEnv":
    """Adapt a functional JAX environment of your own (`gymnasium.experimental.functional`)."""
    spec = EnvSpec(
        id=id,
        observation_space=func_env.observation_space,
        action_space=func_env.action_space,
        max_episode_steps=max_episode_steps,
        reward_threshold=reward_threshold,
    )
    return FunctionalEnv(func_env, spec)


def _discrete(space: spaces.Space) -> spaces.Space:
    """Convert a Box of signed integers to Discrete or MultiDiscrete; return others unchanged."""
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.signedinteger):
        return space
    low, high = space.low.reshape(-1).astype(np.int64), space.high.reshape(-1).astype(np.int64)
    if space.low.size == 1:
        return spaces.Discrete(int(high[0] - low[0] + 1), start=int(low[0]))
    return spaces.MultiDiscrete(high - low + 1, start=low)


class FunctionalEnv:
    """A Gymnasium `FuncEnv` with the interface `envs.Env`.

    Gymnasium's tabular environments declare integers as a Box of int32; their spaces are Discrete
    here.
    """

    def __init__(self, func_env: FuncEnv, spec: EnvSpec):
        if is_nested(spec.observation_space):
            raise UserError(
                f"env={spec.id!r}: its observation space is {spec.observation_space}: must be a "
                "Box, Discrete, MultiDiscrete or MultiBinary, as it does not step on the host"
            )
        self._func = func_env
        # CliffWalking declares a scalar Box but indexes its action, so it must get a vector.
        boxed = isinstance(spec.action_space, spaces.Box)
        self._action_shape = spec.action_space.shape or ((1,) if boxed else ())
        discrete_obs = _discrete(spec.observation_space)
        self._obs_shape = discrete_obs.shape
        self.spec = EnvSpec(
            **{
                **vars(spec),
                "observation_space": discrete_obs,
                "action_space": _discrete(spec.action_space),
            }
        )
        action = jnp.reshape(jnp.asarray(spec.action_space.sample()), self._action_shape)
        key = jax.random.PRNGKey(0)
        try:
            first = jax.eval_shape(func_env.initial, key)
            self._state_shape = jax.eval_shape(func_env.transition, first, action, key)
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise UserError(f"{spec.id} cannot run with jax {jax.__version__}: {reason}") from error

    def _observe(self, inner: Any, key: jax.Array) -> jax.Array:
        return jnp.reshape(self._func.observation(inner, key), self._obs_shape)

    @traced_once
    def reset(self, key: jax.Array) -> State:
        initial_key, obs_key = jax.random.key_data(jax.random.split(key))
        inner = cast_like(self._func.initial(initial_key), self._state_shape)
        return start_state(inner, self._observe(inner, obs_key))

    @traced_once
    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        keys = jax.random.key_data(jax.random.split(key, 4))
        action = jnp.reshape(action, self._action_shape)
        inner = self._func.transition(state.inner, action, keys[0])
        reward = self._func.reward(state.inner, action, inner, keys[1])
        terminated = self._func.terminal(inner, keys[2])
        obs, limit = self._observe(inner, keys[3]), self.spec.max_episode_steps
        return next_state(state, inner, obs, reward, terminated, limit)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        from envs.pictures.rendering import functional_frames

        return functional_frames(self._func, [state.inner for state in states])

    def scene(self, states: Sequence[State]) -> Scene:
        raise no_scene(self.spec.id)
