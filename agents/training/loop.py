"""The generations of a run, one after another: step, evaluate, log, checkpoint; and its end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from agents.base import Agent
from agents.policies.policy import Policy
from agents.training.evaluation import Evaluation, Evaluator
from agents.training.loggers import Logger
from agents.training.progress import Abandoned, Clock, Now, Progress
from agents.training.run_config import RunConfig
from agents.training.run_folder import RunFolder
from agents.training.watchdog import Watchdog
from envs.errors import UserError
from es_rl import processes

_AGREE_SECONDS = 0.2
"""The least time between two exchanges of the time, and of whether to stop, among processes."""
OnGeneration: TypeAlias = Callable[[dict[str, Any], Callable[[], Policy]], None]
OnProgress: TypeAlias = Callable[[str, int, int], None]
SKIPPED_LIMIT = 10
"""Training is given up after so many skipped updates in a row."""


class Diverged(UserError):
    """No update could be made any more: the numbers are not finite."""


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with."""

    policy: Policy
    """The mean policy after the last iteration, with its evaluation."""
    best: Policy
    """The policy with the best evaluation of the run; where two are as good, the later one."""
    evaluation: Evaluation
    """The evaluation of `policy`."""
    generations: int
    """The number of generations of the whole run."""
    new_generations: int
    """The number of generations that this call made: none where a run that is resumed had ended."""
    env_steps: int
    """The number of environment steps of the whole run."""
    compile_seconds: float
    """Seconds before the first iteration."""
    wall_seconds: float
    """Seconds of training and evaluation, without compilation."""
    evaluation_seconds: float
    """The part of `wall_seconds` that was evaluation, checkpoints, loggers and `on_generation`."""
    stopped_by: int | None = None
    """The signal that ended the run before its time, if one did."""
    out: Path | None = None
    """The run's folder."""
    checkpoint: Path | None = None
    """The last checkpoint in the run's folder."""


