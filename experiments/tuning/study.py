"""The study of a tuning: its trials, kept by Optuna in an SQLite file, so that it can go on.

The file may be left by a process that was killed at any time. A trial that it was running is marked
as failed, and another one with the same settings is put in front of the queue.
"""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from envs.errors import UserError, one_line
from experiments.comparison.trials import Stopped
from experiments.tuning.spaces import Space
from experiments.tuning.trial import Protocol, Report, SeedResult

NAME = "tune"
"""The name of the study in its file."""
_MOST_KILLS = 3
"""A trial during which the process was killed this often is not tried again."""
_UNPRUNED_TRIALS = 5
"""Trials that must be complete before any is pruned."""
_UNPRUNED_SHARE = 0.3
"""The share of the budget of a trial's first seed before which it is not pruned."""
TrainSeeds = Callable[[dict[str, Any], Report, Callable[[SeedResult], None]], float]
"""(settings, report, ended) -> value; see `trial.train_seeds`."""


class Pruned(Exception):
    """A trial is worse than the median of the others."""


@dataclass(frozen=True)
class Tuning:
    """A study, with what its trials draw from."""

    study: optuna.Study
    """Optuna's study, in which every trial has the user attributes `settings` (a JSON object of all
    settings), `seeds` (a list of `SeedResult` as JSON objects) and, if it failed, `message`."""
    protocol: Protocol
    """What the trials have in common."""
    space: Space
    """Draws the settings of trials."""
    searched: tuple[str, ...]
    """The names of the settings that are searched."""

    def settled(self) -> list[FrozenTrial]:
        """The trials that have ended, without those that are tried again."""
        trials = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get("again_of") for trial in trials}
        return [t for t in trials if t.state.is_finished() and t.number not in again]

    def best(self) -> FrozenTrial | None:
        """The complete trial with the largest value, the first of equals."""
        complete = [t for t in self.settled() if t.state == TrialState.COMPLETE]
        return max(complete, key=value_of, default=None)

    def run(self, trials: int, train: TrainSeeds, after: Callable[[FrozenTrial], None]) -> None:
        """Run trials until so many are settled, those of earlier processes included.

        Args:
          trials: the number of trials.
          train: trains with settings.
          after: is called after each trial.

        Raises:
          Stopped: a signal was received; the trial is put back into the queue.
          Exception: what `train` has raised, unless it is a `UserError`, which makes the trial a
            failed one.
        """
        self._put_back_killed()
        if not self.study.get_trials(deepcopy=False):
            # The preset need not be in the space, so that the sampler does not see it.
            self.study.enqueue_trial({}, user_attrs={"first": True})
        while len(self.settled()) < trials:
            trial = self.study.ask()
            self._attempt(trial, train)
            after(self.study.get_trials(deepcopy=False)[trial.number])

    def _attempt(self, trial: optuna.Trial, train: TrainSeeds) -> None:
        settings = self._settings_of(trial)
        trial.set_user_attr("settings", settings)
        ended: list[dict[str, Any]] = []

        def note(result: SeedResult) -> None:
            ended.append(asdict(result))
            trial.set_user_attr("seeds", ended)

        def report(step: int, value: float) -> None:
            trial.report(value, step)
            if step < self._last_step and self._prunes(trial.number, step, value):
                raise Pruned

        try:
            value = train(settings, report, note)
        except Pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except (Stopped, KeyboardInterrupt):
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            self._put_back(frozen, kills=frozen.user_attrs.get("kills", 0))
            raise
        except Exception as error:
            named = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            trial.set_user_attr("message", one_line(named))
            self.study.tell(trial, state=TrialState.FAIL)
            if not isinstance(error, UserError):
                raise
        else:
            self.study.tell(trial, value)

    def _settings_of(self, trial: optuna.Trial) -> dict[str, Any]:
        return dict(self.space.base) if "first" in trial.user_attrs else self.space.draw(trial)

    def _put_back_killed(self) -> None:
        """Put the trials that a killed process was running back into the queue."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                self._put_back(trial, kills=trial.user_attrs.get("kills", 0) + 1)

    def _put_back(self, trial: FrozenTrial, *, kills: int) -> None:
        """Mark a running trial as failed, and put another one with its settings into the queue."""
        others = self.study.get_trials(deepcopy=False)
        done = any(other.user_attrs.get("again_of") == trial.number for other in others)
        if not done and kills < _MOST_KILLS:
            attributes = {"again_of": trial.number, "kills": kills}
            if "first" in trial.user_attrs:
                attributes["first"] = True
            self.study.enqueue_trial(trial.params, user_attrs=attributes)
        self.study.tell(trial.number, state=TrialState.FAIL)

    @property
    def _last_step(self) -> int:
        return self.protocol.seeds * self.protocol.evaluations

    def _prunes(self, number: int, step: int, value: float) -> bool:
        """Whether a trial is worse than the median of complete trials at this step."""
        # The pruner compares a trial's best value of all steps. With a mean over seeds one lucky
        # seed would keep a trial for ever, so that it is shown the present value alone.
        trial = copy.copy(self.study.get_trials(deepcopy=False)[number])
        trial.intermediate_values = {step: value}
        return self.study.pruner.prune(self.study, trial)


def value_of(trial: FrozenTrial) -> float:
    """The value of a complete trial."""
    assert trial.value is not None
    return trial.value


def from_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings from JSON values, whose lists are tuples."""
    return {name: tuple(x) if isinstance(x, list) else x for name, x in settings.items()}


