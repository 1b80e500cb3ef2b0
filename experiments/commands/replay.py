"""`es-rl replay`: play a saved policy again, as numbers, a video or an interactive 3D page."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

import agents
import envs
from agents.policies.policy import Policy
from agents.training.evaluation import Evaluation
from agents.training.filming import film, record
from agents.untrained import untrained_policy
from envs.base import PLACES, Env, HostEnv
from envs.errors import UserError
from es_rl.files import write_whole
from experiments.flags.environments import check_numbers, given, make_env
from experiments.flags.outputs import check_output
from experiments.flags.parsing import MACHINE, parse
from experiments.progress import successful
from experiments.startup import import_modules, start_jax
from experiments.videos import check_name, write_video
from experiments.viewer import MAX_PANELS, Panel, page

_GROUPS = {
    "": ("run", "episodes", "seed", "video", "html", "json", "modules", "trust"),
    "environment": ("agent", "env_kwargs", "max_episode_steps"),
    "machine": MACHINE,
}
"""The flags in the order of the help page."""


@dataclass(frozen=True)
class ReplayFlags:
    """Play the episodes of an evaluation seed with a saved policy, without any noise."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The folder of a run or a policy; with --agent an environment, such as brax/ant."""
    agent: Literal["random", "zero"] | None = None
    """Play random or zero actions on an environment; this needs no run."""
    env_kwargs: tuple[str, ...] = ()
    """With --agent, arguments of the environment, such as backend=spring."""
    max_episode_steps: int | None = None
    """With --agent, episodes are cut after this many steps."""
    lanes: int | None = None
    """Environments stepped in lockstep, if they step on the host: up to 32 unless given. With
    --lanes 1 --workers 1 there is never more than one."""
    workers: int | None = None
    """Worker processes that step an environment on the host. Unless given, the number is chosen, up
    to one per core."""
    step_timeout: float | None = None
    """Seconds after which a step on the host is treated as hanging: 60 unless given."""
    start_timeout: float | None = None
    """Seconds that making an environment on the host may take: 120 unless given."""
    episodes: int = 10
    """How many episodes."""
    seed: int = 0
    """The evaluation seed. With the seed that the policy was saved with, the returns are the
    same."""
    video: Path | None = None
    """Write the first episode to this .mp4 or .gif file; no display is needed."""
    html: Path | None = None
    """Write the first episodes, at most 4, to this .html file, an interactive 3D page. The
    environment must have a MuJoCo model (Brax, MuJoCo)."""
    json: bool = False
    """Print one JSON object instead of a table."""
    trust: bool = False
    """Allow arguments of the environment that name files (such as xml_file); only for your own
    policies."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules to import first, which register the environment with Gymnasium."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags = parse("replay", ReplayFlags, arguments, _GROUPS)
    if flags.episodes < 1:
        raise UserError(f"episodes={flags.episodes}: must be at least 1")
    if flags.seed < 0:
        raise UserError(f"seed={flags.seed}: must be at least 0")
    if flags.video is not None:
        check_name(flags.video)
    if flags.html is not None and flags.html.suffix.lower() != ".html":
        raise UserError(f"html={flags.html}: must end in .html")
    check_numbers(flags, ("lanes", "workers", "max_episode_steps"))
    for name in ("video", "html"):
        if getattr(flags, name) is not None:
            check_output(name, getattr(flags, name))
    if flags.env_kwargs and flags.agent is None:
        raise UserError(f"env_kwargs={flags.env_kwargs[0]}: only with --agent; a run has its own")
    if flags.max_episode_steps is not None and flags.agent is None:
        steps = flags.max_episode_steps
        raise UserError(f"max_episode_steps={steps}: only with --agent; a run has its own")
    start_jax()
    import_modules(flags.modules, "" if flags.agent is None else flags.run)
    policy, env = _untrained(flags) if flags.agent is not None else _saved(flags)
    # First, as these fail for environments without a MuJoCo model or a picture.
    shown = "" if flags.html is None else _page(policy, env, flags)
    recorded = None if flags.video is None else film(policy, env, seed=flags.seed)
    evaluation = agents.evaluate(
        policy, env, episodes=flags.episodes, seed=flags.seed, lanes=flags.lanes
    )
    if flags.json:
        print(json.dumps(_as_json(policy, evaluation), allow_nan=False))
    else:
        _print_table(policy, evaluation)
    if flags.video is not None and recorded is not None:
        write_video(flags.video, recorded)
        if not flags.json:
            print(f"video of episode 0 (return {recorded.episode_return:.1f}): {flags.video}")
    if flags.html is not None:
        flags.html.parent.mkdir(parents=True, exist_ok=True)
        write_whole(flags.html, shown.encode())
        if not flags.json:
            print(f"3D page of {_first_episodes(flags)}: {flags.html}")
    return 0


def _saved(flags: ReplayFlags) -> tuple[Policy, Env | HostEnv]:
    """Load a policy, and make the environment that it was trained on."""
    run = flags.run
    if run in envs.list_ids() and not Path(run).exists():
        raise UserError(f"{run} is an environment, not a run: add --agent random or --agent zero")
    policy = agents.load_policy(run, trusted=flags.trust)
    env = envs.make(policy.spec.id, **policy.spec.kwargs, **given(flags, PLACES))
    for name in ("raw_observation_space", "observation_space", "action_space"):
        found, wanted = getattr(policy.spec, name), getattr(env.spec, name)
        if found != wanted:
            types = (getattr(space, "dtype", None) for space in (found, wanted))
            of = [f" of {dtype}" if dtype is not None else "" for dtype in types]
            raise UserError(
                f"policy {run!r}: its {name} is {found}{of[0]}, must be {wanted}{of[1]}, as in "
                f"{env.spec.id}"
            )
    return policy, env


def _untrained(flags: ReplayFlags) -> tuple[Policy, Env | HostEnv]:
    """Make the environment that the flags name, and a policy with random or zero actions."""
    assert flags.agent is not None
    chosen = given(flags, (*PLACES, "max_episode_steps"))
    env = make_env(flags.run, chosen, flags.env_kwargs)
    return untrained_policy(flags.agent, env.spec), env


def _page(policy: Policy, env: Env | HostEnv, flags: ReplayFlags) -> str:
    episodes = min(flags.episodes, MAX_PANELS)
    recordings = record(policy, env, episodes=episodes, seed=flags.seed)
    panels = [Panel(f"episode {i}", recording) for i, recording in enumerate(recordings)]
    return page(f"{policy.spec.id}, {policy.agent}, evaluation seed {flags.seed}", panels)


def _first_episodes(flags: ReplayFlags) -> str:
    last = min(flags.episodes, MAX_PANELS) - 1
    return f"episodes 0 to {last}" if last else "episode 0"


def _as_json(policy: Policy, evaluation: Evaluation) -> dict[str, object]:
    """The evaluation in JSON values; numbers that are not finite become null."""
    means = {"return_mean": evaluation.mean, "return_std": evaluation.std, **evaluation.info_means}
    return {
        "env": policy.spec.id,
        "agent": policy.agent,
        "seed": evaluation.seed,
        "returns": [_finite(x) for x in evaluation.returns.tolist()],
        "lengths": evaluation.lengths.tolist(),
        **{name: _finite(x) for name, x in means.items()},
    }


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _print_table(policy: Policy, evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    # No title of the table, which would be broken into lines of its small width.
    print(f"{policy.spec.id}, {policy.agent}, evaluation seed {evaluation.seed}")
    table = Table()
    for heading in ("episode", "return", "steps"):
        table.add_column(heading, justify="right")
    for i, (earned, steps) in enumerate(zip(evaluation.returns, evaluation.lengths, strict=True)):
        table.add_row(str(i), f"{earned:.2f}", str(steps))
    Console().print(table)
    found = f"mean return {evaluation.mean:.2f} +- {evaluation.std:.2f}"
    print(f"{found}{successful(evaluation)}")
