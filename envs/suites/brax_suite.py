"""Brax environments ("brax/ant") on the contract of `envs.base`."""

import inspect
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import EnvSpec, State, time_limited
from envs.errors import NoPicture, UserError
from envs.pictures.scene import Scene, no_scene, scene_of
from envs.precision import in_32_bits
from envs.suites import batched_solves

_BACKENDS = ("generalized", "spring", "positional", "mjx")
# Listed here so that these can be checked without importing Brax, which takes seconds.
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
    """The environments that Brax registers, and those that were registered with it since."""
    registry = getattr(sys.modules.get("brax.envs"), "_envs", {})
    return tuple(dict.fromkeys((*_NAMES, *registry)))


def make(
    name: str, backend: str | None = None, max_episode_steps: int = 1000, **kwargs: Any
) -> "BraxEnv":
    """Build a Brax environment.

    Args:
      name: as in `brax.envs.get_environment`.
      backend: "generalized", "spring", "positional" or "mjx"; Brax's default for the environment
        unless given.
      max_episode_steps: truncation; 1000, as in Brax.
      **kwargs: passed to the environment's constructor.

    Raises:
      UserError: unknown backend, or one that this environment does not have.
      UserError: the environment does not run with the installed versions.
    """
    if backend is not None and backend not in _BACKENDS:
        raise UserError(f"backend={backend!r}: must be one of {', '.join(_BACKENDS)}")
    batched_solves.install()
    with warnings.catch_warnings():
        # Brax points to its successor at every import; the README says it once.
        warnings.filterwarnings("ignore", message="Brax System")
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

    So that its policies can be replayed, register what makes it:
    `envs.register("mine/x", lambda: envs.from_brax(MyEnv(), id="mine/x"))`; or register its class
    with `brax.envs.register_environment`, and it is brax/NAME.

    Raises:
      UserError: it does not run, or its observations are not one array.
    """
    return BraxEnv(id, env, max_episode_steps, reward_threshold)


class _NumpyWithOldClip:
    """`jax.numpy`, whose `clip` takes `a_min` too."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def clip(x: jax.Array, a_min: Any = None, a_max: Any = None) -> jax.Array:
        return jnp.clip(x, a_min, a_max)


def _mend_fluid() -> None:
    """Let Brax's swimmer run: what drags it calls `jnp.clip(x, a_min=...)`, which JAX 0.10 refuses.

    Brax up to 0.14.2 does so, in this one module. It can go when a later one does not.
    """
    import brax.fluid

    if "a_min" not in inspect.signature(jnp.clip).parameters:
        brax.fluid.jp = _NumpyWithOldClip()


@contextmanager
def _own_devices() -> Iterator[None]:
    """Where there are several processes, hide the devices of the others.

    MJX, which reads the models, puts them on `jax.devices()[0]`: that of process 0.
    """
    everywhere = jax.devices
    try:
        jax.devices = jax.local_devices
        yield
    finally:
        jax.devices = everywhere


class BraxEnv:
    """A Brax environment; typed keys are converted for it, the time limit is truncation."""

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
            # `fast`, Brax's test environment, has no physics to ask.
            dt = float(inner.dt) if hasattr(inner, "sys") else 1 / 30
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            options = "".join(f", {k}={v!r}" for k, v in kwargs.items())
            raise UserError(
                f"{id}{options} cannot run with jax {jax.__version__}: {reason}"
            ) from error
        if not hasattr(state.obs, "shape") or state.obs.ndim != 1:
            raise UserError(f"{id}: its observations are {state.obs}: must be one vector")
        self.spec = EnvSpec(
            id=id,
            observation_space=spaces.Box(-np.inf, np.inf, state.obs.shape, np.float32),
            # Brax scales [-1, 1] to each actuator's control range.
            action_space=spaces.Box(-1.0, 1.0, (inner.action_size,), np.float32),
            max_episode_steps=max_episode_steps,
            reward_threshold=reward_threshold,
            kwargs=kwargs,
            frames_per_second=1 / dt,
        )

    def reset(self, key: jax.Array) -> State:
        inner = self._inner.reset(jax.random.key_data(key))
        false = jnp.zeros((), bool)
        info = self._info(inner)
        return State(inner, inner.obs, jnp.float32(0), false, false, jnp.int32(0), info)

    def _info(self, inner: Any) -> dict[str, jax.Array]:
        """Brax's metrics, where some of them are to be logged."""
        return dict(inner.metrics) if self.spec.info_keys else {}

    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        del key  # Brax draws randomness at reset only; later draws use the key in its own state
        # Brax updates the dictionaries of the state that it is given: give it its own.
        inner = self._inner.step(jax.tree.map(lambda x: x, state.inner), action)
        # Some rewards are Python floats: give every leaf the type it had.
        inner = jax.tree.map(lambda x, was: jnp.asarray(x, was.dtype), inner, state.inner)
        steps = state.steps + 1
        terminated, truncated = time_limited(steps, inner.done > 0, self.spec.max_episode_steps)
        info = self._info(inner)
        return State(inner, inner.obs, inner.reward, terminated, truncated, steps, info)

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        from envs.pictures.rendering import brax_frames

        if not hasattr(self._inner, "sys"):
            raise NoPicture(f"{self.spec.id} has no picture")
        return brax_frames(self._inner, [state.inner.pipeline_state for state in states])

    def scene(self, states: Sequence[State]) -> Scene:
        if not hasattr(self._inner, "sys"):
            raise no_scene(self.spec.id)
        # Every backend keeps joint positions, and Brax's own pictures show them. Joints of `spring`
        # and `positional` give way by up to some centimetres, which is not seen.
        qpos = [np.asarray(state.inner.pipeline_state.q) for state in states]
        return scene_of(self._inner.sys.mj_model, qpos)
