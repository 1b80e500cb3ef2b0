"""Flags of environments and their arguments, which several commands have."""

import ast
import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import envs
from agents.registry import list_agents
from envs.base import PLACES, Env, HostEnv
from envs.errors import UserError
from envs.values import is_json, plain
from experiments.startup import import_modules


@dataclass(frozen=True, kw_only=True)
class EnvFlags:
    """Flags with which an environment is made."""

    backend: str | None = None
    """The physics of Brax: generalized, spring, positional or mjx."""
    max_episode_steps: int | None = None
    """Episodes are cut after this many steps, also in evaluation; unless given, the environment's
    own limit applies."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, such as max_episode_steps=200 forward_reward_weight=2.0. Values
    are read as Python or JSON literals (is_slippery=False), or else as text."""
    train_env_kwargs: tuple[str, ...] = ()
    """Arguments that the environment has in training alone, such as healthy_reward=0, besides those
    of --env-kwargs. Evaluations, the target return and saved policies are of the environment
    without them; what training episodes return and report is logged as train_env_return_mean and so
    on."""
    workers: int | None = None
    """Worker processes that step an environment on the host. Unless given, the number is chosen, up
    to one per core."""
    step_timeout: float | None = None
    """Seconds after which a step on the host is treated as hanging: 60 unless given."""
    start_timeout: float | None = None
    """Seconds that making an environment on the host may take: 120 unless given."""

    def check_env(self, env: str) -> None:
        """Refuse flags that are out of range, or that the environment does not have.

        Args:
          env: the id of the environment; "" if it is not known yet.

        Raises:
          UserError: a flag is refused; the message names it.
        """
        check_numbers(self, ("workers", "max_episode_steps"))
        if self.backend is not None and env and not env.startswith("brax/"):
            raise UserError(f"backend={self.backend}: only brax/... environments have one")

    def on_host(self) -> dict[str, Any]:
        """The given flags that say how an environment is stepped on the host, by name."""
        return given(self, PLACES)


def check_numbers(flags: Any, counts: tuple[str, ...]) -> None:
    """Refuse flags of an environment that are out of range.

    Args:
      flags: has the flags `step_timeout` and `start_timeout`.
      counts: the names of flags that are None or at least 1.

    Raises:
      UserError: a flag is out of range; the message names it.
    """
    for name in counts:
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: must be at least 1")
    for name in ("step_timeout", "start_timeout"):
        value = getattr(flags, name)
        if value is not None and not value > 0:
            raise UserError(f"{name}={value}: must be a number of seconds above 0")


def given(flags: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The flags among `names` that were given, by name."""
    return {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}


def import_agent(name: str, modules: tuple[str, ...]) -> None:
    """Import the user's modules now if one of them must register the agent.

    Otherwise modules are imported after JAX has started, as a module may ask for its devices.
    """
    if name not in list_agents():
        import_modules(modules)


def check_names(command: str, agent: str, settings: Any, flags: type) -> None:
    """Refuse a user's agent if one of its settings has the name of another flag of the command.

    Raises:
      UserError: a setting has such a name.
    """
    both = {each.name for each in fields(settings)} & {each.name for each in fields(flags)}
    if both:
        raise UserError(
            f"agent={agent}: its setting {min(both)} must have another name, as `es-rl {command}` "
            "has a flag of this name"
        )


def env_kwargs(
    pairs: Iterable[str], taken: Iterable[str] = (), flag: str = "env_kwargs"
) -> dict[str, Any]:
    """Parse `--env-kwargs`, or a flag like it: name=value pairs, whose values are Python or JSON
    literals, or else text.

    Args:
      pairs: the pairs as typed by the user.
      taken: names that other flags set already.
      flag: the name of the flag, for messages.

    Raises:
      UserError: a pair has no name, or a name comes twice.
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"{flag}={pair}: must be name=value")
        if name in kwargs or name in taken:
            raise UserError(f"{flag}={pair}: {name} is given twice")
        kwargs[name] = _value(value)
    return kwargs


def make_env(env_id: str, chosen: dict[str, Any], pairs: Iterable[str]) -> Env | HostEnv:
    """Make an environment with the arguments from flags.

    Args:
      env_id: the id of the environment.
      chosen: arguments that have flags of their own.
      pairs: the values of `--env-kwargs`.

    Raises:
      UserError: the environment or an argument is wrong; the message names the flag.
    """
    kwargs = env_kwargs(pairs, chosen)
    try:
        return envs.make(env_id, **chosen, **kwargs)
    except UserError as error:
        if str(error).partition("=")[0] in kwargs:
            raise UserError(f"env_kwargs={error}") from error
        raise


def make_envs(
    env_id: str, chosen: dict[str, Any], pairs: Iterable[str], train_pairs: Sequence[str]
) -> tuple[Env | HostEnv, Env | HostEnv | None]:
    """Make an environment, and that of training if it has arguments of its own.

    Args:
      env_id: the id of the environment.
      chosen: arguments of both that have flags of their own.
      pairs: the values of `--env-kwargs`.
      train_pairs: the values of `--train-env-kwargs`.

    Raises:
      UserError: the environment or an argument is wrong; the message names the flag.
    """
    env = make_env(env_id, chosen, pairs)
    own = env_kwargs(train_pairs, flag="train_env_kwargs")
    if not own:
        return env, None
    with blamed_on(given_for_training(train_pairs)):
        return env, envs.make(env_id, **{**chosen, **env_kwargs(pairs), **own})


def given_for_training(train_pairs: Sequence[str]) -> str:
    """The flag `--train-env-kwargs` with its values, for `blamed_on`."""
    return f"train_env_kwargs={' '.join(train_pairs)}"


@contextlib.contextmanager
def blamed_on(given: str, beginning: str = "") -> Iterator[None]:
    """Let errors about the environment of training say what gave it its arguments.

    Args:
      given: the start of their message: a flag with its value, or a file.
      beginning: errors whose message does not begin like this are left as they are.
    """
    try:
        yield
    except UserError as error:
        said = str(error)
        if not said.startswith(beginning):
            raise
        name, _, rest = said.partition("=")
        if name in ("env", "train_env", "env_kwargs"):  # no flag that was given has these names
            said = rest.partition(": ")[2]
        raise UserError(f"{given}: {said}") from error


def _value(text: str) -> Any:
    """The value of the text as a Python literal, or else as JSON (true, null), or else the text
    itself."""
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = plain(read(text))
            if is_json(value):
                return value
    return text