@dataclass
class Loop:
    """What the generations of a run have in common."""

    agent: Agent
    config: RunConfig
    progress: Progress
    evaluator: Evaluator
    run: RunFolder | None
    loggers: Sequence[Logger]
    on_generation: OnGeneration | None
    on_progress: OnProgress | None
    caught: list[int]
    """The signals that have come so far."""
    watchdog: Watchdog
    agrees_at: int = 0
    """The generation after which processes agree on the time again."""
    saved_at: int | None = None
    """The generation of the last checkpoint."""

    def play(self, state: Any, compile_seconds: float) -> TrainResult:
        """From a state to the end."""
        progress, config = self.progress, self.config
        clock = Clock(progress.wall_seconds, progress.evaluation_seconds)
        now = self._agree(clock)
        saved, first = now.wall, progress.generation
        over = config.over(progress, now.training) or now.stop
        over |= progress.evaluation is not None and config.reached(progress.evaluation.mean)
        while not over:
            try:
                state, stepped = self._step(state)
            except Abandoned:
                self._checkpoint(state)
                break
            metrics = self._count(stepped)
            if progress.generation >= self.agrees_at:
                now = self._agree(clock, metrics.get("param_norm", 0.0))
            over = config.over(progress, now.training) or progress.skipped >= SKIPPED_LIMIT
            over |= now.stop
            promising = config.reached(metrics["return_mean"])
            if over or promising or config.evaluates(progress, now.training):
                with clock.paused():
                    evaluation = self._evaluate(state, now.training)
                now = self._agree(clock)
                over |= config.reached(evaluation.mean) or now.stop
                metrics |= {
                    "eval_return_mean": evaluation.mean,
                    "eval_return_std": evaluation.std,
                    "eval_episodes": config.num_eval_episodes,
                }
                metrics |= {f"eval_{k}": mean for k, mean in evaluation.info_means.items()}
            progress.wall_seconds, progress.evaluation_seconds = clock.wall, clock.aside
            metrics |= {
                "wall_seconds": progress.wall_seconds,
                "evaluation_seconds": progress.evaluation_seconds,
            }
            if self.run is not None:
                self.run.log(metrics)
            with clock.paused():
                self._publish(state, metrics)
                if over or config.saves(progress, now.wall - saved):
                    saved = now.wall
                    self._checkpoint(state)
        return self._end(state, compile_seconds, progress.generation - first)

    def _count(self, stepped: dict[str, Any]) -> dict[str, Any]:
        """Add an iteration to the progress; its metrics, with the run's generation and steps."""
        progress = self.progress
        progress.env_steps += stepped["env_steps"]
        generation = progress.generation
        progress.generation += 1
        progress.skipped = progress.skipped + 1 if stepped.get("update_skipped") else 0
        return {"generation": generation, **stepped, "env_steps": progress.env_steps}

    def _publish(self, state: Any, metrics: dict[str, Any]) -> None:
        """Tell the user's loggers and `on_generation` of a generation.

        An exception of theirs ends the run, but loses none of it: there is a checkpoint first.
        """
        try:
            for logger in self.loggers:
                logger.log(dict(metrics))
            if self.on_generation is not None:
                self.on_generation(metrics, partial(self.agent.snapshot, state))
        except Exception:
            self._checkpoint(state)
            raise

    def _step(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """One iteration, its metrics on the host and with their env steps per second.

        Raises:
          Abandoned: a signal came; the state is as it was.
        """
        what = f"generation {self.progress.generation}"

        def notify(ended: int, total: int) -> None:
            self._note(what, ended, total)
            if self.caught and processes.count() == 1:
                raise Abandoned

        began = time.perf_counter()
        self.watchdog.progress(what)
        state, metrics = self.agent.step(state, notify)
        metrics = {name: np.asarray(x).item() for name, x in jax.device_get(metrics).items()}
        seconds = time.perf_counter() - began
        return state, {**metrics, "steps_per_second": metrics["env_steps"] / seconds}

    def _note(self, what: str, ended: int, total: int) -> None:
        """Say how far a generation or an evaluation is."""
        self.watchdog.progress(f"{what}, {ended} of {total} episodes ended")
        if self.on_progress is not None:
            self.on_progress(what, ended, total)

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
        policy = self.agent.snapshot(state)
        self.watchdog.progress("evaluation")
        evaluation = self.evaluator(
            policy.weights,
            episodes=self.config.num_eval_episodes,
            notify=partial(self._note, "evaluation"),
        )
        self.progress.note(evaluation, policy.weights, now)
        self._save_policies(policy)
        return evaluation

    def _save_policies(self, last: Policy) -> tuple[Policy, Policy]:
        """The last policy that was evaluated, and the best; in the run's folder too, so that a run
        can be replayed while it goes on, or after it was killed."""
        progress = self.progress
        assert progress.evaluation is not None
        assert progress.best_evaluation is not None
        policy = self._with_origin(
            last, progress.env_steps, progress.generation, progress.evaluation
        )
        best = self._with_origin(
            replace(last, weights=progress.best_weights),
            progress.best_env_steps,
            progress.best_generation,
            progress.best_evaluation,
        )
        if self.run is not None:
            self.run.save(policy, "policy")
            if progress.best_generation == progress.generation:
                self.run.save(best, "best")
        return policy, best

    def _checkpoint(self, state: Any) -> None:
        if self.run is not None and self.saved_at != self.progress.generation:
            self.saved_at = self.progress.generation
            self.run.checkpoint(
                self.progress.generation,
                (state, self.progress.best_weights),
                self.progress.to_json(),
            )

    def _end(self, state: Any, compile_seconds: float, new_generations: int) -> TrainResult:
        """Save what is left to save, and say how it went."""
        progress = self.progress
        evaluation = progress.evaluation
        if evaluation is None or progress.evaluated_generation != progress.generation:
            evaluation = self._evaluate(state, progress.wall_seconds - progress.evaluation_seconds)
        assert progress.best_evaluation is not None
        policy, best = self._save_policies(self.agent.snapshot(state))
        if self.run is not None:
            self.run.save(best, "best")  # one that was resumed may lack it
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
            new_generations=new_generations,
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
        origin = {"seed": self.config.seed, "env_steps": env_steps, "generations": generations}
        return replace(policy, training=origin, evaluation=evaluation.to_json())
