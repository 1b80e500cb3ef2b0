"""The options of a run: every one is declared here, once, with its default and its range."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from agents import settings
from agents.policies.policy_files import MOST_EPISODES
from agents.training.progress import Progress
from envs.errors import UserError

_MOST_STEPS = 2**62


def _option(default: Any, *, least: float | None = None, most: float | None = None) -> Any:
    """A field that a run keeps for its whole life."""
    return field(default=default, metadata={"least": least, "most": most})


def _changeable(default: Any, *, least: float | None = None, most: float | None = None) -> Any:
    """A field that may change where a run goes on: it says how long, not what happens."""
    return field(default=default, metadata={"least": least, "most": most, **settings.MAY_CHANGE})


def _seconds(default: float | None, *, may_change: bool = False) -> Any:
    """A field that is a number of seconds above 0, or None."""
    return field(
        default=default, metadata={"seconds": True, **(settings.MAY_CHANGE if may_change else {})}
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long a run trains an agent, and how often it evaluates and saves what it has.

    `agents.train` takes these fields as arguments, `es-rl train` as flags, and `config.json` keeps
    them.

    Raises:
      UserError: a value is of another type, or out of range.
    """

    seed: int = _option(0, least=0)
    """The seed of the initial parameters, the noise and the training episodes."""
    env_steps: int = _changeable(10_000_000, least=1, most=_MOST_STEPS)
    """The run ends with the generation in which it has made so many environment steps."""
    seconds: float | None = _seconds(None, may_change=True)
    """The run ends after so many seconds of training, which leave out compilation and
    evaluation; None sets no limit."""
    target_return: float | None = _changeable(None)
    """The run ends when an evaluation of the mean policy reaches this return; None sets no
    target."""
    eval_every: int = _option(10, least=1)
    """The mean policy is evaluated every so many generations, and always after the last one."""
    eval_seconds: float | None = _seconds(None)
    """The mean policy is evaluated after every so many seconds of training instead of by
    `eval_every`; None counts generations."""
    eval_episodes: int | None = _option(None, least=1, most=MOST_EPISODES)
    """An evaluation plays so many episodes; None means 128, or 32 where environments step on the
    host."""
    checkpoint_every: int | None = _changeable(None, least=1)
    """A checkpoint is written every so many generations; None counts seconds alone."""
    checkpoint_seconds: float | None = _seconds(60.0, may_change=True)
    """A checkpoint is written when so many seconds have passed since the last one, and at the end;
    where this and `checkpoint_every` are None there are no checkpoints."""
    keep: int = _changeable(2, least=1)
    """So many of the latest checkpoints are kept."""

    def __post_init__(self) -> None:
        settings.check(self)
        for each in fields(self):
            value, name = getattr(self, each.name), each.name
            if value is None:
                continue
            least, most = each.metadata.get("least"), each.metadata.get("most")
            if least is not None and value < least:
                raise UserError(f"{name}={value}: must be at least {least}")
            if most is not None and value > most:
                raise UserError(f"{name}={value}: must be at most {most}")
            if each.metadata.get("seconds") and not value > 0:
                raise UserError(f"{name}={value}: must be a number of seconds above 0")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "RunConfig":
        """A configuration of options by their names; the others have their defaults.

        Raises:
          UserError: there is no such option, or its value is out of range.
        """
        known = [each.name for each in fields(cls)]
        for name, value in options.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3)
                accepted = f"did you mean {', '.join(close)}?" if close else f"{', '.join(known)}"
                raise UserError(f"{name}={value!r}: no such option of a run; {accepted}")
        return cls(**options)

    def going_on(self, options: Mapping[str, Any]) -> "RunConfig":
        """This configuration of a run that was stopped, with what is changed as it goes on.

        Raises:
          UserError: an option has to stay as it is, so that the run is still the same.
        """
        changed = RunConfig.of({**asdict(self), **options})
        settings.check_kept(self, changed)
        return changed

    @property
    def num_eval_episodes(self) -> int:
        """Episodes of an evaluation, once the run has chosen a number."""
        assert self.eval_episodes is not None
        return self.eval_episodes

    @property
    def has_checkpoints(self) -> bool:
        """Whether the run writes any."""
        return self.checkpoint_every is not None or self.checkpoint_seconds is not None

    def over(self, progress: Progress, training_seconds: float) -> bool:
        """Whether a budget is spent."""
        late = self.seconds is not None and training_seconds >= self.seconds
        return late or progress.env_steps >= self.env_steps

    def reached(self, value: float) -> bool:
        """Whether a return is as good as the target."""
        return self.target_return is not None and value >= self.target_return

    def evaluates(self, progress: Progress, training_seconds: float) -> bool:
        """Whether the generation that has just ended is to be evaluated."""
        if self.eval_seconds is None:
            return (progress.generation - 1) % self.eval_every == 0
        last = progress.evaluated_seconds
        return last is None or training_seconds - last >= self.eval_seconds

    def saves(self, progress: Progress, seconds_since: float) -> bool:
        """Whether there is to be a checkpoint after the generation that has just ended."""
        every, seconds = self.checkpoint_every, self.checkpoint_seconds
        due = every is not None and progress.generation % every == 0
        return due or (seconds is not None and seconds_since >= seconds)
