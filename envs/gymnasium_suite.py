"""Gymnasium environments: functional JAX ones on the accelerator, all others on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv

from envs.base import EnvSpec, State, Transition, time_limited

_DEFAULT_LIMIT = 1000
"""Steps after which an episode is truncated where the registration names no limit."""


def names() -> list[str]:
    """Every id that Gymnasium knows at present, the user's own included."""
    return list(gymnasium.registry)


def make(
    name: str, max_episode_steps: int | None = None, **kwargs: Any
) -> "FunctionalEnv | GymnasiumEnv":
    """Build a registered environment; a functional JAX one if its class is one.

    Args:
      name: a registered id, as "CartPole-v1".
      max_episode_steps: truncation; the registered limit (or 1000) unless given.
      **kwargs: passed to `gymnasium.make`.

    Raises:
      ValueError: the environment refuses the arguments.
      RuntimeError: a package that the environment needs is missing.
    """
    registered = gymnasium.spec(name)
    given = dict(kwargs)
    if max_episode_steps is not None:
        given["max_episode_steps"] = max_episode_steps
    limit = max_episode_steps or registered.max_episode_steps or _DEFAULT_LIMIT

    def single(render_mode: str | None = None) -> gymnasium.Env:
        options = kwargs if render_mode is None else {"render_mode": render_mode, **kwargs}
        try:
            return gymnasium.make(
                name, max_episode_steps=limit, disable_env_checker=True, **options
            )
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise RuntimeError(f"gymnasium/{name}: {_one_line(error)}") from error
        except (gymnasium.error.Error, TypeError, ValueError) as error:
            raise ValueError(f"env='gymnasium/{name}': {_one_line(error)}") from error

    first = single()
    func_env = getattr(first.unwrapped, "func_env", None)
    if isinstance(func_env, FuncEnv):
        spec = EnvSpec(
            id=f"gymnasium/{name}",
            observation_space=first.observation_space,
            action_space=first.action_space,
            max_episode_steps=limit,
            reward_threshold=registered.reward_threshold,
            kwargs=given,
            frames_per_second=first.metadata.get("render_fps", 30),
        )
        return FunctionalEnv(func_env, spec)
    spec = EnvSpec(
        id=f"gymnasium/{name}",
        observation_space=first.observation_space,
        action_space=first.action_space,
        max_episode_steps=limit,
        reward_threshold=registered.reward_threshold,
        kwargs=given,
        frames_per_second=first.metadata.get("render_fps", 30),
    )
    first.close()
    return GymnasiumEnv(spec, single)


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _discrete(space: spaces.Space) -> spaces.Space:
    """A bounded box of integers as the (multi-)discrete space that it is; others as they are."""
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.signedinteger):
        return space
    low, high = space.low.reshape(-1).astype(np.int64), space.high.reshape(-1).astype(np.int64)
    if space.low.size == 1:
        return spaces.Discrete(int(high[0] - low[0] + 1), start=int(low[0]))
    return spaces.MultiDiscrete(high - low + 1, start=low)


class FunctionalEnv:
    """A Gymnasium `FuncEnv` on the accelerator contract.

    Its tabular environments declare integers as a Box of int32; they are Discrete here.
    """

    def __init__(self, func_env: FuncEnv, spec: EnvSpec):
        self._func = func_env
        # CliffWalking declares a scalar Box and indexes its action: integers in a Box are vectors.
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
            reason = f"{type(error).__name__}: {_one_line(error)}"
            raise RuntimeError(
                f"{spec.id} cannot run with jax {jax.__version__}: {reason}"
            ) from error

    def _observe(self, inner: Any, key: jax.Array) -> jax.Array:
        return jnp.reshape(self._func.observation(inner, key), self._obs_shape)

    def reset(self, key: jax.Array) -> State:
        initial_key, obs_key = jax.random.key_data(jax.random.split(key))
        # Initial states may hold Python scalars where a transition yields arrays.
        inner = jax.tree.map(
            lambda x, to: jnp.broadcast_to(jnp.asarray(x, to.dtype), to.shape),
            self._func.initial(initial_key),
            self._state_shape,
        )
        false = jnp.zeros((), bool)
        obs = self._observe(inner, obs_key)
        return State(inner, obs, jnp.float32(0), false, false, jnp.int32(0))

    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        keys = jax.random.key_data(jax.random.split(key, 4))
        action = jnp.reshape(action, self._action_shape)
        inner = self._func.transition(state.inner, action, keys[0])
        reward = self._func.reward(state.inner, action, inner, keys[1])
        steps = state.steps + 1
        terminated, truncated = time_limited(
            steps,
            jnp.asarray(self._func.terminal(inner, keys[2])),
            self.spec.max_episode_steps,
        )
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        obs = self._observe(inner, keys[3])
        return State(inner, obs, reward, terminated, truncated, steps)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        from envs.rendering import functional_frames

        return functional_frames(self._func, [state.inner for state in states])


class GymnasiumEnv:
    """A registered Gymnasium environment, stepped on the host."""

    def __init__(self, spec: EnvSpec, single: Callable[[str | None], gymnasium.Env]):
        self.spec = spec
        self._single = single

    def lanes(self, count: int) -> "GymnasiumLanes":
        return GymnasiumLanes([self._single(None) for _ in range(count)])

    def film(self, act: Callable[[np.ndarray], Any], seed: int) -> tuple[float, list[np.ndarray]]:
        env = self._single("rgb_array")
        try:
            obs, _ = env.reset(seed=seed)
            total, frames, done = 0.0, [_picture(env)], False
            while not done:
                obs, reward, terminated, truncated, _ = env.step(_native(env, act(obs)))
                total += float(reward)
                frames.append(_picture(env))
                done = terminated or truncated
            return total, frames
        finally:
            env.close()


class GymnasiumLanes:
    """Environments stepped one after another in this process."""

    def __init__(self, singles: Sequence[gymnasium.Env]):
        self._envs = singles

    def reset(self, lanes: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        pairs = zip(lanes, seeds, strict=True)
        return np.stack([self._envs[lane].reset(seed=int(seed))[0] for lane, seed in pairs])

    def step(self, lanes: np.ndarray, actions: np.ndarray) -> Transition:
        results = [
            self._envs[lane].step(_native(self._envs[lane], action))
            for lane, action in zip(lanes, actions, strict=True)
        ]
        obs, rewards, terminated, truncated, _ = zip(*results, strict=True)
        ended = np.asarray(terminated, bool)
        return (
            np.stack(obs),
            np.asarray(rewards, np.float64),
            ended,
            np.asarray(truncated, bool) & ~ended,
        )

    def close(self) -> None:
        for env in self._envs:
            env.close()


def _picture(env: gymnasium.Env) -> np.ndarray:
    return np.asarray(env.render(), np.uint8)


def _native(env: gymnasium.Env, action: Any) -> Any:
    """The action as its space wants it: a Python int for Discrete, else an array of its dtype."""
    if isinstance(env.action_space, spaces.Discrete):
        return int(action)
    return np.asarray(action, env.action_space.dtype).reshape(env.action_space.shape)
