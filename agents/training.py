"""The one host loop: step, evaluate, log, checkpoint, save."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from agents.base import Agent
from agents.evaluation import Evaluation, Evaluator
from agents.network import Weights
from agents.policy import Policy
from agents.provenance import git_state, versions
from agents.run_folder import RunFolder
from envs.base import HostEnv
from es_rl import devices

OnGeneration: TypeAlias = Callable[[dict[str, Any], Callable[[], Policy]], None]
SKIPPED_LIMIT = 10
"""Updates in a row that had to be skipped before training is given up."""


class Diverged(RuntimeError):
    """No update could be made any more: the numbers are not finite."""


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with."""

    policy: Policy
    """The mean policy after the last iteration, with its evaluation."""
    best: Policy
    """The one with the best evaluation of the run; the last one, where two are as good."""
    evaluation: Evaluation
    """Of `policy`."""
    generations: int
    env_steps: int
    compile_seconds: float
    """Spent before the first iteration."""
    wall_seconds: float
    """Of training and evaluation, without that."""
    evaluation_seconds: float
    """Of these, what was not training: evaluation, checkpoints and `on_generation`."""
    stopped_by: int | None = None
    """The signal that ended the run before its time, if one did."""
    out: Path | None = None
    """The run's folder."""
    checkpoint: Path | None = None
    """The last one in it."""


@dataclass
class _Progress:
    """How far a run has come, beside the agent's state: what a checkpoint has of it in JSON."""

    generation: int = 0
    """How many are done."""
    env_steps: int = 0
    skipped: int = 0
    """Updates in a row that were skipped."""
    wall_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    evaluated_seconds: float | None = None
    """Seconds of training at the last evaluation."""
    evaluated_generation: int = -1
    evaluation: Evaluation | None = None
    """The last one."""
    best_generation: int = -1
    best_env_steps: int = 0
    best_evaluation: Evaluation | None = None
    best_weights: Weights = field(default_factory=lambda: Weights({}, np.zeros(0), np.zeros(0)))
    """Those of the best evaluation; an array tree, saved with the state."""

    def to_json(self) -> dict[str, Any]:
        values = {k: v for k, v in vars(self).items() if k != "best_weights"}
        return {k: v.to_json() if isinstance(v, Evaluation) else v for k, v in values.items()}

    @staticmethod
    def from_json(values: dict[str, Any], best_weights: Weights) -> "_Progress":
        evaluations = {
            name: None if values[name] is None else Evaluation.from_json(values[name])
            for name in ("evaluation", "best_evaluation")
        }
        return _Progress(**{**values, **evaluations, "best_weights": best_weights})

    def note(self, evaluation: Evaluation, weights: Weights, seconds: float) -> None:
        """Take in an evaluation of the policy as it stands."""
        self.evaluation, self.evaluated_seconds = evaluation, seconds
        self.evaluated_generation = self.generation
        if self.best_evaluation is None or not evaluation.mean < self.best_evaluation.mean:
            self.best_evaluation, self.best_weights = evaluation, weights
            self.best_generation, self.best_env_steps = self.generation, self.env_steps


