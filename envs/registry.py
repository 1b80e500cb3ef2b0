"""Names of environments: `make`, `register` and `list_ids`."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from envs import brax_suite, gymnasium_suite, probes
from envs.base import Env, HostEnv
from envs.errors import UserError
from envs.rendering import go_headless

Maker: TypeAlias = Callable[..., Env | HostEnv]

_SUITES: dict[str, tuple[Callable[[], Iterable[str]], Callable[..., Env | HostEnv]]] = {
    "brax": (brax_suite.names, brax_suite.make),
    "gymnasium": (gymnasium_suite.names, gymnasium_suite.make),
    "probe": (probes.names, probes.make),
}
_REGISTERED: dict[str, Maker] = {}
_MOST_STEPS = 10**9
"""Of an episode, as they are counted in 32 bits."""


def register(id: str, maker: Maker) -> None:
    """Let `make(id, **kwargs)` call `maker(**kwargs)`: for environments of your own.

    Raises:
      UserError: the id is taken.
    """
    if id in _REGISTERED or id in list_ids():
        raise UserError(f"environment {id!r} is registered already: choose another id")
    _REGISTERED[id] = maker


def list_ids(suite: str | None = None) -> list[str]:
    """All ids, or those of one suite ("brax", "gymnasium", "probe").

    Raises:
      UserError: the suite is unknown.
    """
    if suite is not None and suite not in _SUITES:
        raise UserError(f"suite={suite!r}: must be one of {', '.join(_SUITES)}")
    ids = [
        f"{s}/{name}" for s, (names, _) in _SUITES.items() if suite in (None, s) for name in names()
    ]
    return ids + [id for id in _REGISTERED if suite is None]


def make(id: str, /, **kwargs: Any) -> Env | HostEnv:
    """Build an environment by name.

    Args:
      id: suite/name: "brax/ant", "gymnasium/HalfCheetah-v5" (steps on the host),
        "gymnasium/phys2d/CartPole-v1" (Gymnasium's functional JAX environments),
        "gymnasium/my_module:MyEnv-v0" (registered by a module, which is imported).
      **kwargs: `max_episode_steps` for any of them; `backend` for Brax; `workers` (processes),
        `step_timeout` and `start_timeout` (seconds) for those on the host; otherwise passed on to
        the environment.

    Raises:
      UserError: unknown id (with close matches) or argument, or a space that policies cannot use.
      UserError: the environment cannot run with the installed versions.
    """
    limit = kwargs.get("max_episode_steps")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= _MOST_STEPS):
        raise UserError(f"max_episode_steps={limit!r}: must be an integer from 1 to {_MOST_STEPS}")
    go_headless()
    if id in _REGISTERED:
        return _REGISTERED[id](**kwargs)
    suite, _, name = id.partition("/")
    if suite == "gymnasium" and ":" in name:
        module, _, name = name.partition(":")
        gymnasium_suite.import_module(module)
        id = f"gymnasium/{name}"
    if suite not in _SUITES or name not in _SUITES[suite][0]():
        hint = "" if suite != "gymnasium" else "; if a module of yours registers it, import that"
        raise UserError(f"env={id!r}: unknown environment{_close(id)}{hint}")
    maker = _SUITES[suite][1]
    try:
        inspect.signature(maker).bind(name, **kwargs)
    except TypeError as error:
        known = ", ".join(list(inspect.signature(maker).parameters)[1:])
        raise UserError(f"env={id!r}: {error}: must be of {known}") from None
    return maker(name, **kwargs)


def _close(id: str) -> str:
    ids = list_ids()
    close = difflib.get_close_matches(id, ids, n=3, cutoff=0.6)
    if not close:  # a bare or misspelt name: look at the part behind the suite
        tails = {i.rsplit("/", 1)[-1].lower(): i for i in reversed(ids)}
        last = id.rsplit("/", 1)[-1].lower()
        close = [tails[t] for t in difflib.get_close_matches(last, tails, n=3, cutoff=0.6)]
    return f"; did you mean {', '.join(close)}?" if close else "; `es-rl envs` lists them all"
