"""Adapter of Brax environments ("brax/ant") to the interface in `envs.base`."""

import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.adapting import batched_solves
from envs.adapting.mujoco_output import import_mjx
from envs.adapting.transitions import next_state, start_state, traced_once
from envs.base import EnvSpec, State
from envs.errors import NoPicture, UserError
from envs.pictures.scene import Scene, no_scene, scene_of
from envs.precision import in_32_bits

_BACKENDS = ("generalized", "spring", "positional", "mjx")
# Listed here so that names can be checked without importing Brax, which takes seconds.
_NAMES = (
    "ant",
    "fast",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)


def names() -> tuple[str, ...]:
    """Return the environments that come with Brax, and those that users registered with it."""
    registry = getattr(sys.modules.get("brax.envs"), "_envs", {})
    return tuple(dict.fromkeys((*_NAMES, *registry)))


def make(
    name: str, backend: str | None = None, max_episode_steps: int = 1000, **kwargs: Any
) -> "BraxEnv":
    """Build a Brax environment.

    Args:
      name: the name that `brax.envs.get_environment` takes.
      backend: "generalized", "spring", "positional" or "mjx"; Brax's default for the environment
        unless given.
      max_episode_steps: the steps after which an episode is truncated; 1000 as in Brax.
      **kwargs: arguments for the environment's constructor.

    Raises:
      UserError: the environment does not have this backend or an argument, or it does not run with
        the installed versions.
    """
    if backend is not None and backend not in _BACKENDS:
        raise UserError(f"backend={backend!r}: must be one of {', '.join(_BACKENDS)}")
    batched_solves.install()
    with warnings.catch_warnings():
        # Brax recommends its successor at every import; docs/how-to/suites.md does once.
        warnings.filterwarnings("ignore", message="Brax System")
        import_mjx()
        import brax.envs

        options = kwargs if backend is None else {"backend": backend, **kwargs}
        try:
            with _own_devices():
                inner = brax.envs.get_environment(name, **options)
        except ValueError as error:
            raise UserError(f"backend={backend!r}: brax/{name} says: {error}") from error
        except TypeError as error:
            raise UserError(f"env='brax/{name}': {error}") from error
    given = dict(options)
    if max_episode_steps != 1000:
        given["max_episode_steps"] = max_episode_steps
    return BraxEnv(f"brax/{name}", inner, max_episode_steps, kwargs=given)


@in_32_bits
def from_brax(
    env: Any, *, id: str, max_episode_steps: int = 1000, reward_threshold: float | None = None
) -> "BraxEnv":
    """Adapt a `brax.envs.Env` of your own, without Brax's training wrappers.

    To replay its policies later, register a function that builds it:
    `envs.register("mine/x", lambda: envs.from_brax(MyEnv(), id="mine/x"))`. Alternatively, register
    its class with `brax.envs.register_environment`; its id is then brax/NAME.

    Raises:
      UserError: the environment does not run, or its observations are not one vector.
    """
    return BraxEnv(id, env, max_episode_steps, reward_threshold)