def train(
    agent: Agent,
    *,
    env_steps: int,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    seconds: float = math.inf,
    target_return: float | None = None,
    eval_every: int = 10,
    eval_seconds: float | None = None,
    eval_episodes: int | None = None,
    checkpoint_every: int | None = None,
    checkpoint_seconds: float | None = 60.0,
    keep: int = 2,
    evaluator: Evaluator | None = None,
    on_generation: OnGeneration | None = None,
) -> TrainResult:
    """Train until a budget is spent or an evaluation reaches the target.

    SIGINT and SIGTERM end the run after the generation at hand; a checkpoint and the policy are
    saved all the same. A run that was stopped, or killed, and resumed with the same arguments ends
    with the same bits as one that was not, where no budget or interval is in seconds.

    Args:
      agent: what to train, on its environment.
      env_steps: budget: the last generation is the one in which it is reached.
      seed: of the initial parameters, the noise and the training episodes.
      out: the run's folder, which must be empty or absent; None writes nothing.
      resume: go on from the latest checkpoint in `out`, or from the start where there is none.
      seconds: budget of training, without compilation and evaluation.
      target_return: stop as soon as the mean policy's evaluation return reaches it.
      eval_every: generations between evaluations; the last one is always evaluated. When a
        target is given, a generation whose members reach it on average is evaluated too.
      eval_seconds: evaluate instead when so much time was spent on training since the last one.
      eval_episodes: episodes of an evaluation; 128, or 32 on the host, unless given.
      checkpoint_every: generations between checkpoints.
      checkpoint_seconds: and seconds between them, whichever comes first; the end of the run has
        one too. None for both writes none.
      keep: how many of the latest checkpoints remain.
      evaluator: of the agent's policies; several runs of an agent may share what it compiled.
      on_generation: called after each generation with its metrics, and with a function that
        gives the policy as it stands.

    Raises:
      ValueError: an argument is out of range, the folder holds something already, or it is not
        that of a run like this one.
      Diverged: update after update was not finite; the best policy so far is saved.
      RuntimeError: the folder cannot be written any more, or the environment does not work.
    """
    _check_at_least_1(
        env_steps=env_steps,
        eval_every=eval_every,
        eval_episodes=eval_episodes,
        checkpoint_every=checkpoint_every,
        keep=keep,
    )
    for name, value in (("seconds", seconds), ("checkpoint_seconds", checkpoint_seconds)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value}: must be greater than 0")
    if resume and (out is None or not agent.resumable):
        why = "out=None: must be" if out is None else f"agent={agent.name}: cannot resume"
        raise ValueError(f"{why} the folder of a run" if out is None else why)
    checkpoints = checkpoint_every is not None or checkpoint_seconds is not None
    schedule = _Schedule(
        env_steps=env_steps,
        seconds=seconds,
        target_return=target_return,
        eval_every=eval_every,
        eval_seconds=eval_seconds,
        eval_episodes=eval_episodes or (32 if isinstance(agent.env, HostEnv) else 128),
        checkpoint_every=checkpoint_every,
        checkpoint_seconds=checkpoint_seconds,
    )

    with ExitStack() as stack:
        caught = stack.enter_context(_deferred_signals())
        run = None
        if out is not None:
            run = RunFolder(out, config=_config(agent, seed, schedule), resume=resume)
            stack.callback(run.close)
        started = time.perf_counter()
        state = agent.init(jax.random.key(seed))
        policy = agent.snapshot(state)
        evaluate = evaluator or Evaluator(agent.env, policy.actor, agent.mesh, agent.lanes)
        progress = _Progress(best_weights=policy.weights)

        def open_folder() -> Any:
            if run is None:
                return None
            wanted = checkpoints and agent.resumable
            return run.open(keep if wanted else None, (state, policy.weights))

        _, _, restored = devices.all_at_once(
            lambda: agent.compile(state),
            lambda: evaluate.compile(policy.weights, episodes=schedule.eval_episodes),
            open_folder,
        )
        if restored is not None:
            state, best_weights = restored.state
            progress = _Progress.from_json(restored.progress, best_weights)
        loop = _Loop(agent, seed, schedule, progress, evaluate, run, on_generation, caught)
        compiled = time.perf_counter() - started
        try:
            return loop.play(state, compiled)
        except OSError as error:
            if run is None:
                raise
            latest = run.latest_checkpoint()
            kept = f"the last checkpoint is {latest}" if latest else "there is no checkpoint"
            raise RuntimeError(
                f"out={run.folder}: cannot be written any more ({error}); {kept}"
            ) from error


@dataclass(frozen=True)
class _Schedule:
    """When a run ends, and when it does what; see `train`."""

    env_steps: int
    seconds: float
    target_return: float | None
    eval_every: int
    eval_seconds: float | None
    eval_episodes: int
    checkpoint_every: int | None
    checkpoint_seconds: float | None

    def over(self, progress: _Progress, training_seconds: float) -> bool:
        """Whether a budget is spent."""
        return progress.env_steps >= self.env_steps or training_seconds >= self.seconds

    def reached(self, value: float) -> bool:
        """Whether a return is as good as the target."""
        return self.target_return is not None and value >= self.target_return

    def evaluates(self, progress: _Progress, training_seconds: float) -> bool:
        """Whether this generation, not counted yet, is to be evaluated."""
        if self.eval_seconds is None:
            return progress.generation % self.eval_every == 0
        last = progress.evaluated_seconds
        return last is None or training_seconds - last >= self.eval_seconds

    def saves(self, progress: _Progress, seconds_since: float) -> bool:
        """Whether there is to be a checkpoint after this generation, counted already."""
        every, seconds = self.checkpoint_every, self.checkpoint_seconds
        due = every is not None and progress.generation % every == 0
        return due or (seconds is not None and seconds_since >= seconds)


