"""The one host loop: step, evaluate, log, checkpoint, save."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from agents.base import Agent
from agents.evaluation import Evaluation, Evaluator
from agents.policy import Policy
from agents.provenance import git_state, versions
from agents.repetition import check_repeats
from agents.run_folder import RunFolder
from agents.schedule import Clock, Now, Progress, Schedule
from envs.base import HostEnv
from envs.errors import UserError
from es_rl import checkpoints, devices, processes
from es_rl.checkpoints import Restored

_AGREE_SECONDS = 0.2
"""How often processes tell each other the time and whether to stop, at most."""
OnGeneration: TypeAlias = Callable[[dict[str, Any], Callable[[], Policy]], None]
SKIPPED_LIMIT = 10
"""Updates in a row that had to be skipped before training is given up."""


class Diverged(UserError):
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

    Where there are several processes (`es_rl.processes`) all of them call this alike. Process 0
    alone writes, calls `on_generation`, and says what time it is.

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
      UserError: an argument is out of range, the folder holds something already, or it is not
        that of a run like this one.
      Diverged: update after update was not finite; the best policy so far is saved.
      UserError: the folder cannot be written any more.
      RuntimeError: the environment does not work.
    """
    default_episodes = 32 if isinstance(agent.env, HostEnv) else 128
    schedule = Schedule(
        env_steps=env_steps,
        seconds=seconds,
        target_return=target_return,
        eval_every=eval_every,
        eval_seconds=eval_seconds,
        eval_episodes=default_episodes if eval_episodes is None else eval_episodes,
        checkpoint_every=checkpoint_every,
        checkpoint_seconds=checkpoint_seconds,
        keep=keep,
    )
    _check(agent, schedule, out, resume)

    with ExitStack() as stack:
        caught = stack.enter_context(_deferred_signals())
        stack.enter_context(processes.watched(_advice(out)))
        run = None
        if out is not None:
            folder, config = out, _config(agent, seed, schedule)
            run = processes.on_main(lambda: RunFolder(folder, config=config, resume=resume))
        if run is not None:
            stack.callback(run.close)
        started = time.perf_counter()
        state = agent.init(jax.random.key(seed))
        policy = agent.snapshot(state)
        evaluate = evaluator or Evaluator(agent.env, policy.actor, agent.mesh, agent.lanes)
        progress = Progress(best_weights=policy.weights)
        keeps = keep if schedule.has_checkpoints and agent.resumable else None
        like = (state, policy.weights)
        _, _, _, restored = devices.all_at_once(
            lambda: check_repeats(agent.env, agent.lanes),
            lambda: agent.compile(state),
            lambda: evaluate.compile(policy.weights, episodes=schedule.eval_episodes),
            lambda: processes.on_main(lambda: run.open(keeps, like) if run is not None else None),
        )
        found = _from_checkpoint(restored, like)
        if found is not None:
            state, progress = found
        if not processes.is_main():
            on_generation = None
        loop = _Loop(agent, seed, schedule, progress, evaluate, run, on_generation, caught)
        compiled = time.perf_counter() - started
        try:
            return loop.play(state, compiled)
        except OSError as error:
            if run is None:
                raise
            latest = run.latest_checkpoint()
            kept = f"the last checkpoint is {latest}" if latest else "there is no checkpoint"
            raise UserError(
                f"out={run.folder}: cannot be written any more ({error}); {kept}"
            ) from error


def _check(agent: Agent, schedule: Schedule, out: str | Path | None, resume: bool) -> None:
    """Refuse what cannot work together, before anything is compiled or written."""
    if resume and out is None:
        raise UserError("out=None: must be the folder of a run to resume it")
    if resume and not agent.resumable:
        raise UserError(f"agent={agent.name}: cannot go on with a run: must be another agent")
    on_host = isinstance(agent.env, HostEnv)
    if on_host and schedule.eval_episodes < processes.count():
        raise UserError(
            f"eval_episodes={schedule.eval_episodes}: must be at least {processes.count()}, the "
            "number of processes"
        )


def _from_checkpoint(restored: Restored | None, like: Any) -> tuple[Any, Progress] | None:
    """State and progress that process 0 has read, in all processes; None if there were none."""
    progress = processes.broadcast_json(restored and restored.progress)
    if progress is None:
        return None
    held = processes.broadcast(restored.state if restored else checkpoints.blank(like))
    state, best_weights = checkpoints.placed(held, like)
    return state, Progress.from_json(progress, best_weights)


