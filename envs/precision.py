"""32-bit numbers inside this project, whatever precision the user's script has set in JAX."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def in_32_bits(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function to run with `jax_enable_x64` (JAX_ENABLE_X64) off in the calling thread.

    It decorates everything that traces, compiles or runs one of this project's programs, so that
    parameters, observations and returns are float32, as they are saved. Outside these functions
    the user's setting applies.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return wrapped
