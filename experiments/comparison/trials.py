"""The runs of one agent on one task of a comparison, seed by seed; each is saved when it ends."""

import json
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import jax
import numpy as np

import agents
from agents.base import Agent
from agents.policies.policy import Policy
from agents.policies.policy_files import read_description
from agents.registry import config_type
from agents.settings import expected
from agents.training.evaluation import Evaluator
from agents.training.run_config import RunConfig
from envs.base import Env, HostEnv
from envs.errors import RemoteTraceback, UserError, one_line
from envs.host.worker import fault_of
from es_rl.files import locked, write_whole
from experiments.comparison.results import Point, Run, Task, run_from_json, run_text
from experiments.comparison.suites import Contestant
from experiments.progress import shown_progress
from experiments.startup import machine

_MOST_COUNT = 2**62
"""The largest number of env steps in a file."""
FINAL_SEED = 1
"""The seed of the reported evaluation; evaluations during training use seed 0."""


class Stopped(Exception):
    """A signal ended a run early."""

    def __init__(self, signal: int):
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


@dataclass(eq=False)
class Trials:
    """Trains an agent on a task from several seeds, which share the compiled programs."""

    task: Task
    """The task on which the agent is trained."""
    env: Env | HostEnv | None
    """The environment of the task; None for trials that are only read."""
    agent: Contestant
    """The agent that is trained."""
    settings: dict[str, Any]
    """The agent's whole configuration on this task."""
    root: Path
    """The comparison's folder."""
    train_env: Env | HostEnv | None = None
    """The environment of training, if the task gives it other arguments."""
    _made: tuple[Agent, Evaluator] | None = field(default=None, init=False)
    _opened: ExitStack = field(default_factory=ExitStack, init=False)

    def runs(self, seeds: int) -> Iterator[Run]:
        """Yield the runs of seeds 0 to seeds-1: those that are saved, and the others when they end.

        Raises:
          Stopped: SIGINT or SIGTERM was received; the current run is not saved.
          UserError: another process trains the same run.
        """
        with self._opened:
            for seed in range(seeds):
                run = self.kept(seed)
                if run is None:
                    with self._claimed(seed):
                        # Another process may have trained it until now.
                        run = self.kept(seed) or self._attempt(seed)
                yield run

    @contextmanager
    def _claimed(self, seed: int) -> Iterator[None]:
        """Hold the lock of a run, so that no other process trains it too."""
        path = self._path(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(path.with_name(f".{path.name}.lock")))
            except BlockingIOError:
                raise UserError(
                    f"out={self.root}: another command trains {self.agent.name} on "
                    f"{self.task.name} from seed {seed}: must be other tasks, agents or seeds"
                ) from None
            yield

    def saved_seeds(self) -> list[int]:
        """The seeds whose runs are saved."""
        names = (p.parent.name for p in self._path(0).parent.glob("seed-*/run.json"))
        numbers = (name.removeprefix("seed-") for name in names)
        return [int(number) for number in numbers if number.isdecimal()]

    def kept(self, seed: int) -> Run | None:
        """The saved run of a seed, if there is one.

        Raises:
          UserError: what is saved is of another comparison, or damaged.
        """
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
        if differing := differing_settings(run, self.settings):
            raise UserError(
                f"out={self.root}: {path.parent} was trained with other settings "
                f"({', '.join(differing)}): must be another folder"
            )
        return run

    def _check(self, run: Run, seed: int) -> None:
        """Refuse a saved run that does not belong here; the file may come from an untrusted source.

        Raises:
          UserError: the file is of a different run.
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
            "policy": self._policy_of(seed),
            "imported_from": "",
        }
        for name, value in wanted_values.items():
            if getattr(run, name) != value:
                raise UserError(f"{name} must be {value!r}")
        if run.seconds is None:
            raise UserError("seconds must be a number")
        if not isinstance(run.settings, dict):
            raise UserError("settings must be an object")
        if len(run.returns) != self.task.final_episodes:
            raise UserError(f"{len(run.returns)} returns: must be {self.task.final_episodes}")
        if any(type(x) is not float for x in run.returns):
            raise UserError("returns must be numbers with a decimal point")
        for steps, seconds, mean in run.curve:
            if type(steps) is not int or type(seconds) is not float or type(mean) is not float:
                raise UserError("curve must be of [env steps, seconds, mean return]")
        spent = [x for point in run.curve for x in point[:2] if x is not None]
        numbers = (run.env_steps, run.seconds, run.compile_seconds, run.evaluation_seconds)
        if min((*numbers, run.devices - 1, *spent)) < 0:
            raise UserError("counts and seconds must be at least 0, and devices at least 1")

    def _policy_of(self, seed: int) -> str:
        return str((self._path(seed) / "policy").relative_to(self.root))

    def _attempt(self, seed: int) -> Run:
        """Train from a seed; if that fails, return a failed run, so that the other runs
        continue."""
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
        write_whole(self._path(seed) / "run.json", run_text(run).encode())
        return run

    def _train(self, seed: int) -> Run:
        task, path = self.task, self._path(seed)
        assert self.env is not None, "these trials are only read"
        if self._made is None:
            made = agents.make(self.agent.kind, self.env, train_env=self.train_env, **self.settings)
            agent = self._opened.enter_context(made)
            self._made = agent, make_evaluator(agent)
        agent, evaluator = self._made
        shutil.rmtree(path, ignore_errors=True)  # left by an interrupted run
        config = RunConfig(
            env_steps=task.env_steps,
            seconds=task.seconds,
            seed=seed,
            target_return=task.threshold if task.stop_when_solved else None,
            evaluations=task.evaluations,
            eval_episodes=task.evaluation_episodes,
            checkpoint_seconds=None,  # an interrupted run is repeated from its start
        )
        curve: list[Point] = []
        shown = f"{task.name}, {self.agent.name}, seed {seed}"
        with shown_progress(shown, config) as (show, show_within):

            def note(metrics: dict[str, Any], _: Any) -> None:
                show(metrics)
                if "eval_return_mean" in metrics:
                    seconds = metrics["wall_seconds"] - metrics["evaluation_seconds"]
                    curve.append(Point(metrics["env_steps"], seconds, metrics["eval_return_mean"]))

            result = agents.train(
                agent,
                out=path,
                evaluator=evaluator,
                on_generation=note,
                on_progress=show_within,
                **asdict(config),
            )
            if result.stopped_by is not None:
                raise Stopped(result.stopped_by)
            returns = final_returns(evaluator, result.policy, task.final_episodes)
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
            source=self.agent.source(task.env),
            policy=self._policy_of(seed),
            machine=", ".join(machine().values()),
        )

    def _path(self, seed: int) -> Path:
        return run_folder(self.root, self.task.name, self.agent.name, seed)


def run_folder(root: Path, task: str, agent: str, seed: int) -> Path:
    """The folder of a run inside a comparison's folder."""
    return root / "runs" / task / agent / f"seed-{seed}"


def _place(error: Exception) -> str:
    """The place where an exception was raised, as text; "" if its message names it."""
    if isinstance(error.__cause__, RemoteTraceback):
        return ""
    return f" ({fault_of(error).place})"


def differing_settings(run: Run, settings: dict[str, Any]) -> list[str]:
    """The names of settings with which an agent would be trained otherwise than in this run."""
    # A setting that is newer than the run had its default.
    defaults = asdict(config_type(run.kind)())
    trained, wanted = json.loads(json.dumps([{**defaults, **run.settings}, settings]))
    return sorted(k for k in trained | wanted if trained.get(k) != wanted.get(k))


def make_evaluator(agent: Agent) -> Evaluator:
    """An evaluator of the agent's policies, which uses the agent's own stage."""
    policy = agent.snapshot(agent.init(jax.random.key(0)))
    return Evaluator(agent.env, policy.actor, agent.stage)


def final_returns(evaluator: Evaluator, policy: Policy, episodes: int) -> np.ndarray:
    """(episodes,) returns of episodes that no evaluation during training has played."""
    return evaluator(policy.weights, episodes=episodes, seed=FINAL_SEED).returns
