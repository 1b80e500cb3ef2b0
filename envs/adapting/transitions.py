"""What the adapters of suites on the accelerator share: states, traces, the import of a suite."""

import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from envs.base import State, time_limited
from envs.errors import UserError, one_line
from envs.installing import pip_install

P = ParamSpec("P")
T = TypeVar("T")


class traced_once(Generic[P, T]):
    """Decorates `reset` and `step` of an environment: all programs share one trace of the method.

    To run the Python code of a simulator takes up to seconds, and otherwise happens anew in every
    program that plays episodes. JAX keeps the trace of a jitted function; with `inline` the
    programs are the same as without the jit.
    """

    def __init__(self, method: Callable[Concatenate[Any, P], T]):
        self._method = method
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._kept = f"_traced_{name}"

    def __get__(self, env: Any, owner: type | None = None) -> Callable[P, T]:
        if env is None:  # the method is looked up on the class
            return self  # type: ignore[return-value]
        traced, jitted = vars(env).get(self._kept, (None, None))
        if traced is not env:  # not yet, or `env` is a copy
            jitted = jax.jit(partial(self._method, env), inline=True)
            vars(env)[self._kept] = env, jitted
        return jitted


def start_state(inner: Any, obs: jax.Array, info: dict[str, jax.Array] | None = None) -> State:
    """The state of an environment after a reset."""
    no = jnp.zeros((), bool)
    return State(inner, obs, jnp.float32(0), no, no, jnp.int32(0), info or {})


def next_state(
    before: State,
    inner: Any,
    obs: jax.Array,
    reward: Any,
    terminated: Any,
    limit: int,
    info: dict[str, jax.Array] | None = None,
) -> State:
    """The state of an environment after a step.

    Args:
      before: the state before the step.
      inner: the suite's own state after the step.
      obs: the observation after the step.
      reward: the reward, of one number.
      terminated: whether the task itself has ended, of one truth value.
      limit: the number of steps after which an episode is truncated.
      info: scalars about the step.
    """
    steps = before.steps + 1
    over = jnp.reshape(jnp.asarray(terminated, bool), ())
    over, truncated = time_limited(steps, over, limit)
    reward = jnp.reshape(jnp.asarray(reward, jnp.float32), ())
    return State(inner, obs, reward, over, truncated, steps, info or {})


def cast_like(inner: Any, like: Any) -> Any:
    """A state of a suite whose leaves have the shapes and dtypes of `like`.

    Start states may hold Python scalars and other dtypes than the states after a step, but a
    compiled loop needs states of one kind.
    """
    return jax.tree.map(
        lambda x, to: jnp.broadcast_to(jnp.asarray(x).astype(to.dtype), to.shape), inner, like
    )


def import_suite(id: str, module: str, extra: str) -> ModuleType:
    """Import the package of a suite.

    Args:
      id: the name of the environment, for the message.
      module: the module to import.
      extra: the extra of es-rl that installs it.

    Raises:
      UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{id}: {one_line(error)} ({pip_install(extra)})") from error


def ignore_warnings() -> None:
    """Hide JAX's warnings about types that suites mix; the results are right.

    The filters stay: `warnings.catch_warnings` does not work where programs are traced in several
    threads.
    """
    warnings.filterwarnings("ignore", "scatter inputs have incompatible types", FutureWarning)
    warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
