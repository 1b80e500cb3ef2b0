"""The options of a run; each is declared here once, with its default and its range."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from agents import settings
from agents.policies.policy_files import MOST_EPISODES
from agents.training.progress import Progress
from envs.errors import UserError, did_you_mean

_MOST_STEPS = 2**62


def _option(default: Any, *, least: float | None = None, most: float | None = None) -> Any:
    """A field that must not change when a run is resumed."""
    return field(default=default, metadata={"least": least, "most": most})


def _changeable(default: Any, *, least: float | None = None, most: float | None = None) -> Any:
    """A field that may change when a run is resumed: it sets how long a run lasts, not what it
    computes."""
    return field(default=default, metadata={"least": least, "most": most, **settings.MAY_CHANGE})


def _seconds(default: float | None, *, may_change: bool = False) -> Any:
    """A field whose value is a number of seconds above 0, or None."""
    return field(
        default=default, metadata={"seconds": True, **(settings.MAY_CHANGE if may_change else {})}
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long a run trains an agent, and how often it evaluates and saves.

    `agents.train` takes these fields as arguments, `es-rl train` as flags, and `config.json` keeps
    them.

    Raises:
      UserError: a value has a wrong type or is out of range.
    """

    seed: int = _option(0, least=0)
    """The seed of the initial parameters, the noise and the training episodes."""
    env_steps: int = _changeable(10_000_000, least=1, most=_MOST_STEPS)
    """The run ends with the generation in which it reaches this number of environment steps."""
    seconds: float | None = _seconds(None, may_change=True)
    """The run ends after this many seconds of training, without compilation and evaluation; None
    sets no limit."""
    target_return: float | None = _changeable(None)
    """The run ends when an evaluation of the mean policy reaches this return; None sets no
    target."""
    eval_every: int = _option(10, least=1)
    """The number of generations between two evaluations of the mean policy, which is also evaluated
    after the last one."""
    evaluations: int | None = _option(None, least=1)
    """The number of evaluations after equal shares of the budget, of env steps or of seconds,
    whichever ends first, besides one after the first generation; if given, `eval_every` is
    ignored."""
    eval_episodes: int | None = _option(None, least=1, most=MOST_EPISODES)
    """The number of episodes of an evaluation; None means 128, or 32 if environments step on the
    host."""
    checkpoint_every: int | None = _changeable(None, least=1)
    """The number of generations between two checkpoints; None means that only `checkpoint_seconds`
    counts."""
    checkpoint_seconds: float | None = _seconds(60.0, may_change=True)
    """The seconds between two checkpoints; there is also one at the end. If this and
    `checkpoint_every` are None, there are no checkpoints."""
    keep: int = _changeable(2, least=1)
    """The number of checkpoints that are kept, the latest ones."""

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
        """Make a configuration from options by name; the other options have their defaults.

        Raises:
          UserError: an option is unknown, or its value is out of range.
        """
        known = [each.name for each in fields(cls)]
        for name, value in options.items():
            if name not in known:
                hint = did_you_mean(name, known, most=3) or f": must be of {', '.join(known)}"
                raise UserError(f"{name}={value!r}: no such option of a run{hint}")
        return cls(**options)

    def going_on(self, options: Mapping[str, Any]) -> "RunConfig":
        """This configuration of a stopped run, with the options that the resumed run changes.

        Raises:
          UserError: an option is changed that must stay the same.
        """
        changed = RunConfig.of({**asdict(self), **options})
        settings.check_kept(self, changed)
        return changed

    @property
    def num_eval_episodes(self) -> int:
        """The number of episodes of an evaluation; the run must have replaced None by a number."""
        assert self.eval_episodes is not None
        return self.eval_episodes

    @property
    def has_checkpoints(self) -> bool:
        """Whether the run writes checkpoints."""
        return self.checkpoint_every is not None or self.checkpoint_seconds is not None

    def over(self, progress: Progress, training_seconds: float) -> bool:
        """Whether the budget of env steps or of seconds is spent."""
        late = self.seconds is not None and training_seconds >= self.seconds
        return late or progress.env_steps >= self.env_steps

    def reached(self, value: float) -> bool:
        """Whether a return reaches the target."""
        return self.target_return is not None and value >= self.target_return

    def evaluates(self, progress: Progress, training_seconds: float) -> bool:
        """Whether to evaluate after the generation that has just ended."""
        if self.evaluations is None:
            return (progress.generation - 1) % self.eval_every == 0
        last = progress.evaluated_seconds
        if last is None:
            return True
        due = self.evaluations_due(progress.env_steps, training_seconds)
        return due > self.evaluations_due(progress.evaluated_env_steps, last)

    def share(self, env_steps: int, training_seconds: float) -> float:
        """The share of the budget that is spent, at most 1."""
        of_seconds = training_seconds / self.seconds if self.seconds is not None else 0.0
        return min(max(env_steps / self.env_steps, of_seconds), 1.0)

    def evaluations_due(self, env_steps: int, training_seconds: float) -> int:
        """How many of `evaluations` come due within the share of the budget that is spent."""
        return int(self.share(env_steps, training_seconds) * (self.evaluations or 0) + 1e-9)

    def saves(self, progress: Progress, seconds_since: float) -> bool:
        """Whether to write a checkpoint after the generation that has just ended."""
        every, seconds = self.checkpoint_every, self.checkpoint_seconds
        due = every is not None and progress.generation % every == 0
        return due or (seconds is not None and seconds_since >= seconds)
