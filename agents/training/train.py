"""A run from its start to its end: it is configured, compiled, restored and trained.

SIGINT and SIGTERM end a run; a checkpoint and the policy are saved all the same. A generation of
evolution that is under way is given up, as the checkpoint is of the state before it; other
iterations are ended first. A run that was stopped, or killed, and resumed ends with the same bits
as one that was not, where no budget or interval is in seconds.

Where there are several processes (`es_rl.processes`) all of them call `train` alike. Process 0
alone writes, calls `on_generation` and the loggers, and says what time it is.
"""

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from agents.base import Agent
from agents.object_settings import made_void
from agents.policies.functions import described
from agents.policies.policy import Policy, check_savable
from agents.policies.spaces import random_actions
from agents.settings import may_change
from agents.training.evaluation import Evaluator
from agents.training.loggers import Logger
from agents.training.loop import Loop, OnGeneration, OnProgress, TrainResult
from agents.training.progress import Progress
from agents.training.provenance import git_state, versions
from agents.training.run_config import RunConfig
from agents.training.run_folder import RunFolder, check_new, read_config
from agents.training.watchdog import Watchdog
from envs.errors import UserError
from envs.precision import in_32_bits
from es_rl import checkpoints, devices, processes
from es_rl.checkpoints import Restored

_CHECKED_STEPS = 200
"""The most steps of the episode that shows whether an environment is deterministic."""


