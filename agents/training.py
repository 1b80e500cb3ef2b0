"""The one host loop: step, evaluate, log, save."""

import json
import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from agents.base import Agent
from agents.evaluation import Evaluation, Evaluator
from agents.policy import Policy
from envs.base import HostEnv
from es_rl import devices

OnGeneration: TypeAlias = Callable[[dict[str, Any], Callable[[], Policy]], None]
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "gymnasium", "numpy")


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with."""

    policy: Policy
    """The mean policy after the last iteration, with its evaluation."""
    evaluation: Evaluation
    """Of that policy."""
    generations: int
    env_steps: int
    compile_seconds: float
    """Spent before the first iteration."""
    wall_seconds: float
    """Of training and evaluation, without that."""
    evaluation_seconds: float
    """Of these, what was not training: evaluation and `on_generation`."""
    stopped_by: int | None = None
    """The signal that ended the run before its time, if one did."""
    out: Path | None = None
    """The run's folder."""


def train(
    agent: Agent,
    *,
    env_steps: int,
    seed: int = 0,
    out: str | Path | None = None,
    seconds: float = math.inf,
    target_return: float | None = None,
    eval_every: int = 10,
    eval_seconds: float | None = None,
    eval_episodes: int | None = None,
    evaluator: Evaluator | None = None,
    on_generation: OnGeneration | None = None,
) -> TrainResult:
    """Train until a budget is spent or an evaluation reaches the target.

    SIGINT and SIGTERM end the run after the generation at hand; the policy is saved all the same.

    Args:
      agent: what to train, on its environment.
      env_steps: budget: the last generation is the one in which it is reached.
      seed: of the initial parameters, the noise and the training episodes.
      out: the run's folder, which must be empty or absent; None writes nothing.
      seconds: budget of training, without compilation and evaluation.
      target_return: stop as soon as the mean policy's evaluation return reaches it.
      eval_every: generations between evaluations; the last one is always evaluated. When a
        target is given, a generation whose members reach it on average is evaluated too.
      eval_seconds: evaluate instead when so much time was spent on training since the last one.
      eval_episodes: episodes of an evaluation; 128, or 32 on the host, unless given.
      evaluator: of the agent's policies; several runs of an agent may share what it compiled.
      on_generation: called after each generation with its metrics, and with a function that
        gives the policy as it stands.

    Raises:
      ValueError: an argument is out of range, or the folder holds something already.
    """
    _check_at_least_1(env_steps=env_steps, eval_every=eval_every, eval_episodes=eval_episodes)
    if not seconds > 0:
        raise ValueError(f"seconds={seconds}: must be greater than 0")
    folder = _empty_folder(out)
    episodes = eval_episodes or (32 if isinstance(agent.env, HostEnv) else 128)

    with ExitStack() as stack:
        caught = stack.enter_context(_deferred_signals())
        run = stack.enter_context(_RunFolder(folder)) if folder is not None else None
        if run is not None:
            run.write_config(
                agent,
                env_steps=env_steps,
                seconds=seconds if math.isfinite(seconds) else None,
                seed=seed,
                target_return=target_return,
            )
        started = time.perf_counter()
        state = agent.init(jax.random.key(seed))
        policy = agent.snapshot(state)
        evaluate = evaluator or Evaluator(agent.env, policy.actor, agent.mesh, agent.lanes)
        devices.all_at_once(
            lambda: agent.compile(state),
            lambda: evaluate.compile(policy.weights, episodes=episodes),
        )
        clock = _Clock()
        spent, generation, evaluated, over = 0, 0, -math.inf, False
        while not over:
            state, metrics = _timed_step(agent, state)
            spent += metrics["env_steps"]
            metrics = {"generation": generation, **metrics, "env_steps": spent}
            now = clock.training
            over = spent >= env_steps or now >= seconds or bool(caught)
            due = (
                generation % eval_every == 0
                if eval_seconds is None
                else now - evaluated >= eval_seconds
            )
            promising = target_return is not None and metrics["return_mean"] >= target_return
            if over or promising or due:
                with clock.paused():
                    policy = agent.snapshot(state)
                    evaluation = evaluate(policy.weights, episodes=episodes)
                evaluated = now
                over = over or (target_return is not None and evaluation.mean >= target_return)
                over = over or bool(caught)
                metrics |= {
                    "eval_return_mean": evaluation.mean,
                    "eval_return_std": evaluation.std,
                    "eval_episodes": episodes,
                }
            metrics |= {"wall_seconds": clock.wall, "evaluation_seconds": clock.aside}
            generation += 1
            if run is not None:
                run.log(metrics)
            if on_generation is not None:
                with clock.paused():
                    on_generation(metrics, partial(agent.snapshot, state))
        policy = replace(
            policy,
            training={"seed": seed, "env_steps": spent, "generations": generation},
            evaluation=evaluation.to_json(),
        )
        if folder is not None:
            policy.save(folder / "policy")
    return TrainResult(
        policy=policy,
        evaluation=evaluation,
        generations=generation,
        env_steps=spent,
        compile_seconds=clock.began - started,
        wall_seconds=metrics["wall_seconds"],
        evaluation_seconds=metrics["evaluation_seconds"],
        stopped_by=caught[0] if caught else None,
        out=folder,
    )


def _empty_folder(out: str | Path | None) -> Path | None:
    folder = Path(out) if out is not None else None
    if folder is not None and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        raise ValueError(f"out={str(folder)!r}: must be an empty or a new folder")
    return folder


class _Clock:
    """Seconds since it was made, and how many of them were not spent on training."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.aside = 0.0

    @property
    def wall(self) -> float:
        return time.perf_counter() - self.began

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


class _RunFolder:
    """The files that a run leaves behind, apart from the policy."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __enter__(self) -> "_RunFolder":
        from tensorboardX import SummaryWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        self._metrics = (self._folder / "metrics.jsonl").open("w", buffering=1)
        self._board = SummaryWriter(str(self._folder / "tensorboard"))
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._board.close()

    def write_config(self, agent: Agent, **run: Any) -> None:
        """Everything needed to repeat the run."""
        config = {
            "env": agent.env.spec.id,
            "env_kwargs": agent.env.spec.kwargs,
            "agent": agent.name,
            "settings": asdict(agent.config),
            **run,
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in _LIBRARIES},
            "device": f"{agent.mesh.size} x {agent.mesh.devices.flat[0].device_kind}",
        }
        text = json.dumps(config, indent=1) + "\n"
        (self._folder / "config.json").write_text(text)

    def log(self, metrics: dict[str, Any]) -> None:
        """One generation: a line of metrics.jsonl, and the same to TensorBoard."""
        # JSON has no NaN: what is not finite is null.
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._metrics.write(json.dumps(finite) + "\n")
        for name, value in finite.items():
            if value is not None and name not in ("generation", "env_steps"):
                self._board.add_scalar(name, value, metrics["env_steps"])
