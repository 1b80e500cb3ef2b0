"""The runs of a comparison: one agent on one task, seed after seed, each kept once it is done."""

import json
import shutil
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

import agents
from agents.base import Agent
from agents.evaluation import Evaluator
from agents.policy import Policy
from agents.presets import preset
from agents.registry import configure
from envs.base import Env, HostEnv
from envs.errors import RemoteTraceback, UserError
from envs.worker import fault_of
from experiments.comparison.results import Point, Run, Task, run_from_json

_FINAL_SEED, _FINAL_EPISODES = 1, 128
"""Of the evaluation that is reported; those during training are of seed 0."""


class Stopped(Exception):
    """A signal ended a run before its time."""

    def __init__(self, signal: int):
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


@dataclass
class Trials:
    """Trains an agent on a task from several seeds; what is compiled serves all of them."""

    task: Task
    env: Env | HostEnv
    agent: str
    settings: dict[str, Any]
    """Those of its configuration."""
    root: Path
    """The comparison's folder."""
    folder: Path
    """Of these runs."""
    _made: tuple[Agent, Evaluator] | None = field(default=None, init=False)

    def runs(self, seeds: int) -> Iterator[Run]:
        """Those of seeds 0 ... seeds-1: kept ones as they are, the others as they end.

        Raises:
          Stopped: SIGINT or SIGTERM came; the run at hand is not kept.
        """
        try:
            for seed in range(seeds):
                yield self._kept(seed) or self._attempt(seed)
        finally:
            if self._made is not None:
                close(self._made[0])

    def _kept(self, seed: int) -> Run | None:
        path = self._path(seed) / "run.json"
        if not path.exists():
            return None
        run = run_from_json(json.loads(path.read_text()))
        if run.settings != json.loads(json.dumps(self.settings)):
            raise UserError(
                f"out={self.root}: {path.parent} was trained with other settings: must be another "
                "folder"
            )
        return run

    def _attempt(self, seed: int) -> Run:
        """Train; a run that fails must not stop the others."""
        try:
            run = self._train(seed)
        except Stopped:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            if not isinstance(error, UserError):
                reason += _place(error)
                traceback.print_exception(error, file=sys.stderr)
            return Run(self.task.env, self.agent, seed, reason)
        partial = self._path(seed) / "run.json.partial"
        partial.write_text(json.dumps(asdict(run), indent=1) + "\n")
        partial.replace(partial.with_suffix(""))
        return run

    def _train(self, seed: int) -> Run:
        task, path = self.task, self._path(seed)
        if self._made is None:
            agent = agents.make(self.agent, self.env, **self.settings)
            self._made = agent, make_evaluator(agent)
        agent, evaluator = self._made
        shutil.rmtree(path, ignore_errors=True)  # what an interrupted run left
        curve: list[Point] = []

        def note(metrics: dict[str, Any], _: Any) -> None:
            if "eval_return_mean" in metrics:
                seconds = metrics["wall_seconds"] - metrics["evaluation_seconds"]
                curve.append(Point(metrics["env_steps"], seconds, metrics["eval_return_mean"]))

        result = agents.train(
            agent,
            env_steps=task.env_steps,
            seconds=task.seconds,
            seed=seed,
            out=path,
            target_return=task.threshold if task.stop_when_solved else None,
            eval_seconds=task.seconds / task.evaluations,
            eval_episodes=task.evaluation_episodes,
            checkpoint_seconds=None,  # an interrupted run is made again from its start
            evaluator=evaluator,
            on_generation=note,
        )
        if result.stopped_by is not None:
            raise Stopped(result.stopped_by)
        returns = final_returns(evaluator, result.policy)
        if not np.isfinite(returns).all():
            raise RuntimeError("returns of the final evaluation are not finite")
        return Run(
            env=task.env,
            agent=self.agent,
            seed=seed,
            error=None,
            returns=tuple(returns.tolist()),
            env_steps=result.env_steps,
            seconds=result.wall_seconds - result.evaluation_seconds,
            compile_seconds=result.compile_seconds,
            evaluation_seconds=result.evaluation_seconds,
            devices=jax.device_count(),
            curve=tuple(curve),
            settings=self.settings,
            source=preset(self.agent, task.env).source,
            policy=str((path / "policy").relative_to(self.root)),
        )

    def _path(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"


def _place(error: Exception) -> str:
    """Where an exception comes from, unless its message says so."""
    if isinstance(error.__cause__, RemoteTraceback):
        return ""
    return f" ({fault_of(error).place})"


def settings_of(agent: str, env_id: str, given: dict[str, Any]) -> dict[str, Any]:
    """An agent's whole configuration on an environment: its preset but for what is given.

    Raises:
      UserError: a value is out of range.
    """
    return asdict(configure(agent, env_id, **given))


def make_evaluator(agent: Agent) -> Evaluator:
    """An evaluator of the agent's policies, on what the agent itself uses."""
    policy = agent.snapshot(agent.init(jax.random.key(0)))
    return Evaluator(agent.env, policy.actor, agent.mesh, agent.lanes)


def final_returns(evaluator: Evaluator, policy: Policy) -> np.ndarray:
    """(128,) returns on episodes that no evaluation during training has played."""
    return evaluator(policy.weights, episodes=_FINAL_EPISODES, seed=_FINAL_SEED).returns


def close(agent: Agent) -> None:
    """End the workers of an agent on the host."""
    if agent.lanes is not None:
        agent.lanes.close()
