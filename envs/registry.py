"""The registry of environment names: `make`, `register` and `list_ids`."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import gymnasium
import jax

from envs import probes
from envs.adapting.making import takes
from envs.available import obstacle
from envs.base import PLACES, Env, EnvSpec, HostEnv
from envs.errors import UserError
from envs.installing import OWN_NAME
from envs.precision import in_32_bits
from envs.suites import (
    brax_suite,
    craftax_suite,
    gymnasium_suite,
    gymnax_suite,
    jumanji_suite,
    kinetix_suite,
    navix_suite,
    pgx_suite,
    playground_suite,
)
from envs.values import is_json, plain

Maker: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class _Suite:
    make: Maker
    list_ids: Callable[[], Iterable[str]]
    names_modules: bool


_SUITES: dict[str, _Suite] = {}
_REGISTERED: dict[str, Maker] = {}
_MOST_STEPS = 10**9
"""The largest step limit of an episode: steps are counted with 32-bit integers."""


def register_suite(
    suite: str,
    *,
    make: Maker,
    list_ids: Callable[[], Iterable[str]],
    names_modules: bool = False,
) -> None:
    """Let `make("suite/name", **kwargs)` call a suite's `make(name, **kwargs)`.

    Args:
      suite: the part of the ids before the first slash.
      make: builds the environment of a name. The environment's `spec` may have another id: it is
        replaced by "suite/name".
      list_ids: returns the names that `make` takes, without the suite. It is called for every
        listing, so it should import nothing that takes long.
      names_modules: whether "suite/my_module:name" means an environment that a module registers:
        `make` then imports the module first and builds "suite/name".

    Raises:
      UserError: the suite is already registered, its name cannot be part of an id, or `make` or
        `list_ids` is not a function.
    """
    if not suite.isprintable() or not suite or any(c in suite for c in "/: "):
        raise UserError(f"suite={suite!r}: must be a name without '/', ':' and spaces")
    if suite in _SUITES or suite in map(_suite_of, _REGISTERED):
        raise UserError(f"suite={suite!r}: is registered already: must be another name")
    for name, value in (("make", make), ("list_ids", list_ids)):
        if not callable(value):
            raise UserError(f"{name}={value!r}: must be a function")
    _SUITES[suite] = _Suite(make, list_ids, names_modules)


def register(id: str, maker: Maker) -> None:
    """Register an environment of your own, so that `make(id, **kwargs)` calls `maker(**kwargs)`.

    The maker returns an environment as `make` does, or a `gymnasium.Env`, which `from_gymnasium`
    then adapts. The environment's spec gets this id and these arguments. They are saved with a
    policy, and a replay passes them to `make` again.

    Raises:
      UserError: the id is taken or not a valid name, or the maker is not a function or class.
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
    """List all ids, or the ids of one suite.

    A suite is "brax", "gymnasium", "probe", one that was added with `register_suite`, or the part
    before the first slash of an id that was added with `register`.

    Raises:
      UserError: the suite is unknown.
    """
    known = dict.fromkeys((*_SUITES, *map(_suite_of, _REGISTERED)))
    if suite is not None and suite not in known:
        raise UserError(f"suite={suite!r}: must be one of {', '.join(known)}")
    ids = [f"{s}/{name}" for s, found in _SUITES.items() for name in found.list_ids()]
    return [id for id in (*ids, *_REGISTERED) if suite in (None, _suite_of(id))]


def _suite_of(id: str) -> str:
    return id.partition("/")[0]


def split_id(id: str) -> tuple[str | None, str]:
    """Split an id into the module that registers the environment, if it names one, and the rest.

    "gymnasium/my_module:MyEnv-v0" -> ("my_module", "gymnasium/MyEnv-v0"). `make` imports the named
    module, so check ids from untrusted files with this function first.
    """
    suite, _, name = id.partition("/")
    if suite not in _SUITES or not _SUITES[suite].names_modules or ":" not in name:
        return None, id
    module, _, name = name.partition(":")
    return module, f"{suite}/{name}"


