"""Adapter of Gymnasium environments, whether registered or not.

Functional JAX environments run on the accelerator, all others on the host.
"""

import copy
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.experimental.functional import FuncEnv
from gymnasium.wrappers import TransformObservation

from envs.adapting.making import make_first, takes, without_log
from envs.available import register_installed
from envs.base import EnvSpec
from envs.errors import UserError, one_line
from envs.host.interface import Interface
from envs.host.nested import flattened
from envs.host.pool import START_SECONDS, WorkerPool
from envs.pictures.scene import Scene, has_mujoco_model, no_scene, scene_of
from envs.suites.gymnasium_functional import FunctionalEnv
from envs.values import finite_float, whole_number

_DEFAULT_LIMIT = 1000
"""The steps after which an episode is truncated if the registration has no limit."""

_DEFAULT_FPS = 30.0
"""The frames per second if the environment's metadata have no number above 0."""

_OF_PICTURES = frozenset(
    ("camera_id", "camera_name", "default_camera_config", "height", "visual_options", "width")
)
"""The arguments of Gymnasium's MuJoCo tasks that change their pictures."""

_STEP_TIMEOUT = 60.0
_IMPORTED: list[str] = []

_log = logging.getLogger("es_rl")


def names() -> list[str]:
    """Return every id that Gymnasium knows now, also those of the user and of es-rl's extras."""
    register_installed()
    return list(gymnasium.registry)


