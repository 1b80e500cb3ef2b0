"""Making the first environment of a kind, and saying why that cannot be done."""

import inspect
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium

from envs.errors import UserError, one_line

_PATIENCE_SECONDS = 10.0
"""How often somebody who waits for an environment to be made is told so."""
_EXTRAS = ("box2d", "classic-control", "mujoco")

_log = logging.getLogger("es_rl")


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes a keyword argument of this name, as far as can be told."""
    try:
        inspect.signature(function).bind_partial(**{name: None})
    except TypeError:
        return False
    except ValueError:  # nobody knows its signature
        return True
    return True


def make_first(
    single: Callable[[], gymnasium.Env],
    id: str,
    registered: gymnasium.envs.registration.EnvSpec,
) -> gymnasium.Env:
    """Build one; where that fails for what a person can mend, say so in one line."""
    try:
        with _patience(id):
            return single()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise UserError(f"{id}: {one_line(error)}{_hint(registered)}") from error
    except gymnasium.error.Error as error:
        raise UserError(f"env={id!r}: {one_line(error)}") from error
    except Exception as error:  # whatever its constructor raises
        if not _is_for_its_arguments(error, registered):
            raise
        kind = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"env={id!r}: {kind}{one_line(error)}") from error


def _is_for_its_arguments(
    error: Exception, registered: gymnasium.envs.registration.EnvSpec
) -> bool:
    """Whether other arguments are what is needed, as far as can be told.

    Gymnasium's own environments can be made. One of a user's may be at fault itself, unless it is
    the call that fails: for an argument that is unknown or missing.
    """
    if str(registered.entry_point).startswith("gymnasium."):
        return True
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    called = innermost in (gymnasium.envs.registration.__file__, __file__)
    return isinstance(error, TypeError) and (
        called or "got an unexpected keyword argument" in str(error)
    )


@contextmanager
def _patience(id: str) -> Iterator[None]:
    """Say so, now and then, while an environment is being made."""
    over = threading.Event()

    def remind() -> None:
        seconds = 0.0
        while not over.wait(_PATIENCE_SECONDS):
            seconds += _PATIENCE_SECONDS
            _log.warning("%s: an environment is being made for %.0f s", id, seconds)

    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _hint(registered: gymnasium.envs.registration.EnvSpec) -> str:
    """How to install what an environment of Gymnasium's own needs."""
    for extra in _EXTRAS:
        if f".{extra.replace('-', '_')}" in str(registered.entry_point):
            return f' (pip install "es-rl[{extra}]")'
    return ""