@in_32_bits
def make(id: str, /, **kwargs: Any) -> Env | HostEnv:
    """Build an environment by name.

    Args:
      id: "suite/name", such as "brax/ant", "gymnasium/HalfCheetah-v5" (steps on the host),
        "gymnasium/phys2d/CartPole-v1" (a functional JAX environment of Gymnasium), or
        "gymnasium/my_module:MyEnv-v0" (registered by the named module, which is imported).
      **kwargs: `max_episode_steps` for any environment; `info_keys`, a list of names: the mean over
        episodes of these scalars in the info of the last step (in Brax's metrics) is logged;
        `backend` for Brax; `workers` (number of processes), `step_timeout` and `start_timeout`
        (seconds) for environments on the host. All others are passed to the environment.

    Raises:
      UserError: the id is unknown (the message lists close matches), an argument is unknown, a
        space cannot be used by policies, or the environment cannot run with the installed versions.
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
    _check_info_keys(kwargs.get("info_keys", []))
    where = {name: kwargs.pop(name) for name in PLACES if kwargs.get(name) is not None}
    env = _made(id, {name: value for name, value in kwargs.items() if name not in PLACES})
    if not where:
        return env
    if isinstance(env, HostEnv):
        return env.placed(**where)
    name, value = next(iter(where.items()))
    raise UserError(f"{name}={value}: {env.spec.id} does not step on the host: must not be given")


def _made(id: str, kwargs: dict[str, Any]) -> Env | HostEnv:
    if id in _REGISTERED:
        return _built(id, _REGISTERED[id], (), kwargs)
    module, id = split_id(id)
    if module is not None:
        gymnasium_suite.import_module(module)
    suite, _, name = id.partition("/")
    if suite not in _SUITES or name not in _SUITES[suite].list_ids():
        unknown = f"unknown environment{_close(id)}; {OWN_NAME}"
        raise UserError(f"env={id!r}: {obstacle(id) or unknown}")
    return _built(id, _SUITES[suite].make, (name,), kwargs)


def _built(id: str, maker: Maker, name: tuple[str, ...], kwargs: dict[str, Any]) -> Env | HostEnv:
    """Call a maker, and give the environment its registered id and arguments.

    Args:
      id: the name of the environment.
      maker: the function that is called with `name` and `kwargs`.
      name: the environment's name in its suite as a 1-tuple, if the maker is that of a suite;
        otherwise empty.
      kwargs: the arguments of `make`, without those in `PLACES`.
    """
    own, limit = {key: value for key, value in kwargs.items() if key != "info_keys"}, None
    if not takes(maker, "max_episode_steps"):
        limit = own.pop("max_episode_steps", None)
    _check_arguments(id, maker, name, own)
    env = maker(*name, **own)
    if isinstance(env, gymnasium.Env):
        env.close()
        factory = partial(maker, *name, **own)
        env = gymnasium_suite.from_gymnasium(factory, id=id, max_episode_steps=limit)
    elif limit is not None:
        raise UserError(
            f"max_episode_steps={limit}: must be left out: the maker of {id} takes none"
        )
    ours = _as_ours(id, env, kwargs)
    if ours.spec.info_keys and not isinstance(ours, HostEnv):
        _check_reported(ours)
    return ours


def _check_info_keys(keys: Any) -> None:
    """Refuse what are not names of scalars."""
    names = isinstance(keys, list) and all(isinstance(k, str) and k.isprintable() for k in keys)
    if not names or "success" in keys or len(set(keys)) < len(keys):
        raise UserError(
            f"info_keys={keys!r}: must be a list of different names, without success, which is "
            "logged anyway"
        )


def _check_reported(env: Env) -> None:
    """Refuse names of scalars that an environment on the accelerator does not report."""
    info = jax.eval_shape(env.reset, jax.eval_shape(jax.random.key, 0)).info
    reported = [name for name, x in info.items() if x.shape == () and name != "success"]
    for key in env.spec.info_keys:
        if key not in reported:
            raise UserError(
                f"info_keys={list(env.spec.info_keys)}: {env.spec.id} does not report {key!r}: "
                f"must be of {', '.join(reported) or 'none, as it reports nothing'}"
            )


def _check_arguments(id: str, maker: Maker, name: tuple[str, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that a maker does not take, before it is called."""
    try:
        signature = inspect.signature(maker)
    except ValueError:  # Python cannot find the signature
        return
    try:
        signature.bind(*name, **kwargs)
    except TypeError as error:
        known = (
            ", ".join(list(signature.parameters)[len(name) :]) or "none, as it takes no arguments"
        )
        raise UserError(f"env={id!r}: {error}: must be of {known}") from None


def _as_ours(id: str, env: Any, kwargs: dict[str, Any]) -> Env | HostEnv:
    """Return an environment whose spec has this id and these arguments."""
    pure = all(callable(getattr(env, name, None)) for name in ("reset", "step"))
    spec = getattr(env, "spec", None)
    if not isinstance(spec, EnvSpec) or not (pure or isinstance(env, HostEnv)):
        raise UserError(
            f"env={id!r}: its maker returned a {type(env).__name__}: must be an environment, as "
            "envs.make and envs.from_func_env build them (envs.Env, envs.HostEnv), or a "
            "gymnasium.Env"
        )
    if (spec.id, spec.kwargs) == (id, kwargs):
        return env
    # Change a copy, as the maker may return the same object every time. `copy.copy` would recurse
    # without end for a wrapper whose `__getattr__` reads the wrapped object.
    renamed = object.__new__(type(env))
    try:
        vars(renamed).update(vars(env))
        object.__setattr__(renamed, "spec", replace(spec, id=id, kwargs=kwargs))
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"env={id!r}: the spec of its {type(env).__name__} must be an attribute"
        ) from error
    return renamed


def _close(id: str) -> str:
    ids = list_ids()
    close = difflib.get_close_matches(id, ids, n=3, cutoff=0.6)
    if not close:  # the suite may be missing: compare the part after the last slash
        tails = {i.rsplit("/", 1)[-1].lower(): i for i in reversed(ids)}
        last = id.rsplit("/", 1)[-1].lower()
        close = [tails[t] for t in difflib.get_close_matches(last, tails, n=3, cutoff=0.6)]
    return f"; did you mean {', '.join(close)}?" if close else "; `es-rl envs` lists them all"


register_suite("brax", make=brax_suite.make, list_ids=brax_suite.names)
register_suite(
    "gymnasium", make=gymnasium_suite.make, list_ids=gymnasium_suite.names, names_modules=True
)
register_suite("gymnax", make=gymnax_suite.make, list_ids=gymnax_suite.names)
register_suite("playground", make=playground_suite.make, list_ids=playground_suite.names)
register_suite("jumanji", make=jumanji_suite.make, list_ids=jumanji_suite.names)
register_suite("navix", make=navix_suite.make, list_ids=navix_suite.names)
register_suite("craftax", make=craftax_suite.make, list_ids=craftax_suite.names)
register_suite("kinetix", make=kinetix_suite.make, list_ids=kinetix_suite.names)
register_suite("pgx", make=pgx_suite.make, list_ids=pgx_suite.names)
register_suite("probe", make=probes.make, list_ids=probes.names)
