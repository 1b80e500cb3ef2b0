"""32 bits inside, whatever the user's script has set."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def in_32_bits(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function as if `jax_enable_x64` (or JAX_ENABLE_X64) were off, in the thread at hand.

    Everything that traces, compiles or runs a program of ours is called through this: parameters,
    observations and returns are float32 then, as they are saved. The user's setting holds outside.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return wrapped
