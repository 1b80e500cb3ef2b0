"""What the adapters of suites on the accelerator share: states, and the import of a suite."""

import warnings
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from envs.base import State, time_limited
from envs.errors import UserError, one_line
from envs.installing import pip_install


traced_once = partial(jax.jit, static_argnums=0, inline=True)
"""Decorates `reset` and `step` of an environment, so that all programs share one trace of them.

Running the Python code of a simulator costs seconds in every program that is traced with it. JAX
keeps the traces of jitted functions, and `inline` leaves nothing of the jit in the program itself.
"""


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
