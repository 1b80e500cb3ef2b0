"""Gymnasium environments: functional JAX ones on the accelerator, all others on the host."""

import copy
import importlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv
from gymnasium.wrappers import TransformObservation

from envs.base import EnvSpec, State, time_limited
from envs.errors import UserError, one_line
from envs.host.interface import Interface
from envs.host.nested import flattened, is_nested
from envs.host.pool import START_SECONDS, WorkerPool
from envs.pictures.scene import Scene, has_mujoco_model, no_scene, scene_of
from envs.precision import in_32_bits
from envs.suites.available import register_installed
from envs.suites.making import make_first
from envs.values import finite_float, whole_number

_DEFAULT_LIMIT = 1000
"""Steps after which an episode is truncated where the registration names no limit."""

_DEFAULT_FPS = 30.0
"""Where the environment's metadata name none, or nothing that is above 0."""

_STEP_TIMEOUT = 60.0
_IMPORTED: list[str] = []

_log = logging.getLogger("es_rl")


def names() -> list[str]:
    """Every id that Gymnasium knows at present, the user's own and those of extras included."""
    register_installed()
    return list(gymnasium.registry)


def import_module(module: str) -> None:
    """Import a module that registers environments, here and in every worker to come.

    Raises:
      UserError: there is no such module, or a package that it needs is missing.
      Exception: whatever else it raises.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"import={module}: must be a module that can be imported ({reason})"
        ) from error
    if module not in _IMPORTED:
        _IMPORTED.append(module)


def make(
    name: str, max_episode_steps: int | None = None, **kwargs: Any
) -> "FunctionalEnv | GymnasiumEnv":
    """Build a registered environment; a functional JAX one if its class is one.

    Args:
      name: a registered id, as "CartPole-v1".
      max_episode_steps: truncation; the registered limit (or 1000) unless given.
      **kwargs: passed to `gymnasium.make`; JSON values, as they are saved with policies.

    Raises:
      UserError: the environment refuses the arguments.
      UserError: a package that the environment needs is missing.
      Exception: whatever else the constructor of a user's environment raises.
    """
    return _adapted(f"gymnasium/{name}", gymnasium.spec(name), max_episode_steps, kwargs)


def from_gymnasium(
    factory: Callable[..., gymnasium.Env],
    *,
    id: str,
    max_episode_steps: int | None = None,
    reward_threshold: float | None = None,
) -> "FunctionalEnv | GymnasiumEnv":
    """Adapt a Gymnasium environment of your own, which need not be registered with Gymnasium.

    So that its policies can be replayed, register what makes it:
    `envs.register("mine/reach", lambda: envs.from_gymnasium(Reach, id="mine/reach"))`.

    Args:
      factory: a class, or a function that builds an environment. It is sent to the workers that
        step the environment, each of which calls it once a lane; pictures are asked for with
        `render_mode="rgb_array"` if it takes such an argument.
      id: the name of the environment, as "mine/reach".
      max_episode_steps: the steps after which an episode is truncated: 1000 unless given.
      reward_threshold: the mean return at which the task counts as solved.

    Raises:
      UserError: the factory does not build a Gymnasium environment, or a package is missing.
      Exception: whatever else the factory raises.
    """
    if not callable(factory):
        raise UserError(f"factory={factory!r}: must be a class, or a function without arguments")
    registered = gymnasium.envs.registration.EnvSpec(
        "own/Environment-v0",
        entry_point=_with_render_mode(factory),
        max_episode_steps=max_episode_steps,
        reward_threshold=reward_threshold,
    )
    return _adapted(id, registered, None, {})


def _with_render_mode(factory: Callable[..., gymnasium.Env]) -> Callable[..., gymnasium.Env]:
    """The factory as `gymnasium.make` calls it, with or without a `render_mode`."""
    try:
        inspect.signature(factory).bind(render_mode="rgb_array")
    except TypeError:
        # A function within a function, which is sent to workers as it is, without this module.
        def make(render_mode: str | None = None) -> gymnasium.Env:
            return factory()

        return make
    except ValueError:  # nobody knows its signature
        pass
    return factory


def _adapted(
    id: str,
    registered: gymnasium.envs.registration.EnvSpec,
    max_episode_steps: int | None,
    kwargs: dict[str, Any],
) -> "FunctionalEnv | GymnasiumEnv":
    """The environment of a registration, under an id of ours."""
    given = dict(kwargs)
    if max_episode_steps is not None:
        given["max_episode_steps"] = max_episode_steps
    if "disable_env_checker" in given:
        raise UserError("env_kwargs=disable_env_checker: must be left to es-rl, which sets it")
    limit = max_episode_steps or whole_number(registered.max_episode_steps) or _DEFAULT_LIMIT
    # The registration itself, which a worker can make without having imported what registered it.
    single = partial(
        gymnasium.make, registered, max_episode_steps=limit, disable_env_checker=True, **kwargs
    )
    first = make_first(single, id, registered)
    if max_episode_steps is None and registered.max_episode_steps is None:
        _log.warning(
            "%s: registered without a limit, so its episodes are cut after %d steps; "
            "max_episode_steps (--max-episode-steps) sets another one",
            *(id, limit),
        )
    spec = EnvSpec(
        id=id,
        observation_space=first.observation_space,
        action_space=first.action_space,
        max_episode_steps=limit,
        reward_threshold=finite_float(registered.reward_threshold),
        kwargs=given,
        frames_per_second=_frames_per_second(first.metadata),
    )
    func_env = getattr(first.unwrapped, "func_env", None)
    if isinstance(func_env, FuncEnv):
        return FunctionalEnv(func_env, spec)
    first.close()
    return GymnasiumEnv(spec, single)


def _frames_per_second(metadata: dict[str, Any]) -> float:
    fps = finite_float(metadata.get("render_fps"))
    return fps if fps is not None and fps > 0 else _DEFAULT_FPS


def _cores() -> int:
    # Where the system knows, those that this process may run on.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
        if is_nested(spec.observation_space):
            raise UserError(
                f"env={spec.id!r}: its observation space is {spec.observation_space}: must be a "
                "Box, Discrete, MultiDiscrete or MultiBinary, as it does not step on the host"
            )
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
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise UserError(f"{spec.id} cannot run with jax {jax.__version__}: {reason}") from error

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
        from envs.pictures.rendering import functional_frames

        return functional_frames(self._func, [state.inner for state in states])

    def scene(self, states: Sequence[State]) -> Scene:
        raise no_scene(self.spec.id)


class GymnasiumEnv:
    """A Gymnasium environment, stepped on the host by worker processes.

    Gymnasium's own vector environments are of no use here: they reset lanes by themselves and
    take one seed for all of them, where an episode's seed must not depend on its lane.
    """

    def __init__(self, spec: EnvSpec, single: Callable[..., gymnasium.Env]):
        self.spec = flattened(spec)
        self.workers = _cores()
        self._or_fewer = True
        self._single = single
        self._step_timeout, self._start_timeout = _STEP_TIMEOUT, START_SECONDS

    def placed(
        self,
        *,
        workers: int | None = None,
        step_timeout: float | None = None,
        start_timeout: float | None = None,
    ) -> "GymnasiumEnv":
        # Values may come from a file.
        if workers is not None and (type(workers) is not int or workers < 1):
            raise UserError(f"workers={workers!r}: must be at least 1")
        for name, value in (("step_timeout", step_timeout), ("start_timeout", start_timeout)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < float("inf")):
                raise UserError(f"{name}={value!r}: must be a number of seconds above 0")
        placed = copy.copy(self)
        placed.workers = workers or self.workers
        placed._or_fewer = workers is None and self._or_fewer
        placed._step_timeout = step_timeout or self._step_timeout
        placed._start_timeout = start_timeout or self._start_timeout
        return placed

    def lanes(self, count: int, busy: int | None = None) -> WorkerPool:
        return WorkerPool(
            self.spec,
            self._single,
            count=count,
            busy=busy,
            workers=self.workers,
            or_fewer=self._or_fewer,
            step_timeout=self._step_timeout,
            start_timeout=self._start_timeout,
            imports=_IMPORTED,
        )

    def single(self, **kwargs: Any) -> gymnasium.Env:
        """One of them, in this process: for libraries that step Gymnasium's own interface.

        Its observations are those of `spec.observation_space`.

        Args:
          **kwargs: more arguments for `gymnasium.make`.
        """
        env, raw = self._single(**kwargs), self.spec.raw_observation_space
        if raw is None:
            return env
        return TransformObservation(env, Interface(raw).flat, self.spec.observation_space)

    def film(self, act: Callable[[np.ndarray], Any], seed: int) -> tuple[float, list[np.ndarray]]:
        from envs.pictures.rendering import host_frame, no_picture

        try:
            env = self.single(render_mode="rgb_array")
        except Exception as error:
            raise no_picture(self.spec.id, error) from error
        try:
            total, frames = 0.0, []
            for reward in _episode(env, act, seed):
                total += reward
                frames.append(host_frame(env))
            return total, frames
        finally:
            env.close()

    def scene(self, act: Callable[[np.ndarray], Any], seed: int) -> tuple[np.ndarray, Scene]:
        env = self.single()
        try:
            if not has_mujoco_model(env):
                raise no_scene(self.spec.id)
            model, data = env.unwrapped.model, env.unwrapped.data  # type: ignore[attr-defined]
            rewards, qpos = [], []
            for reward in _episode(env, act, seed):
                rewards.append(reward)
                qpos.append(data.qpos.copy())
            return np.array(rewards[1:]), scene_of(model, qpos)
        finally:
            env.close()


def _episode(env: gymnasium.Env, act: Callable[[np.ndarray], Any], seed: int) -> Iterator[float]:
    """Play one episode; yields 0 after the reset, then the reward of each step."""
    obs, _ = env.reset(seed=seed)
    yield 0.0
    done = False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(_native(env, act(obs)))
        yield float(reward)
        done = terminated or truncated


def _native(env: gymnasium.Env, action: Any) -> Any:
    """The action as its space wants it: a Python int for Discrete, else an array of its dtype."""
    if isinstance(env.action_space, spaces.Discrete):
        return int(action)
    return np.asarray(action, env.action_space.dtype).reshape(env.action_space.shape)
