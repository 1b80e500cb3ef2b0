"""The main loop of a run: step, evaluate, log and checkpoint every generation, then end the run."""

import math
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
"""The least seconds between two exchanges among processes, of the time and of signals to stop."""
OnGeneration: TypeAlias = Callable[[dict[str, Any], Callable[[], Policy]], None]
"""(metrics of a generation, a function that returns the policy as it is now). The metrics have also
"best_return": the mean return of the run's best evaluation so far, once there is one."""
OnProgress: TypeAlias = Callable[[str, int, int], None]
"""(what is played, "generation 3" or "evaluation"; number of its episodes that have ended; number
of its episodes)."""
SKIPPED_LIMIT = 10
"""Training ends with an error after this many skipped updates in a row."""


class Diverged(UserError):
    """Training has diverged: the last updates were all skipped, as their values were not finite."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a run."""

    policy: Policy
    """The mean policy after the last iteration, with its evaluation."""
    best: Policy
    """The policy with the best evaluation of the run; the later one of two equally good ones."""
    evaluation: Evaluation
    """The evaluation of `policy`."""
    generations: int
    """The number of generations of the whole run."""
    new_generations: int
    """The number of generations of this call; 0 if the resumed run had ended already."""
    env_steps: int
    """The number of environment steps of the whole run."""
    compile_seconds: float
    """Seconds before the first iteration."""
    wall_seconds: float
    """Seconds of training and evaluation, without compilation."""
    evaluation_seconds: float
    """The part of `wall_seconds` spent on evaluation, checkpoints, loggers and `on_generation`."""
    stopped_by: int | None = None
    """The number of the signal that ended the run early; None if no signal did."""
    out: Path | None = None
    """The run's folder."""
    checkpoint: Path | None = None
    """The last checkpoint in the run's folder."""


@dataclass
class Loop:
    """The main loop of a run, with the objects that all generations use."""

    agent: Agent
    """The agent that is trained."""
    config: RunConfig
    """The options of the run."""
    progress: Progress
    """The run's counts, times and best evaluation; it is updated in place."""
    evaluator: Evaluator
    """Evaluates the agent's policies."""
    run: RunFolder | None
    """The run's folder; None if nothing is saved."""
    loggers: Sequence[Logger]
    """The user's loggers."""
    on_generation: OnGeneration | None
    """Called after each generation with its metrics and a function that returns the policy."""
    on_progress: OnProgress | None
    """Called within long generations and evaluations."""
    caught: list[int]
    """The numbers of the signals received so far."""
    watchdog: Watchdog
    """Warns if the run hangs."""
    agrees_at: int = 0
    """The generation after which processes next agree on the time."""
    saved_at: int | None = None
    """The generation of the last checkpoint."""

    def play(self, state: Any, compile_seconds: float) -> TrainResult:
        """Train from a state to the end of the run."""
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
            # Returns of another environment say nothing about the target.
            promising = config.reached(metrics.get("return_mean", -math.inf))
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
        """Add an iteration to the progress, and return its metrics with the run's generation and
        env steps."""
        progress = self.progress
        progress.env_steps += stepped["env_steps"]
        generation = progress.generation
        progress.generation += 1
        progress.skipped = progress.skipped + 1 if stepped.get("update_skipped") else 0
        return {"generation": generation, **stepped, "env_steps": progress.env_steps}

    def _publish(self, state: Any, metrics: dict[str, Any]) -> None:
        """Pass the metrics of a generation to the user's loggers and `on_generation`.

        If one of them raises an exception, a checkpoint is written before the run ends.
        """
        try:
            for logger in self.loggers:
                logger.log(dict(metrics))
            if self.on_generation is not None:
                best = self.progress.best_evaluation
                told = metrics if best is None else {**metrics, "best_return": best.mean}
                self.on_generation(told, partial(self.agent.snapshot, state))
        except Exception:
            self._checkpoint(state)
            if self.run is not None:
                self.run.wait()  # `close` would not tell that it cannot be written
            raise

    def _step(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Run one iteration, and return its metrics as Python numbers, with the env steps per
        second.

        Raises:
          Abandoned: a signal was received; `state` is unchanged and valid.
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
        if self.agent.train_env is not None:
            metrics = _of_train_env(metrics)
        seconds = time.perf_counter() - began
        return state, {**metrics, "steps_per_second": metrics["env_steps"] / seconds}

    def _note(self, what: str, ended: int, total: int) -> None:
        """Report the progress within a generation or an evaluation."""
        self.watchdog.progress(f"{what}, {ended} of {total} episodes ended")
        if self.on_progress is not None:
            self.on_progress(what, ended, total)

    def _agree(self, clock: Clock, param_norm: float = 0.0) -> Now:
        """Agree among all processes on the time, and on whether to stop.

        Raises:
          RuntimeError: the processes have different parameters.
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
        """Evaluate the current policy; `now` is the seconds of training so far."""
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
        """Return the last evaluated policy and the best one, and save both in the run's folder, so
        that they can be replayed during the run or after it was killed."""
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
        """Evaluate and save the final policy, and return the result of the run."""
        progress = self.progress
        evaluation = progress.evaluation
        if evaluation is None or progress.evaluated_generation != progress.generation:
            evaluation = self._evaluate(state, progress.wall_seconds - progress.evaluation_seconds)
        assert progress.best_evaluation is not None
        policy, best = self._save_policies(self.agent.snapshot(state))
        if self.run is not None:
            self.run.save(best, "best")  # the folder of a resumed run may lack it
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


def _of_train_env(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics in which what episodes of training returned and reported is "train_env_return_mean",
    "train_env_success_rate" and so on, as those episodes were of another environment."""
    told = ("return_", "success_rate", "info_")
    return {f"train_env_{k}" if k.startswith(told) else k: v for k, v in metrics.items()}
