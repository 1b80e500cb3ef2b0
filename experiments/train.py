"""`es-rl train`: train a policy, show how it goes, and say where it lies."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import agents
import envs
from agents.filming import film
from agents.policy import Policy
from agents.presets import preset
from agents.registry import config_type, default_config
from experiments.cli import parse
from experiments.startup import env_kwargs, import_modules, start_jax
from experiments.videos import write_video

Config = TypeVar("Config")

_DEFAULT_ENV = "gymnasium/phys2d/CartPole-v1"


@dataclass(frozen=True)
class TrainFlags(Generic[Config]):
    """Train a policy on ENV; the environment's tuned settings hold where no flag is given."""

    env: tyro.conf.Positional[str]
    """suite/name, as `es-rl envs` lists them."""
    settings: tyro.conf.OmitArgPrefixes[Config]
    agent: str = "eggroll"
    """eggroll, open_es, ppo, sbx_ppo, random or zero."""
    seed: int = 0
    """Of the initial parameters, the noise and the training episodes."""
    env_steps: int = 10_000_000
    """Budget: the run ends with the generation that reaches it."""
    target_return: float | None = None
    """Stop as soon as the mean policy's evaluation return reaches it."""
    eval_every: int = 10
    """Generations between evaluations."""
    eval_episodes: int | None = None
    """Episodes of an evaluation: 128, on the host 32."""
    video_every: int | None = None
    """Film the mean policy every so many generations, into the run's folder videos/."""
    backend: str | None = None
    """Physics of Brax: generalized, spring, positional or mjx."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, as max_episode_steps=200 forward_reward_weight=2.0; values are
    JSON, or else text."""
    workers: int | None = None
    """Processes that step an environment on the host: one per core unless given."""
    step_timeout: float | None = None
    """Seconds after which a step on the host counts as hanging: 60 unless given."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules to import first, which register environments of your own with Gymnasium."""
    out: Path | None = None
    """The run's folder: runs/ENV/AGENT/seed-SEED-TIME unless given."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    # The task is named first: its settings become the defaults of the flags.
    env_id = arguments[0] if arguments and not arguments[0].startswith("-") else _DEFAULT_ENV
    agent_name = _value_of("--agent", arguments) or "eggroll"
    config = config_type(agent_name)
    tuned = preset(agent_name, env_id)
    defaults = TrainFlags(
        env=env_id,
        settings=default_config(agent_name, env_id),
        agent=agent_name,
        env_steps=tuned.env_steps,
        target_return=tuned.target_return,
        eval_every=tuned.eval_every,
    )
    flags = parse("train", TrainFlags[config], arguments, defaults)  # type: ignore[valid-type]
    _check(flags)
    start_jax(getattr(flags.settings, "devices", None))
    import_modules(flags.modules)
    given = {name: getattr(flags, name) for name in ("backend", "workers", "step_timeout")}
    options = {name: value for name, value in given.items() if value is not None}
    env = envs.make(flags.env, **options, **env_kwargs(flags.env_kwargs, options))
    agent = agents.make(flags.agent, env, **vars(flags.settings))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = flags.out or Path("runs", env.spec.id, flags.agent, f"seed-{flags.seed}-{stamp}")

    with _progress(flags) as show:

        def on_generation(metrics: dict[str, Any], snapshot: Callable[[], Policy]) -> None:
            show(metrics)
            if flags.video_every is not None and metrics["generation"] % flags.video_every == 0:
                name = f"generation-{metrics['generation']:06d}.mp4"
                write_video(out / "videos" / name, film(snapshot(), env))

        result = agents.train(
            agent,
            env_steps=flags.env_steps,
            seed=flags.seed,
            out=out,
            target_return=flags.target_return,
            eval_every=flags.eval_every,
            eval_episodes=flags.eval_episodes,
            on_generation=on_generation,
        )
    _print(flags, result)
    print(f"run: {out}")
    if result.stopped_by is not None:
        print(f"stopped by signal {result.stopped_by}; the policy is in {out / 'policy'}")
        return 128 + result.stopped_by
    return 0


def _check(flags: TrainFlags[Any]) -> None:
    """Refuse flags that are out of range, before JAX starts."""
    if flags.seed < 0:
        raise ValueError(f"seed={flags.seed}: must be at least 0")
    if flags.video_every is not None and flags.video_every < 1:
        raise ValueError(f"video_every={flags.video_every}: must be at least 1")
    for name, suite in (
        ("backend", "brax"),
        ("workers", "gymnasium"),
        ("step_timeout", "gymnasium"),
    ):
        value = getattr(flags, name)
        if value is not None and not flags.env.startswith(f"{suite}/"):
            raise ValueError(f"{name}={value}: only {suite}/... environments have one")


def _print(flags: TrainFlags[Any], result: agents.TrainResult) -> None:
    evaluation = result.evaluation
    print(
        f"{flags.env} {flags.agent} seed {flags.seed}: "
        f"evaluation return {evaluation.mean:.1f} +- {evaluation.std:.1f} "
        f"({len(evaluation.returns)} episodes) after {result.env_steps:,} env steps, "
        f"{result.generations} generations, {result.wall_seconds:.1f} s "
        f"(and {result.compile_seconds:.1f} s of compilation)"
    )


def _value_of(flag: str, arguments: list[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(flag + "="):
            return argument.removeprefix(flag + "=")
    return None


@contextmanager
def _progress(flags: TrainFlags[Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar on a terminal; nothing otherwise."""
    if not sys.stderr.isatty():
        yield lambda metrics: None
        return
    from rich.console import Console

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling", total=flags.env_steps)
        latest = "-"

        def show(metrics: dict[str, Any]) -> None:
            nonlocal latest
            if "eval_return_mean" in metrics:
                latest = f"{metrics['eval_return_mean']:.1f}"
            bar.update(
                task,
                completed=metrics["env_steps"],
                description=(
                    f"generation {metrics['generation']}  "
                    f"{metrics['steps_per_second']:,.0f} steps/s  "
                    f"return {metrics['return_mean']:.1f}  evaluation {latest}"
                ),
            )

        yield show