def import_module(module: str) -> None:
    """Import a module that registers environments, here and in every worker started later.

    Raises:
      UserError: there is no such module, or a package that it needs is missing.
      Exception: any other error that the module raises.
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
    """Build a registered environment.

    Args:
      name: a registered id, such as "CartPole-v1".
      max_episode_steps: the steps after which an episode is truncated; the registered limit (or
        1000) unless given.
      **kwargs: arguments for `gymnasium.make`; JSON values, as they are saved with policies.

    Returns:
      A `FunctionalEnv` if the class is a functional JAX environment, otherwise a `GymnasiumEnv`.

    Raises:
      UserError: the environment refuses the arguments, or a package that it needs is missing.
      Exception: any other error that the constructor of a user's environment raises.
    """
    given = dict(kwargs)
    if max_episode_steps is not None:
        given["max_episode_steps"] = max_episode_steps
    if "disable_env_checker" in given:
        raise UserError("env_kwargs=disable_env_checker: must be left to es-rl, which sets it")
    id, registered = f"gymnasium/{name}", gymnasium.spec(name)
    limit = _limit(id, max_episode_steps, registered)
    # Pass the registration itself: a worker may not have imported the module that registered it.
    build = partial(
        gymnasium.make, registered, max_episode_steps=limit, disable_env_checker=True, **kwargs
    )
    single = without_log(build, registered.entry_point)
    first = make_first(single, id, registered)
    threshold = finite_float(registered.reward_threshold)
    return _adapted(first, single, id, limit, threshold, given)


def from_gymnasium(
    factory: Callable[..., gymnasium.Env],
    *,
    id: str,
    max_episode_steps: int | None = None,
    reward_threshold: float | None = None,
) -> "FunctionalEnv | GymnasiumEnv":
    """Adapt a Gymnasium environment of your own, which need not be registered with Gymnasium.

    To replay its policies later, register a function that builds it:
    `envs.register("mine/reach", lambda: envs.from_gymnasium(Reach, id="mine/reach"))`.

    Args:
      factory: a class, or a function that builds an environment, such as
        `lambda: Wrapper(gymnasium.make("CartPole-v1"))`. It is sent to the worker processes, which
        call it once per lane. To draw the environment it is called with `render_mode="rgb_array"`,
        if it takes such an argument.
      id: the name of the environment, such as "mine/reach".
      max_episode_steps: the steps after which an episode is truncated. Unless given it is the limit
        that the environment was registered with, if `factory` calls `gymnasium.make`, or else 1000.
      reward_threshold: the mean return at which the task counts as solved; the registered one
        unless given.

    Raises:
      UserError: the factory does not build a Gymnasium environment, or a package is missing.
      Exception: any other error that the factory raises.
    """
    if not callable(factory):
        raise UserError(f"factory={factory!r}: must be a class, or a function without arguments")
    register_installed()
    own = Registration("own/Environment-v0", entry_point=factory)
    first = make_first(without_log(factory), id, own)
    if not isinstance(first, gymnasium.Env):
        raise UserError(
            f"env={id!r}: its factory returned a {type(first).__name__}: must be a gymnasium.Env"
        )
    asked = first.spec if isinstance(first.spec, Registration) else own
    known = gymnasium.registry.get(asked.id)
    limit = _limit(id, max_episode_steps, asked)
    own.entry_point, own.max_episode_steps = _entry_point(factory, known), limit
    single = without_log(partial(gymnasium.make, own, disable_env_checker=True))
    if reward_threshold is None and known is not None:
        reward_threshold = known.reward_threshold
    return _adapted(first, single, id, limit, finite_float(reward_threshold), {})


def _limit(id: str, max_episode_steps: int | None, registered: Registration) -> int:
    """Return the step limit: the given one, or the registered one, or a default with a warning."""
    limit = max_episode_steps or whole_number(registered.max_episode_steps)
    if limit is not None:
        return limit
    _log.warning(
        "%s: registered without a limit, so its episodes are cut after %d steps; "
        "max_episode_steps (--max-episode-steps) sets another one",
        *(id, _DEFAULT_LIMIT),
    )
    return _DEFAULT_LIMIT


def _entry_point(
    factory: Callable[..., gymnasium.Env],
    registered: Registration | None,
) -> Callable[..., gymnasium.Env]:
    """Wrap a factory as an entry point for `gymnasium.make`, here and in workers.

    Args:
      factory: builds an environment; it may take a `render_mode`.
      registered: the registration of the environment that `factory` asks `gymnasium.make` for. The
        entry point registers it, as a worker may not have imported the module that does.
    """
    takes_mode = takes(factory, "render_mode")

    # A nested function is pickled by value, so workers need not import this module.
    def make(render_mode: str | None = None) -> gymnasium.Env:
        if registered is not None:
            gymnasium.registry.setdefault(registered.id, registered)
        return factory(render_mode=render_mode) if takes_mode and render_mode else factory()

    return make


def _adapted(
    first: gymnasium.Env,
    single: Callable[..., gymnasium.Env],
    id: str,
    limit: int,
    reward_threshold: float | None,
    kwargs: dict[str, Any],
) -> "FunctionalEnv | GymnasiumEnv":
    """Adapt the environments that `single` builds to `envs.Env` or `envs.HostEnv`.

    `first` is one of these environments, from which the spaces are read. It is closed here.
    """
    spec = EnvSpec(
        id=id,
        observation_space=first.observation_space,
        action_space=first.action_space,
        max_episode_steps=limit,
        reward_threshold=reward_threshold,
        kwargs=kwargs,
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
    # Where the system supports it, count only the cores that this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class GymnasiumEnv:
    """A Gymnasium environment, stepped on the host by worker processes.

    Gymnasium's own vector environments are not used: they reset lanes on their own, and derive the
    seeds of all lanes from one seed, but here an episode's seed must not depend on its lane.
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
        # Types are checked because the values may come from a file.
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

    def open_lanes(self, count: int, busy: int | None = None) -> WorkerPool:
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
        """Build one environment in this process, with Gymnasium's own interface.

        Its observations are elements of `spec.observation_space`.

        Args:
          **kwargs: further arguments for `gymnasium.make`.
        """
        env, raw = self._single(**kwargs), self.spec.raw_observation_space
        if raw is None:
            return env
        return TransformObservation(env, Interface(raw).flat, self.spec.observation_space)

    def film(
        self, act: Callable[[np.ndarray], Any], seed: int, every: int = 1, most: int | None = None
    ) -> tuple[float, list[np.ndarray]]:
        from envs.pictures.rendering import host_frame, mujoco_frames, no_picture

        try:
            env = self.single(render_mode="rgb_array")
        except Exception as error:
            raise no_picture(self.spec.id, error) from error
        try:
            ours = _drawn_by_us(env, self.spec.kwargs)
            total, frames, poses = 0.0, [], []
            for step, reward in enumerate(_episode(env, act, seed)):
                total += reward
                if step % every or (most is not None and step >= every * most):
                    continue
                if ours:
                    poses.append({"qpos": env.unwrapped.data.qpos.copy()})  # type: ignore[attr-defined]
                else:
                    frames.append(host_frame(env))
            if ours:
                frames = mujoco_frames(env.unwrapped.model, poses)  # type: ignore[attr-defined]
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
            rate = self.spec.frames_per_second
            return np.array(rewards[1:]), scene_of(model, qpos, rate)
        finally:
            env.close()


def _drawn_by_us(env: gymnasium.Env, kwargs: dict[str, Any]) -> bool:
    """Whether es-rl draws an environment itself.

    These are Gymnasium's own MuJoCo tasks, whose bodies are dark and leave the picture. With
    arguments for their pictures, they draw themselves.
    """
    own = type(env.unwrapped).__module__.startswith("gymnasium.envs.mujoco.")
    return own and has_mujoco_model(env) and not _OF_PICTURES.intersection(kwargs)


def _episode(env: gymnasium.Env, act: Callable[[np.ndarray], Any], seed: int) -> Iterator[float]:
    """Play one episode. Yields 0 after the reset, and then the reward of each step."""
    obs, _ = env.reset(seed=seed)
    yield 0.0
    done = False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(_native(env, act(obs)))
        yield float(reward)
        done = terminated or truncated


def _native(env: gymnasium.Env, action: Any) -> Any:
    """Convert an action for its space: to an int for Discrete, else to an array of its dtype."""
    if isinstance(env.action_space, spaces.Discrete):
        return int(action)
    return np.asarray(action, env.action_space.dtype).reshape(env.action_space.shape)