@contextmanager
def opened_study(
    path: Path, protocol: Protocol, space: Space, searched: tuple[str, ...]
) -> Iterator[Tuning]:
    """Open the study in a file, or make a new one; the file is closed at the end.

    Args:
      path: the SQLite file; its folder must be there.
      protocol: what the trials have in common.
      space: draws the settings of trials.
      searched: the names of the settings that are searched, from `Space.searched`.

    Raises:
      UserError: the file holds no study, or one with another protocol.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = URL.create("sqlite", database=str(path)).render_as_string()
    with ExitStack() as stack:
        try:
            storage = optuna.storages.RDBStorage(url)
            stack.callback(storage.engine.dispose)
            stack.callback(storage.remove_session)
            study = _made(storage, protocol)
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError) as error:
            raise UserError(
                f"out={path.parent}: {path.name} is no study, which it must be ({one_line(error)})"
            ) from error
        described = json.loads(json.dumps(asdict(protocol)))
        kept = study.user_attrs.get("protocol")
        if kept is None:
            study.set_user_attr("protocol", described)
        else:
            _check_same(path.parent, kept, described)
        yield Tuning(study, protocol, space, searched)


def _made(storage: optuna.storages.RDBStorage, protocol: Protocol) -> optuna.Study:
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=_UNPRUNED_TRIALS,
        n_warmup_steps=round(_UNPRUNED_SHARE * protocol.evaluations),
    )
    study = optuna.create_study(
        storage=storage, study_name=NAME, direction="maximize", load_if_exists=True, pruner=pruner
    )
    # A sampler with the same seed would draw again what an earlier process has drawn.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.get_trials(deepcopy=False)))
    return study


def _check_same(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a study that began with another protocol or space."""
    for name, value in now.items():
        old = before.get(name)
        if old == value:
            continue
        if name == "base":
            name = next((k for k in value if value[k] != (old or {}).get(k)), name)
            old, value = (old or {}).get(name), value.get(name)
        if name in ("fixed", "env_kwargs", "train_env_kwargs"):
            raise UserError(
                f"out={out}: holds a study with another {name}: must be another folder, or have "
                "the same flags"
            )
        raise UserError(f"{name}={value}: must be {old}, as the study in {out} began with it")


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each suggestion that all trials have matters, by PED-ANOVA (arXiv 2304.10255).

    The sum is 1, and the largest is first. Empty as long as fewer than 10 trials are complete.
    Pruned trials and the first one, whose settings were not drawn, are left out.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    drawn = [trial for trial in complete if "first" not in trial.user_attrs]
    common = optuna.search_space.intersection_search_space(drawn)
    if len(drawn) < 10 or not common:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dimensions that few trials have
        return optuna.importance.get_param_importances(study, params=[*common])
