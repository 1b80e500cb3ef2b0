"""Names of environments: `make`, `register` and `list_ids`."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

import gymnasium

from envs.base import Env, EnvSpec, HostEnv
from envs.errors import UserError
from envs.precision import in_32_bits
from envs.suites import brax_suite, gymnasium_suite, probes
from envs.suites.available import obstacle
from envs.values import is_json, plain

Maker: TypeAlias = Callable[..., Env | HostEnv]

_SUITES: dict[str, tuple[Callable[[], Iterable[str]], Callable[..., Env | HostEnv]]] = {
    "brax": (brax_suite.names, brax_suite.make),
    "gymnasium": (gymnasium_suite.names, gymnasium_suite.make),
    "probe": (probes.names, probes.make),
}
_REGISTERED: dict[str, Maker] = {}
_NOT_SAVED = ("workers", "step_timeout", "start_timeout")
"""Arguments that say where an environment runs, not what it is."""
_MOST_STEPS = 10**9
"""Of an episode, as they are counted in 32 bits."""


def register(id: str, maker: Maker) -> None:
    """Let `make(id, **kwargs)` call `maker(**kwargs)`: for environments of your own.

    The environment keeps this id, and these arguments, wherever it came from: a policy that is
    saved on it is replayed on what `make` builds of them.

    Raises:
      UserError: the id is taken, or no name that can be saved, or the maker cannot be called.
    """
    if not id.isprintable() or ":" in id or not 0 < len(id) <= 200:
        raise UserError(f"id={id!r}: must be a name such as 'mine/reacher', without a ':'")
    if not callable(maker):
        raise UserError(
            f"maker={maker!r}: must be a function that builds an environment, or its class"
        )
    if id in _REGISTERED or id in list_ids():
        raise UserError(f"environment {id!r} is registered already: choose another id")
    _REGISTERED[id] = maker


def list_ids(suite: str | None = None) -> list[str]:
    """All ids, or those of one suite: "brax", "gymnasium", "probe", or what stands before the
    first slash of an id that was registered.

    Raises:
      UserError: the suite is unknown.
    """
    known = dict.fromkeys((*_SUITES, *map(_suite_of, _REGISTERED)))
    if suite is not None and suite not in known:
        raise UserError(f"suite={suite!r}: must be one of {', '.join(known)}")
    ids = [f"{s}/{name}" for s, (names, _) in _SUITES.items() for name in names()]
    return [id for id in (*ids, *_REGISTERED) if suite in (None, _suite_of(id))]


def _suite_of(id: str) -> str:
    return id.partition("/")[0]


def split_id(id: str) -> tuple[str | None, str]:
    """The module that registers an environment, where its id names one, and the id without it.

    "gymnasium/my_module:MyEnv-v0" -> ("my_module", "gymnasium/MyEnv-v0"). What a file says must not
    be imported because of that: ask this before `make`.
    """
    suite, _, name = id.partition("/")
    if suite != "gymnasium" or ":" not in name or id in _REGISTERED:
        return None, id
    module, _, name = name.partition(":")
    return module, f"gymnasium/{name}"


@in_32_bits
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
    kwargs = {name: plain(value) for name, value in kwargs.items()}
    for key, value in kwargs.items():
        if not is_json(value):
            raise UserError(
                f"{key}={value!r}: must be a JSON value, as it is saved with the policy"
            )
    limit = kwargs.get("max_episode_steps")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= _MOST_STEPS):
        raise UserError(f"max_episode_steps={limit!r}: must be an integer from 1 to {_MOST_STEPS}")
    if id in _REGISTERED:
        return _as_registered(id, _REGISTERED[id](**kwargs), kwargs)
    module, id = split_id(id)
    if module is not None:
        gymnasium_suite.import_module(module)
    suite, _, name = id.partition("/")
    if suite not in _SUITES or name not in _SUITES[suite][0]():
        own = suite in ("gymnasium", "brax")
        hint = "; if a module of yours registers it, import that" if own else ""
        reason = obstacle(id)
        raise UserError(f"env={id!r}: {reason or f'unknown environment{_close(id)}{hint}'}")
    maker = _SUITES[suite][1]
    try:
        inspect.signature(maker).bind(name, **kwargs)
    except TypeError as error:
        known = ", ".join(list(inspect.signature(maker).parameters)[1:])
        raise UserError(f"env={id!r}: {error}: must be of {known}") from None
    return maker(name, **kwargs)


def _as_registered(id: str, env: Any, kwargs: dict[str, Any]) -> Env | HostEnv:
    """The environment that a maker returned, under the id and the arguments that it is known by."""
    pure = all(callable(getattr(env, name, None)) for name in ("reset", "step"))
    spec = getattr(env, "spec", None)
    if not isinstance(spec, EnvSpec) or not (pure or isinstance(env, HostEnv)):
        hint = ""
        if isinstance(env, gymnasium.Env):
            hint = "; register one of Gymnasium's with gymnasium.register: its id is gymnasium/ID"
        raise UserError(
            f"env={id!r}: its maker returned a {type(env).__name__}: must be an environment, as "
            f"envs.make and envs.from_func_env build them (envs.Env, envs.HostEnv){hint}"
        )
    saved = {name: value for name, value in kwargs.items() if name not in _NOT_SAVED}
    # A copy, as the maker may return the same one every time; not `copy.copy`, which never ends for
    # a wrapper whose `__getattr__` asks what it wraps.
    renamed = object.__new__(type(env))
    try:
        vars(renamed).update(vars(env))
        object.__setattr__(renamed, "spec", replace(spec, id=id, kwargs=saved))
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"env={id!r}: the spec of its {type(env).__name__} must be an attribute"
        ) from error
    return renamed


def _close(id: str) -> str:
    ids = list_ids()
    close = difflib.get_close_matches(id, ids, n=3, cutoff=0.6)
    if not close:  # a bare or misspelt name: look at the part behind the suite
        tails = {i.rsplit("/", 1)[-1].lower(): i for i in reversed(ids)}
        last = id.rsplit("/", 1)[-1].lower()
        close = [tails[t] for t in difflib.get_close_matches(last, tails, n=3, cutoff=0.6)]
    return f"; did you mean {', '.join(close)}?" if close else "; `es-rl envs` lists them all"
