"""`es-rl replay`: play a saved policy again, as numbers or as a video."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import agents
import envs
from agents.evaluation import Evaluation
from agents.filming import Film, film
from agents.policy import Policy
from experiments.cli import parse
from experiments.startup import import_modules, start_jax

_VIDEO_FORMATS = (".mp4", ".gif")


@dataclass(frozen=True)
class ReplayFlags:
    """Play the episodes of an evaluation seed with a saved policy, without any noise."""

    run: tyro.conf.Positional[Path]
    """A run's folder, or a policy's."""
    episodes: int = 10
    """How many episodes."""
    seed: int = 0
    """Evaluation seed; with the one that the policy was saved with the returns are the same."""
    video: Path | None = None
    """Write the first episode to this .mp4 or .gif file; no display is needed."""
    json: bool = False
    """Print one JSON object instead of a table."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules to import first, which register the environment with Gymnasium."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags: ReplayFlags = parse("replay", ReplayFlags, arguments)
    if flags.episodes < 1:
        raise ValueError(f"episodes={flags.episodes}: must be at least 1")
    if flags.seed < 0:
        raise ValueError(f"seed={flags.seed}: must be at least 0")
    if flags.video is not None and flags.video.suffix.lower() not in _VIDEO_FORMATS:
        raise ValueError(f"video={flags.video}: must end in {' or '.join(_VIDEO_FORMATS)}")
    start_jax()
    import_modules(flags.modules)
    policy = agents.load_policy(flags.run)
    env = envs.make(policy.spec.id, **policy.spec.kwargs)
    evaluation = agents.evaluate(policy, env, episodes=flags.episodes, seed=flags.seed)
    if flags.json:
        print(json.dumps(_as_json(policy, evaluation)))
    else:
        _print_table(policy, evaluation)
    if flags.video is not None:
        recorded = film(policy, env, seed=flags.seed)
        _write_video(flags.video, recorded)
        if not flags.json:
            print(f"video of episode 0 (return {recorded.episode_return:.1f}): {flags.video}")
    return 0


def _as_json(policy: Policy, evaluation: Evaluation) -> dict[str, object]:
    return {
        "env": policy.spec.id,
        "agent": policy.agent,
        **evaluation.to_json(),
        "return_mean": evaluation.mean,
        "return_std": evaluation.std,
    }


def _print_table(policy: Policy, evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{policy.spec.id}, {policy.agent}, evaluation seed {evaluation.seed}")
    for heading in ("episode", "return", "steps"):
        table.add_column(heading, justify="right")
    for i, (earned, steps) in enumerate(zip(evaluation.returns, evaluation.lengths, strict=True)):
        table.add_row(str(i), f"{earned:.2f}", str(steps))
    Console().print(table)
    print(f"mean return {evaluation.mean:.2f} +- {evaluation.std:.2f}")


def _write_video(path: Path, recorded: Film) -> None:
    import imageio.v3 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.stack(recorded.frames)
    if path.suffix.lower() == ".gif":
        milliseconds = 1000 / recorded.frames_per_second
        imageio.imwrite(path, frames, extension=".gif", duration=milliseconds, loop=0)
    else:
        with warnings.catch_warnings():
            # JAX warns of any fork; this one turns into ffmpeg at once.
            warnings.filterwarnings("ignore", message=r"os\.fork\(\)")
            # H.264 wants even sizes; imageio would stretch to multiples of 16.
            options: dict[str, Any] = {"fps": recorded.frames_per_second, "macro_block_size": 2}
            imageio.imwrite(path, frames, extension=".mp4", **options)