@dataclass
class _Loop:
    """What the generations of a run have in common."""

    agent: Agent
    seed: int
    schedule: Schedule
    progress: Progress
    evaluator: Evaluator
    run: RunFolder | None
    on_generation: OnGeneration | None
    caught: list[int]
    agrees_at: int = 0
    """The generation of the next agreement between processes."""

    def play(self, state: Any, compile_seconds: float) -> TrainResult:
        """From a state to the end."""
        progress, schedule = self.progress, self.schedule
        clock = Clock(progress.wall_seconds, progress.evaluation_seconds)
        now = self._agree(clock)
        saved = now.wall
        over = schedule.over(progress, now.training) or now.stop
        over |= progress.evaluation is not None and schedule.reached(progress.evaluation.mean)
        while not over:
            state, stepped = _timed_step(self.agent, state)
            progress.env_steps += stepped["env_steps"]
            metrics = {
                "generation": progress.generation,
                **stepped,
                "env_steps": progress.env_steps,
            }
            progress.generation += 1
            progress.skipped = progress.skipped + 1 if metrics.get("update_skipped") else 0
            if progress.generation >= self.agrees_at:
                now = self._agree(clock, metrics.get("param_norm", 0.0))
            over = schedule.over(progress, now.training) or progress.skipped >= SKIPPED_LIMIT
            over |= now.stop
            promising = schedule.reached(metrics["return_mean"])
            if over or promising or schedule.evaluates(progress, now.training):
                with clock.paused():
                    evaluation = self._evaluate(state, now.training)
                now = self._agree(clock)
                over |= schedule.reached(evaluation.mean) or now.stop
                metrics |= {
                    "eval_return_mean": evaluation.mean,
                    "eval_return_std": evaluation.std,
                    "eval_episodes": schedule.eval_episodes,
                }
            progress.wall_seconds, progress.evaluation_seconds = clock.wall, clock.aside
            metrics |= {
                "wall_seconds": progress.wall_seconds,
                "evaluation_seconds": progress.evaluation_seconds,
            }
            if self.run is not None:
                self.run.log(metrics)
            with clock.paused():
                if self.on_generation is not None:
                    self.on_generation(metrics, partial(self.agent.snapshot, state))
                if over or schedule.saves(progress, now.wall - saved):
                    saved = now.wall
                    self._checkpoint(state)
        return self._end(state, compile_seconds)

    def _agree(self, clock: Clock, param_norm: float = 0.0) -> Now:
        """What time it is, and whether anybody is to stop: the same in all processes.

        Raises:
          RuntimeError: they do not have the same parameters any more.
        """
        done, caught = self.progress.generation, self.caught[0] if self.caught else 0
        pace = _AGREE_SECONDS * done / max(clock.training, 1e-9)
        mine = [clock.wall, clock.training, pace, caught, param_norm]
        every = processes.gather(np.array(mine))
        if not np.array_equal(every[:, 4], np.full(len(every), param_norm), equal_nan=True):
            raise RuntimeError(
                f"after {done} generations the processes have different parameters: must be "
                "machines of one kind, with the same versions of everything"
            )
        wall, training, pace = every[0, :3].tolist()
        caught = int(every[:, 3].max())
        if caught and not self.caught:
            self.caught.append(caught)
        self.agrees_at = done + max(1, int(pace)) if processes.count() > 1 else 0
        return Now(wall, training, bool(caught))

    def _evaluate(self, state: Any, now: float) -> Evaluation:
        """Evaluate the policy as it stands, after so many seconds of training."""
        weights = self.agent.snapshot(state).weights
        evaluation = self.evaluator(weights, episodes=self.schedule.eval_episodes)
        self.progress.note(evaluation, weights, now)
        return evaluation

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
        evaluation = progress.evaluation
        if evaluation is None or progress.evaluated_generation != progress.generation:
            evaluation = self._evaluate(state, progress.wall_seconds - progress.evaluation_seconds)
        assert progress.best_evaluation is not None
        last = self.agent.snapshot(state)
        policy = self._with_origin(last, progress.env_steps, progress.generation, evaluation)
        best = self._with_origin(
            replace(last, weights=progress.best_weights),
            progress.best_env_steps,
            progress.best_generation,
            progress.best_evaluation,
        )
        if self.run is not None:
            policy.save(self.run.folder / "policy")
            best.save(self.run.folder / "best")
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
            evaluation=evaluation,
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


def _advice(out: str | Path | None) -> str:
    return "the run is lost" if out is None else f"go on with: es-rl train --resume {out}"


def _config(agent: Agent, seed: int, schedule: Schedule) -> dict[str, Any]:
    """Everything needed to repeat a run, in JSON values."""
    return {
        "env": agent.env.spec.id,
        "env_kwargs": agent.env.spec.kwargs,
        "agent": agent.name,
        "settings": asdict(agent.config),
        "seed": seed,
        **asdict(schedule),
        "seconds": schedule.seconds if math.isfinite(schedule.seconds) else None,
        "versions": versions(),
        "git": git_state(),
        "device": f"{agent.mesh.size} x {agent.mesh.devices.flat[0].device_kind}",
    }


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
