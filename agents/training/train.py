"""The one host loop: step, evaluate, log, checkpoint, save."""

import math
import operator
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax

from agents.base import Agent
from agents.policies.functions import described
from agents.policies.policy import Policy, check_savable
from agents.training.evaluation import Evaluator
from agents.training.loop import Loop, OnGeneration, OnProgress, TrainResult
from agents.training.provenance import git_state, versions
from agents.training.repetition import check_repeats
from agents.training.run_folder import RunFolder
from agents.training.schedule import Progress, Schedule
from agents.training.watchdog import Watchdog
from envs.base import HostEnv
from envs.errors import UserError
from envs.precision import in_32_bits
from es_rl import checkpoints, devices, processes
from es_rl.checkpoints import Restored


@in_32_bits
def train(
    agent: Agent,
    *,
    env_steps: int,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    initial: Policy | None = None,
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
    on_progress: OnProgress | None = None,
) -> TrainResult:
    """Train until a budget is spent or an evaluation reaches the target.

    SIGINT and SIGTERM end the run; a checkpoint and the policy are saved all the same. A generation
    of evolution that is under way is given up, as the checkpoint is of the state before it; other
    iterations are ended first. A run that was stopped, or killed, and resumed with the same
    arguments ends with the same bits as one that was not, where no budget or interval is in
    seconds.

    Where there are several processes (`es_rl.processes`) all of them call this alike. Process 0
    alone writes, calls `on_generation`, and says what time it is.

    Args:
      agent: what to train, on its environment.
      env_steps: budget: the last generation is the one in which it is reached.
      seed: of the initial parameters, the noise and the training episodes.
      out: the run's folder, which must be empty or absent; None writes nothing.
      resume: go on from the latest checkpoint in `out`, or from the start where there is none.
      initial: a saved policy, of any agent with such a network, to start from in place of random
        parameters; a run that is resumed must be given it again.
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
      on_progress: called about twice a second within long generations and evaluations, with what is
        played ("generation 3" or "evaluation"), how many of its episodes have ended, and how many
        there are.

    Raises:
      UserError: an argument is out of range, the folder holds something already, or it is not
        that of a run like this one.
      Diverged: update after update was not finite; the best policy so far is saved.
      UserError: the folder cannot be written any more.
      RuntimeError: the environment does not work.
    """
    seed = operator.index(seed)  # a NumPy integer cannot be saved
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
        if initial is not None:
            state = agent.with_policy(state, initial)
        policy = agent.snapshot(state)
        origin = {"seed": seed, "env_steps": 0, "generations": 0}
        check_savable(replace(policy, training=origin), episodes=schedule.eval_episodes)
        evaluate = evaluator or Evaluator(agent.env, policy.actor, agent.mesh, agent.lanes)
        progress = Progress(best_weights=policy.weights)
        keeps = schedule.keep if schedule.has_checkpoints and agent.resumable else None
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
            on_progress = None
        watchdog = stack.enter_context(Watchdog(_still_advice(agent)))
        loop = Loop(
            agent, seed, schedule, progress, evaluate, run, on_generation, on_progress, caught,
            watchdog, saved_at=progress.generation if found is not None else None,
        )  # fmt: skip
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


def _advice(out: str | Path | None) -> str:
    return "the run is lost" if out is None else f"go on with: es-rl train --resume {out}"


def _still_advice(agent: Agent) -> str:
    """What to try where a run stands still."""
    if agent.lanes is not None:
        return "an environment on the host may wait for something: try --workers 1 --lanes 1"
    return "programs on several devices of a CPU may wait for each other: try --devices 1"


def _config(agent: Agent, seed: int, schedule: Schedule) -> dict[str, Any]:
    """Everything needed to repeat a run, in JSON values."""
    return {
        "env": agent.env.spec.id,
        "env_kwargs": agent.env.spec.kwargs,
        "agent": agent.name,
        "settings": {
            **asdict(agent.config),
            **{name: described(value) for name, value in agent.objects.items()},
        },
        "seed": seed,
        **asdict(schedule),
        "seconds": schedule.seconds if math.isfinite(schedule.seconds) else None,
        "versions": versions(),
        "git": git_state(),
        "device": f"{agent.mesh.size} x {agent.mesh.devices.flat[0].device_kind}",
    }


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
