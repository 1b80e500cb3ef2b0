"""Flags that `es-rl train` and `es-rl tune` have in common, and the settings of agents as flags."""

from dataclasses import dataclass, fields
from typing import Any

from agents.registry import list_agents
from envs.base import PLACES
from envs.errors import UserError
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
