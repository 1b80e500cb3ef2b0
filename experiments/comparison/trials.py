"""The runs of a comparison: one agent on one task, seed after seed, each kept once it is done."""

import json
import math
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import jax
import numpy as np

import agents
from agents.base import Agent
from agents.policies.policy import Policy
from agents.policies.policy_files import read_description
from agents.registry import preset
from agents.settings import expected
from agents.training.evaluation import Evaluator
from envs.base import Env, HostEnv
from envs.errors import RemoteTraceback, UserError, one_line
from envs.host.worker import fault_of
from es_rl.files import write_whole
from experiments.comparison.results import Point, Run, Task, run_from_json
from experiments.comparison.suites import Contestant

_MOST_COUNT = 2**62
"""Of env steps."""
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
    agent: Contestant
    settings: dict[str, Any]
    """The agent's whole configuration on this task."""
    root: Path
    """The comparison's folder."""
    folder: Path
    """Of these runs."""
    _made: tuple[Agent, Evaluator] | None = field(default=None, init=False)
    _opened: ExitStack = field(default_factory=ExitStack, init=False)

    def runs(self, seeds: int) -> Iterator[Run]:
        """Those of seeds 0 ... seeds-1: kept ones as they are, the others as they end.

        Raises:
          Stopped: SIGINT or SIGTERM came; the run at hand is not kept.
        """
        with self._opened:
            for seed in range(seeds):
                yield self._kept(seed) or self._attempt(seed)

    def _kept(self, seed: int) -> Run | None:
        path = self._path(seed) / "run.json"
        if not path.exists():
            return None
        try:
            run = run_from_json(read_description(path))
            self._check(run, seed)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            reason = one_line(f"{error}" or type(error).__name__)
            raise UserError(
                f"out={self.root}: {path.parent} holds no run of this comparison ({reason}): must "
                "be removed, or another folder"
            ) from error
        if run.settings != json.loads(json.dumps(self.settings)):
            raise UserError(
                f"out={self.root}: {path.parent} was trained with other settings: must be another "
                "folder"
            )
        return run

    def _check(self, run: Run, seed: int) -> None:
        """Refuse a kept run that cannot be one of these: a stranger may have written it.

        Raises:
          UserError: it is another one.
        """
        for name, kind in get_type_hints(Run).items():
            wanted = expected(getattr(run, name), kind, largest=_MOST_COUNT)
            if wanted is not None:
                raise UserError(f"{name} must be {wanted}")
        wanted_values = {
            "task": self.task.name,
            "agent": self.agent.name,
            "kind": self.agent.kind,
            "seed": seed,
            "error": None,
            "source": preset(self.agent.kind, self.task.env).source,
            "policy": self._policy_of(seed),
        }
        for name, value in wanted_values.items():
            if getattr(run, name) != value:
                raise UserError(f"{name} must be {value!r}")
        if len(run.returns) != _FINAL_EPISODES:
            raise UserError(f"{len(run.returns)} returns: must be {_FINAL_EPISODES}")
        if any(type(x) is not float for x in run.returns):
            raise UserError("returns must be numbers with a decimal point")
        for steps, seconds, mean in run.curve:
            if type(steps) is not int or type(seconds) is not float or type(mean) is not float:
                raise UserError("curve must be of [env steps, seconds, mean return]")
        spent = (number for point in run.curve for number in point[:2])
        numbers = (run.env_steps, run.seconds, run.compile_seconds, run.evaluation_seconds)
        if min((*numbers, run.devices - 1, *spent)) < 0:
            raise UserError("counts and seconds must be at least 0, and devices at least 1")

    def _policy_of(self, seed: int) -> str:
        return str((self._path(seed) / "policy").relative_to(self.root))

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
            return Run(self.task.name, self.agent.name, seed, reason)
        # JSON has no NaN: the mean of an evaluation that is not finite is null.
        curve = [p if math.isfinite(p.return_mean) else (*p[:2], None) for p in run.curve]
        text = json.dumps({**asdict(run), "curve": curve}, indent=1, allow_nan=False) + "\n"
        write_whole(self._path(seed) / "run.json", text.encode())
        return run

    def _train(self, seed: int) -> Run:
        task, path = self.task, self._path(seed)
        if self._made is None:
            made = agents.make(self.agent.kind, self.env, **self.settings)
            agent = self._opened.enter_context(made)
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
            task=task.name,
            agent=self.agent.name,
            kind=self.agent.kind,
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
            source=preset(self.agent.kind, task.env).source,
            policy=self._policy_of(seed),
        )

    def _path(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"


def _place(error: Exception) -> str:
    """Where an exception comes from, unless its message says so."""
    if isinstance(error.__cause__, RemoteTraceback):
        return ""
    return f" ({fault_of(error).place})"


def make_evaluator(agent: Agent) -> Evaluator:
    """An evaluator of the agent's policies, on what the agent itself uses."""
    policy = agent.snapshot(agent.init(jax.random.key(0)))
    return Evaluator(agent.env, policy.actor, agent.stage)


def final_returns(evaluator: Evaluator, policy: Policy) -> np.ndarray:
    """(128,) returns on episodes that no evaluation during training has played."""
    return evaluator(policy.weights, episodes=_FINAL_EPISODES, seed=_FINAL_SEED).returns
