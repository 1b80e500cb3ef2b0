"""Search spaces: functions of an Optuna trial that draw settings of an agent.

A space of your own (`es-rl tune --space my_module:my_space`) is such a function:

    def my_space(trial, base):
        sigma = trial.suggest_float("sigma", 0.01, 1.0, log=True)
        return {"sigma": sigma, "learning_rate": sigma**2}

`base` holds the settings of the environment's preset, with those that flags have fixed. Settings
that the function does not return keep these values. A suggestion that has the name of a setting
that a flag has fixed gives the fixed value, and what a flag has fixed stays so whatever is
returned.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from agents.registry import configure
from envs.errors import UserError, one_line
from experiments.flags.settings_files import check_known
from experiments.startup import import_modules

if TYPE_CHECKING:
    import optuna

Function: TypeAlias = "Callable[[optuna.Trial, Mapping[str, Any]], dict[str, Any]]"
_PROBES = 32
"""The number of random draws that find out which settings a space searches."""
_HIDDEN = {"none": (), "32": (32,), "64x64": (64, 64), "256x256": (256, 256)}
"""Sizes of hidden layers by name, as Optuna keeps no tuples."""


def evolution(trial: "optuna.Trial", base: Mapping[str, Any]) -> dict[str, Any]:
    """The space of `eggroll` and `open_es`."""
    population = trial.suggest_categorical("population_size", [16, 32, 64, 128, 256, 512])
    sigma = trial.suggest_float("sigma", 0.01, 1.0, log=True)
    optimizer = trial.suggest_categorical("optimizer", ["adam", "sgd"])
    if optimizer == "sgd":
        # A learning rate of sigma^2 moves the mean by sigma where fitness is linear in the
        # parameters.
        rate = sigma**2 * trial.suggest_float("learning_rate / sigma^2", 0.2, 20.0, log=True)
    else:  # The steps of Adam have the length of the learning rate, whatever sigma is.
        rate = trial.suggest_float("learning_rate", 0.001, 0.3, log=True)
    settings = {
        "population_size": population,
        "sigma": sigma,
        "optimizer": optimizer,
        "learning_rate": rate,
        "hidden": _HIDDEN[trial.suggest_categorical("hidden layers", ["none", "32", "64x64"])],
        "rank": trial.suggest_categorical("rank", [1, 2, 4, 8]),
        "shaping": trial.suggest_categorical("shaping", ["zscore", "centered_rank"]),
        "group_size": 0,
        "top_draws": None,
    }
    share = trial.suggest_categorical("share of the population", [0.25, 0.5, 1.0])
    match trial.suggest_categorical("selection", ["all", "groups", "best"]):
        case "groups":
            settings["group_size"] = max(round(share * population), base["noise_reuse"])
        case "best":
            draws = population // max(base["noise_reuse"], 1)
            settings["top_draws"] = max(round(share * draws), 1)
    return {name: value for name, value in settings.items() if name in base}


def ppo(trial: "optuna.Trial", base: Mapping[str, Any]) -> dict[str, Any]:
    """The space of `ppo` and `sbx_ppo`."""
    envs = trial.suggest_categorical("num_envs", [1, 4, 8, 16, 32, 64])
    steps = trial.suggest_categorical("num_steps", [16, 32, 64, 128, 256, 512, 1024])
    parts = trial.suggest_categorical("minibatches", [1, 2, 4, 8, 16, 32])
    batch = envs * steps
    least = max(batch // parts, 2)
    settings = {
        "num_envs": envs,
        "num_steps": steps,
        "minibatch_size": next((n for n in range(least, batch) if batch % n == 0), batch),
        "num_epochs": trial.suggest_categorical("num_epochs", [1, 2, 4, 5, 8, 10, 20]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 5e-3, log=True),
        "gamma": 1 - trial.suggest_float("1 - gamma", 1e-4, 0.1, log=True),
        "gae_lambda": 1 - trial.suggest_float("1 - gae_lambda", 0.0, 0.2),
        "clip_range": trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3, 0.4]),
        "entropy_coefficient": trial.suggest_categorical(
            "entropy_coefficient", [0.0, 0.0001, 0.001, 0.01, 0.1]
        ),
        "hidden": _HIDDEN[trial.suggest_categorical("hidden layers", ["32", "64x64", "256x256"])],
    }
    for name in ("normalize_observations", "normalize_rewards"):
        settings[name] = trial.suggest_categorical(name, [True, False])
    return {name: value for name, value in settings.items() if name in base}


_BUNDLED: dict[str, Function] = {
    "eggroll": evolution,
    "open_es": evolution,
    "ppo": ppo,
    "sbx_ppo": ppo,
}
"""The function of each agent that has a space of its own."""


@dataclass(frozen=True)
class Space:
    """What the trials of a study draw."""

    function: Function
    """Draws settings."""
    name: str
    """"module:function", or the name of the bundled function."""
    base: Mapping[str, Any]
    """All settings before any is drawn: the environment's preset, and the flags."""
    fixed: tuple[str, ...] = ()
    """The names of the settings that flags have fixed."""

    def draw(self, trial: "optuna.Trial") -> dict[str, Any]:
        """All settings of a trial.

        Raises:
          UserError: the function returns something other than settings of the agent, or Optuna
            refuses a suggestion.
        """
        fixed = {name: self.base[name] for name in self.fixed}
        fixing: Any = _Fixing(trial, fixed)
        try:
            drawn = self.function(fixing, self.base)
            if not isinstance(drawn, dict):
                raise UserError(f"must return a dict of settings, not {drawn!r}")
            check_known(drawn, "what it returns", self.base)
        except UserError as error:
            raise UserError(f"space={self.name}: {error}") from error
        return {**self.base, **drawn, **fixed}

    def searched(self, agent: str, env_id: str) -> tuple[str, ...]:
        """The names of the settings that are searched, found by random draws.

        Raises:
          UserError: nothing is searched, or the agent refuses the settings of every draw.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        draws = [self.draw(study.ask()) for _ in range(_PROBES)]
        refused = []
        for settings in draws:
            try:
                configure(agent, env_id, **settings)
            except UserError as error:
                refused.append(error)
        if len(refused) == len(draws):
            first = refused[0]
            if str(first).partition("=")[0] in self.fixed:
                raise first
            raise UserError(f"space={self.name}: {first}") from first
        found = tuple(n for n in self.base if any(d[n] != self.base[n] for d in draws))
        if not found:
            raise UserError("nothing is left to search: must be fewer flags that fix a setting")
        return found


class _Fixing:
    """An Optuna trial whose suggestions of fixed settings are the fixed values."""

    def __init__(self, trial: "optuna.Trial", fixed: Mapping[str, Any]):
        self._trial, self._fixed = trial, fixed

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._trial, attribute)
        if not attribute.startswith("suggest_"):
            return found

        def suggest(name: str, *args: Any, **kwargs: Any) -> Any:
            if name in self._fixed:
                return self._fixed[name]
            try:
                return found(name, *args, **kwargs)
            except ValueError as error:  # such as other choices than in earlier trials
                raise UserError(f"{attribute} of {name!r}: {one_line(error)}") from error

        return suggest


def load(name: str | None, agent: str) -> Function:
    """Find the function of a space.

    Args:
      name: "module:function"; None for the space that is bundled for the agent.
      agent: the registered name of the agent.

    Raises:
      UserError: there is no such function, or nothing is bundled for the agent.
    """
    if name is None:
        if agent not in _BUNDLED:
            raise UserError(
                f"agent={agent}: has no space to search: must come with --space MODULE:FUNCTION"
            )
        return _BUNDLED[agent]
    module, _, function = name.partition(":")
    if not module or not function:
        raise UserError(f"space={name}: must be MODULE:FUNCTION")
    try:
        import_modules([module])
    except UserError as error:
        said = str(error).partition(": ")[2]
        raise UserError(f"space={name}: {module} {said}") from error
    found = getattr(sys.modules[module], function, None)
    if not callable(found):
        raise UserError(f"space={name}: must be a function, which {module} has not")
    try:
        inspect.signature(found).bind("trial", "base")
    except (TypeError, ValueError) as error:
        raise UserError(f"space={name}: must be a function of (trial, base): {error}") from error
    return found
