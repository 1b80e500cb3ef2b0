"""Train an agent as `es-rl train` does: show progress, print the result, and film the policy."""

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import agents
from agents.base import Agent
from agents.policies.policy import Policy
from agents.training.filming import film
from agents.training.loggers import Logger
from agents.training.run_config import RunConfig
from envs.errors import NoPicture
from es_rl import processes
from experiments.comparison.suites import bundled_with
from experiments.progress import shown_progress, successful
from experiments.signals import acknowledged
from experiments.videos import why_not, write_video

_log = logging.getLogger("es_rl")

_WRONG = {
    "failed_episodes": "{:,} episodes failed",
    "nonfinite_members": "{:,} times a member's return was not finite",
    "nonfinite_observations": "{:,} episodes had an observation that was not finite",
    "nonfinite_actions": "{:,} actions were not finite",
    "nonfinite_steps": "{:,} steps were left out, as a number in them was not finite",
}
"""The metrics that count problems (0 if all is well), and the line to print for each."""


def train_and_report(
    agent: Agent,
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    initial: Policy | None = None,
    video_every: int | None = None,
    loggers: tuple[Logger, ...] = (),
    needed: Sequence[str] = (),
) -> int:
    """Train, show progress, print the result, and return the command's exit code.

    Args:
      agent: what to train; it is closed at the end.
      config: the options of the run.
      out: the run's folder.
      resume: resume the run in the folder.
      initial: a policy to start from.
      video_every: the number of generations between two films of the mean policy; None films
        nothing.
      loggers: receive the metrics of every generation.
      needed: flags without which neither `es-rl replay` nor `--resume` accepts the run.
    """
    wrong: Counter[str] = Counter()
    follows = "training ends, the policy is evaluated and a checkpoint saved"
    with (
        acknowledged(follows),
        agent,
        shown_progress(agent.env.spec.id, config) as (show, show_within),
    ):
        films = _Films(agent, out / "videos", video_every)

        def on_generation(metrics: dict[str, Any], snapshot: Callable[[], Policy]) -> None:
            show(metrics)
            wrong.update({name: int(metrics.get(name, 0)) for name in _WRONG})
            films.after(metrics["generation"], snapshot)

        result = agents.train(
            agent,
            out=out,
            resume=resume,
            initial=initial,
            loggers=loggers,
            on_generation=on_generation,
            on_progress=show_within,
            **asdict(config),
        )
    if processes.is_main():
        _print(agent, config, out, result, needed)
        for name, count in wrong.items():
            if count:
                print(f"warning: {_WRONG[name].format(count)} ({name})", file=sys.stderr)
    if result.stopped_by is None:
        return 0
    if processes.is_main():
        saved = "" if result.checkpoint is None else f", the checkpoint in {result.checkpoint}"
        print(f"stopped by signal {result.stopped_by}; the policy is in {out / 'policy'}{saved}")
    return 128 + result.stopped_by


@dataclass
class _Films:
    """Films the policy during training; the first failure is logged, and no failure ends the
    run."""

    agent: Agent
    folder: Path
    every: int | None
    """The number of generations between two films; None films nothing."""
    failed: bool = False
    """Whether a film has failed."""

    def after(self, generation: int, snapshot: Callable[[], Policy]) -> None:
        if self.every is None or generation % self.every:
            return
        path = self.folder / f"generation-{generation:06d}.mp4"
        try:
            write_video(path, film(snapshot(), self.agent.env))
        except Exception as error:
            if not self.failed:
                _log.warning("no film %s: %s; training goes on", path, why_not(error))
            self.failed = True
            if isinstance(error, NoPicture):  # it never will have one
                self.every = None


def _print(
    agent: Agent, config: RunConfig, out: Path, result: agents.TrainResult, needed: Sequence[str]
) -> None:
    """Print the result of the run, its folder, and the commands that take it further."""
    evaluation = result.evaluation
    if agent.summary:
        print(agent.summary)
    print(
        f"{agent.env.spec.id} {agent.name} seed {config.seed}: "
        f"evaluation return {evaluation.mean:.1f} +- {evaluation.std:.1f}{successful(evaluation)} "
        f"({len(evaluation.returns)} episodes) after {result.env_steps:,} env steps, "
        f"{result.generations} generations, {result.wall_seconds:.1f} s "
        f"(and {result.compile_seconds:.1f} s of compilation)"
    )
    if config.reached(evaluation.mean):
        print(f"the target return {config.target_return:g} is reached")
    print(f"run: {out}")
    if result.new_generations == 0 and result.stopped_by is None:
        print(
            f"this run had ended: its budget is {config.env_steps:,} env steps, its target "
            f"return {config.target_return}"
        )
    for does, arguments in _commands(agent, config, out, result, needed).items():
        print(f"{does}: {shlex.join(['es-rl', *arguments])}")


def _commands(
    agent: Agent, config: RunConfig, out: Path, result: agents.TrainResult, needed: Sequence[str]
) -> dict[str, list[str]]:
    """The commands for the run, by what they do."""
    commands = {"replay": ["replay", str(out), *needed], "page": ["report", str(out)]}
    if result.checkpoint is not None:
        further = [] if result.stopped_by is not None else _more(config, result)
        commands["resume"] = ["train", "--resume", str(out), *needed, *further]
    spec = agent.env.spec
    suite = None if spec.kwargs else bundled_with(spec.id)
    if suite is not None and agent.name in ("eggroll", "open_es", "ppo"):
        both = ("eggroll", "ppo") if agent.name == "ppo" else (agent.name, "ppo")
        chosen = ["--tasks", spec.id, "--agents", *both]
        commands["compare (from new runs)"] = ["compare", suite, *chosen]
    return commands


def _more(config: RunConfig, result: agents.TrainResult) -> list[str]:
    """The flags with which a run goes on that has ended: without its target, or twice as long."""
    flags = []
    if config.reached(result.evaluation.mean):
        flags += ["--target-return", "None"]
    if result.env_steps >= config.env_steps:
        flags += ["--env-steps", str(2 * config.env_steps)]
    seconds = result.wall_seconds - result.evaluation_seconds
    if config.seconds is not None and seconds >= config.seconds:
        flags += ["--seconds", f"{2 * config.seconds:g}"]
    return flags