class _NumpyWithOldClip:
    """`jax.numpy` with a `clip` that also accepts the old arguments `a_min` and `a_max`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def clip(x: jax.Array, a_min: Any = None, a_max: Any = None) -> jax.Array:
        return jnp.clip(x, a_min, a_max)


def _mend_fluid() -> None:
    """Make Brax's swimmer run with JAX 0.10, which no longer accepts `jnp.clip(x, a_min=...)`.

    Brax calls it that way up to 0.14.2, only in its module for the drag of fluids. This function
    can be removed once a later version of Brax does not.
    """
    import brax.fluid

    if "a_min" not in inspect.signature(jnp.clip).parameters:
        brax.fluid.jp = _NumpyWithOldClip()


@contextmanager
def _own_devices() -> Iterator[None]:
    """Make `jax.devices` return only the devices of this process.

    MJX, which loads the models, puts them on `jax.devices()[0]`. With several processes this
    device belongs to process 0.
    """
    everywhere = jax.devices
    try:
        jax.devices = jax.local_devices
        yield
    finally:
        jax.devices = everywhere


def _observation(inner: Any) -> Any:
    """The observation of the policy, where there are others for a critic beside it."""
    return inner.obs["state"] if isinstance(inner.obs, Mapping) else inner.obs


def _pose(joints: Any) -> dict[str, np.ndarray]:
    """What MuJoCo has to know to draw a pipeline state."""
    pose = {"qpos": np.asarray(joints.q)}
    if hasattr(joints, "mocap_pos") and hasattr(joints, "mocap_quat"):
        pose["mocap_pos"] = np.asarray(joints.mocap_pos)
        pose["mocap_quat"] = np.asarray(joints.mocap_quat)
    return pose


class BraxEnv:
    """A Brax environment, with typed keys, and with truncation at the time limit."""

    def __init__(
        self,
        id: str,
        inner: Any,
        max_episode_steps: int,
        reward_threshold: float | None = None,
        kwargs: dict[str, Any] | None = None,
    ):
        self._inner = inner
        kwargs = kwargs or {}
        _mend_fluid()
        try:
            state = jax.eval_shape(lambda: inner.reset(jax.random.PRNGKey(0)))
            action = jax.ShapeDtypeStruct((inner.action_size,), jnp.float32)
            jax.eval_shape(inner.step, state, action)
            # Brax's test environment `fast` has no physics, and so no time step.
            dt = float(inner.dt) if hasattr(inner, "dt") else 1 / 30
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            options = "".join(f", {k}={v!r}" for k, v in kwargs.items())
            raise UserError(
                f"{id}{options} cannot run with jax {jax.__version__}: {reason}"
            ) from error
        seen = _observation(state)
        if not hasattr(seen, "shape") or seen.ndim != 1:
            raise UserError(f"{id}: its observations are {seen}: must be one vector")
        self.spec = EnvSpec(
            id=id,
            observation_space=spaces.Box(-np.inf, np.inf, seen.shape, np.float32),
            # Brax scales [-1, 1] to each actuator's control range.
            action_space=spaces.Box(-1.0, 1.0, (inner.action_size,), np.float32),
            max_episode_steps=max_episode_steps,
            reward_threshold=reward_threshold,
            kwargs=kwargs,
            frames_per_second=1 / dt,
        )

    @traced_once
    def reset(self, key: jax.Array) -> State:
        inner = self._inner.reset(jax.random.key_data(key))
        return start_state(inner, _observation(inner), self._info(inner))

    def _info(self, inner: Any) -> dict[str, jax.Array]:
        """Brax's metrics, where some of them are to be logged."""
        return dict(inner.metrics) if self.spec.info_keys else {}

    @traced_once
    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        del key  # Brax takes a key at reset only; later random draws use the key in its own state
        # Brax modifies the dictionaries of its input state: pass it a copy.
        inner = self._inner.step(jax.tree.map(lambda x: x, state.inner), action)
        # Some rewards are Python floats: convert every leaf to its previous type.
        inner = jax.tree.map(lambda x, was: jnp.asarray(x, was.dtype), inner, state.inner)
        obs, limit, info = _observation(inner), self.spec.max_episode_steps, self._info(inner)
        return next_state(state, inner, obs, inner.reward, inner.done > 0, limit, info)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        from envs.pictures.rendering import mujoco_frames

        if not hasattr(self._inner, "sys"):
            raise NoPicture(f"{self.spec.id} has no picture")
        drawn = [_pose(state.inner.pipeline_state) for state in states]
        return mujoco_frames(self._inner.sys.mj_model, drawn)

    def scene(self, states: Sequence[State]) -> Scene:
        if not hasattr(self._inner, "sys"):
            raise no_scene(self.spec.id)
        # Every backend has joint positions, and Brax's own renderer draws them too. In `spring` and
        # `positional`, joints can come apart by some centimetres, which the drawing does not show.
        qpos = [np.asarray(state.inner.pipeline_state.q) for state in states]
        return scene_of(self._inner.sys.mj_model, qpos, self.spec.frames_per_second)