@in_32_bits
def train(
    agent: Agent,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    initial: Policy | None = None,
    loggers: Sequence[Logger] = (),
    evaluator: Evaluator | None = None,
    on_generation: OnGeneration | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> TrainResult:
    """Train until a budget is spent or an evaluation reaches the target.

    Args:
      agent: what to train, on its environment.
      out: the run's folder, which must be empty or absent; None writes nothing.
      resume: go on from the latest checkpoint in `out`, or from the start where there is none.
      initial: a saved policy, of any agent with such a network, to start from in place of random
        parameters. A run that is resumed needs it again only where it has no checkpoint yet.
      loggers: are told the metrics of each generation, and closed at the end.
      evaluator: of the agent's policies; several runs of an agent may share what it compiled.
      on_generation: see `OnGeneration`; called after each generation.
      on_progress: see `OnProgress`; called about twice a second within long generations and
        evaluations.
      **options: fields of `RunConfig`, such as `env_steps`, `seed` and `target_return`. Those that
        are not given have their defaults, and with `resume` the values of the run.

    Raises:
      UserError: an option is unknown or out of range, the folder holds something already, it is
        not that of a run like this one, or it cannot be written any more.
      Diverged: update after update was not finite; the best policy so far is saved.
      RuntimeError: the environment does not work.
      Exception: what a logger or `on_generation` has raised, after a checkpoint.
    """
    with ExitStack() as stack:
        for logger in loggers:
            stack.callback(logger.close)
        _check(agent, out, resume)
        caught = stack.enter_context(_deferred_signals())
        stack.enter_context(processes.watched(_advice(out)))
        config = _configure(agent, out if resume else None, options)
        started = time.perf_counter()
        state = agent.init(jax.random.key(config.seed))
        if initial is not None:
            state = agent.with_policy(state, initial)
        run = stack.enter_context(_opened_folder(agent, config, initial, out, resume))
        ready = _prepare(agent, config, run, evaluator, state)
        watchdog = stack.enter_context(Watchdog(agent.train_stage.advice))
        told = (loggers, on_generation, on_progress) if processes.is_main() else ((), None, None)
        loop = Loop(
            agent, config, ready.progress, ready.evaluator, run, *told, caught, watchdog,
            saved_at=ready.saved_at,
        )  # fmt: skip
        return loop.play(ready.state, time.perf_counter() - started)


def _configure(agent: Agent, resumed: str | Path | None, options: Mapping[str, Any]) -> RunConfig:
    """The run's configuration: of these options, and of the run that goes on.

    Raises:
      UserError: an option is unknown, out of range, or must stay as it was.
    """
    if resumed is not None:
        saved = processes.on_main(lambda: asdict(read_config(resumed).options))
        config = RunConfig(**processes.broadcast_json(saved)).going_on(options)
    else:
        config = RunConfig.of(options)
    if config.eval_episodes is None:
        config = replace(config, eval_episodes=agent.stage.default_episodes)
    if config.num_eval_episodes < agent.stage.min_jobs:
        raise UserError(
            f"eval_episodes={config.eval_episodes}: must be at least {agent.stage.min_jobs}, the "
            "number of processes"
        )
    return config


@contextmanager
def _opened_folder(
    agent: Agent, config: RunConfig, initial: Policy | None, out: str | Path | None, resume: bool
) -> Iterator[RunFolder | None]:
    """The run's folder, closed at the end; None where `out` is, and in processes other than 0."""
    if out is None:
        yield None
        return
    values = {**_config(agent, config), "initial": None if initial is None else initial.digest}
    changeable = may_change(agent.config)
    run = processes.on_main(
        lambda: RunFolder(out, config=values, resume=resume, may_change=changeable)
    )
    try:
        yield run
    finally:
        if run is not None:
            run.close()


class _Ready(NamedTuple):
    """What the generations start from, everything being compiled."""

    state: Any
    progress: Progress
    evaluator: Evaluator
    saved_at: int | None
    """The generation of the checkpoint that was read, if one was."""


def _prepare(
    agent: Agent,
    config: RunConfig,
    run: RunFolder | None,
    evaluator: Evaluator | None,
    state: Any,
) -> _Ready:
    """Compile what a run needs, and read its checkpoint, all at once."""
    policy = agent.snapshot(state)
    origin = {"seed": config.seed, "env_steps": 0, "generations": 0}
    episodes = config.num_eval_episodes
    check_savable(replace(policy, training=origin), episodes=episodes)
    evaluate = evaluator or Evaluator(agent.env, policy.actor, agent.stage)
    keeps = config.keep if config.has_checkpoints and agent.resumable else None
    like = (state, policy.weights)
    stages = dict.fromkeys((agent.stage, agent.train_stage))
    tried = random_actions(agent.env.spec.action_space, _CHECKED_STEPS)
    restored = devices.all_at_once(
        *(partial(stage.check_repeats, tried) for stage in stages),
        lambda: agent.compile(state),
        lambda: evaluate.compile(policy.weights, episodes=episodes),
        lambda: processes.on_main(lambda: run.open(keeps, like) if run is not None else None),
    )[-1]
    found = _from_checkpoint(restored, like)
    if found is None:
        return _Ready(state, Progress(best_weights=policy.weights), evaluate, None)
    state, progress = found
    return _Ready(state, progress, evaluate, progress.generation)


def _check(agent: Agent, out: str | Path | None, resume: bool) -> None:
    """Refuse to resume what cannot be resumed, or to write into a folder of something else."""
    if resume and out is None:
        raise UserError("out=None: must be the folder of a run to resume it")
    if out is not None and not resume:
        processes.on_main(lambda: check_new(out))
    if resume and not agent.resumable:
        raise UserError(f"agent={agent.name}: cannot go on with a run: must be another agent")


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


def _config(agent: Agent, config: RunConfig) -> dict[str, Any]:
    """Everything needed to repeat a run, in JSON values.

    Settings that an object of the user's makes void are left out.
    """
    mesh, void = agent.train_stage.mesh, made_void(agent.objects)
    train_spec = None if agent.train_env is None else agent.train_env.spec
    return {
        "env": agent.env.spec.id,
        "env_kwargs": agent.env.spec.kwargs,
        "train_env": train_spec and train_spec.id,
        "train_env_kwargs": train_spec and train_spec.kwargs,
        "agent": agent.name,
        "settings": {
            **{name: value for name, value in asdict(agent.config).items() if name not in void},
            **{name: described(value) for name, value in agent.objects.items()},
        },
        **asdict(config),
        "versions": versions(),
        "git": git_state(),
        "device": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
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
