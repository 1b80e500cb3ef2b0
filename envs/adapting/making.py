"""Building the first environment of a kind, with a clear error message if that fails."""

import inspect
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium

from envs.adapting.mujoco_output import keep_no_log
from envs.errors import UserError, one_line
from envs.installing import pip_install

_PATIENCE_SECONDS = 10.0
"""The seconds between two warnings while an environment is being made."""

_log = logging.getLogger("es_rl")


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes a keyword argument of this name; True if that is not known."""
    try:
        inspect.signature(function).bind_partial(**{name: None})
    except TypeError:
        return False
    except ValueError:  # Python cannot find the signature
        return True
    return True


def without_log(make: Callable[..., Any], entry_point: Any = None) -> Callable[..., Any]:
    """A function that builds an environment as `make` does, while MuJoCo keeps no log file.

    It can be sent to worker processes.

    Args:
      make: builds the environment, with any arguments.
      entry_point: that of a registered environment. MuJoCo is imported first for Gymnasium's own
        environments of it, whose models it warns of.
    """
    off, first = keep_no_log, str(entry_point).startswith("gymnasium.envs.mujoco")

    def made(**kwargs: Any) -> Any:
        if first:
            import contextlib

            with contextlib.suppress(ImportError):  # `make` says so
                import mujoco  # noqa: F401
        off()
        env = make(**kwargs)
        off()
        return env

    return made


def make_first(
    single: Callable[[], gymnasium.Env],
    id: str,
    registered: gymnasium.envs.registration.EnvSpec,
) -> gymnasium.Env:
    """Build one environment.

    Raises:
      UserError: it failed for a reason that the user can fix, which the message says in one line.
      Exception: any other error of the constructor.
    """
    try:
        with _patience(id):
            return single()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise UserError(f"{id}: {one_line(error)}{_hint(registered)}") from error
    except gymnasium.error.Error as error:
        raise UserError(f"env={id!r}: {one_line(error)}") from error
    except Exception as error:  # the constructor may raise anything
        if not _is_for_its_arguments(error, registered):
            raise
        kind = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"env={id!r}: {kind}{one_line(error)}") from error


def _is_for_its_arguments(
    error: Exception, registered: gymnasium.envs.registration.EnvSpec
) -> bool:
    """Whether other arguments would probably avoid this error.

    Gymnasium's own environments are assumed to work, so any error of theirs comes from the
    arguments. A user's environment may have a bug; only a call that fails because an argument is
    unknown or missing counts.
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
    """Log a warning from time to time while an environment is being made."""
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
    """Return the command that installs what one of Gymnasium's own environments needs, or "".

    All but Box2D's packages are installed with this project.
    """
    return f" ({pip_install('box2d')})" if ".box2d" in str(registered.entry_point) else ""