@dataclass
class _Loop:
    """What the generations of a run have in common."""

    agent: Agent
    seed: int
    schedule: _Schedule
    progress: _Progress
    evaluator: Evaluator
    run: RunFolder | None
    on_generation: OnGeneration | None
    caught: list[int]

    def play(self, state: Any, compile_seconds: float) -> TrainResult:
        """From a state to the end."""
        progress, schedule = self.progress, self.schedule
        clock = _Clock(progress.wall_seconds, progress.evaluation_seconds)
        saved = time.perf_counter()
        over = schedule.over(progress, clock.training) or bool(self.caught)
        over |= progress.evaluation is not None and schedule.reached(progress.evaluation.mean)
        while not over:
            state, metrics = _timed_step(self.agent, state)
            progress.env_steps += metrics["env_steps"]
            metrics = {
                "generation": progress.generation,
                **metrics,
                "env_steps": progress.env_steps,
            }
            progress.skipped = (progress.skipped + 1) * metrics.get("update_skipped", 0)
            diverged = progress.skipped >= SKIPPED_LIMIT
            now = clock.training
            over = schedule.over(progress, now) or bool(self.caught) or diverged
            promising = schedule.reached(metrics["return_mean"])
            if over or promising or schedule.evaluates(progress, now):
                with clock.paused():
                    metrics |= self._evaluate(state, now)
                assert progress.evaluation is not None
                over |= schedule.reached(progress.evaluation.mean) or bool(self.caught)
            metrics |= {"wall_seconds": clock.wall, "evaluation_seconds": clock.aside}
            progress.wall_seconds, progress.evaluation_seconds = clock.wall, clock.aside
            progress.generation += 1
            if self.run is not None:
                self.run.log(metrics)
            with clock.paused():
                if self.on_generation is not None:
                    self.on_generation(metrics, partial(self.agent.snapshot, state))
                if over or schedule.saves(progress, time.perf_counter() - saved):
                    saved = time.perf_counter()
                    self._checkpoint(state)
        return self._end(state, compile_seconds)

    def _evaluate(self, state: Any, now: float) -> dict[str, Any]:
        """Evaluate the policy as it stands; what metrics say of it."""
        weights = self.agent.snapshot(state).weights
        evaluation = self.evaluator(weights, episodes=self.schedule.eval_episodes)
        self.progress.note(evaluation, weights, now)
        return {
            "eval_return_mean": evaluation.mean,
            "eval_return_std": evaluation.std,
            "eval_episodes": len(evaluation.returns),
        }

    def _checkpoint(self, state: Any) -> None:
        if self.run is not None:
            self.run.checkpoint(
                self.progress.generation,
                (state, self.progress.best_weights),
                self.progress.to_json(),
            )

    def _end(self, state: Any, compile_seconds: float) -> TrainResult:
        """Save what is left to save, and say how it went."""
        progress = self.progress
        if progress.evaluated_generation < progress.generation - 1 or progress.evaluation is None:
            self._evaluate(state, progress.wall_seconds - progress.evaluation_seconds)
        assert progress.evaluation is not None
        assert progress.best_evaluation is not None
        policy = self.agent.snapshot(state)
        best = replace(policy, weights=progress.best_weights)
        best = self._with_origin(
            best, progress.best_env_steps, progress.best_generation + 1, progress.best_evaluation
        )
        policy = self._with_origin(
            policy, progress.env_steps, progress.generation, progress.evaluation
        )
        if self.run is not None:
            self.run.save("policy", policy)
            self.run.save("best", best)
            self.run.wait()
        if progress.skipped >= SKIPPED_LIMIT:
            where = f"; the best policy is in {self.run.folder / 'best'}" if self.run else ""
            raise Diverged(
                f"training stopped: {progress.skipped} updates in a row were not finite, as the "
                f"returns of every member, or the parameters, would not be{where}"
            )
        return TrainResult(
            policy=policy,
            best=best,
            evaluation=progress.evaluation,
            generations=progress.generation,
            env_steps=progress.env_steps,
            compile_seconds=compile_seconds,
            wall_seconds=progress.wall_seconds,
            evaluation_seconds=progress.evaluation_seconds,
            stopped_by=self.caught[0] if self.caught else None,
            out=self.run.folder if self.run else None,
            checkpoint=self.run.latest_checkpoint() if self.run else None,
        )

    def _with_origin(
        self, policy: Policy, env_steps: int, generations: int, evaluation: Evaluation
    ) -> Policy:
        origin = {"seed": self.seed, "env_steps": env_steps, "generations": generations}
        return replace(policy, training=origin, evaluation=evaluation.to_json())


def _config(agent: Agent, seed: int, schedule: _Schedule) -> dict[str, Any]:
    """Everything needed to repeat a run, in JSON values."""
    settings = asdict(schedule)
    return {
        "env": agent.env.spec.id,
        "env_kwargs": agent.env.spec.kwargs,
        "agent": agent.name,
        "settings": asdict(agent.config),
        "seed": seed,
        **settings,
        "seconds": schedule.seconds if math.isfinite(schedule.seconds) else None,
        "versions": versions(),
        "git": git_state(),
        "device": f"{agent.mesh.size} x {agent.mesh.devices.flat[0].device_kind}",
    }


class _Clock:
    """Seconds of a run, and how many of them were not spent on training."""

    def __init__(self, wall: float = 0.0, aside: float = 0.0):
        self._began = time.perf_counter() - wall
        self.aside = aside

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._began

    @property
    def training(self) -> float:
        return self.wall - self.aside

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began


def _check_at_least_1(**arguments: int | None) -> None:
    for name, value in arguments.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")


def _timed_step(agent: Agent, state: Any) -> tuple[Any, dict[str, Any]]:
    """One iteration, its metrics on the host and with their env steps per second."""
    began = time.perf_counter()
    state, metrics = agent.step(state)
    metrics = {name: np.asarray(value).item() for name, value in jax.device_get(metrics).items()}
    seconds = time.perf_counter() - began
    return state, {**metrics, "steps_per_second": metrics["env_steps"] / seconds}


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one dies at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
