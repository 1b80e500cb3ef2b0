"""`es-rl train`: train a policy, show how it goes, and say where it lies."""

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

import agents
import envs
from agents.base import Agent
from agents.policies.policy import Policy
from agents.policies.policy_files import named_file
from agents.presets.evolution import preset
from agents.registry import config_type, configure
from agents.training.filming import film
from agents.training.run_folder import PLACES, read_config
from envs.errors import NoPicture, UserError, one_line
from envs.registry import split_id
from es_rl import processes
from experiments.cli import parse
from experiments.progress import shown_progress
from experiments.signals import acknowledged
from experiments.startup import ON_HOST, ProcessFlags, env_kwargs, import_modules, start_jax
from experiments.videos import why_not, write_video

Config = TypeVar("Config")
_log = logging.getLogger("es_rl")

_DEFAULT_ENV = "gymnasium/phys2d/CartPole-v1"
_KEPT = ("seed", "eval_every", "eval_seconds", "eval_episodes")
_CHANGEABLE = ("env_steps", "target_return", "checkpoint_every", "checkpoint_seconds", "keep")
"""Of a run's config.json, what holds when it goes on, and what does unless a flag is given."""
_MOST_AT_ONCE = 1 << 26
"""Episodes of a generation, or transitions of an update, in a run that goes on."""

_WRONG = {
    "failed_episodes": "{:,} episodes failed",
    "nonfinite_members": "{:,} times a member's return was not finite",
    "nonfinite_observations": "{:,} episodes had an observation that was not finite",
    "nonfinite_actions": "{:,} actions were not finite",
    "nonfinite_steps": "{:,} steps were left out, as a number in them was not finite",
}
"""Counts of metrics.jsonl that are 0 where all is well."""


@dataclass(frozen=True, kw_only=True)
class RunFlags(ProcessFlags):
    """What a new run and one that goes on have in common."""

    video_every: int | None = None
    """Film the mean policy every so many generations, into the run's folder videos/."""
    workers: int | None = None
    """Processes that step an environment on the host: as many as are worth it, up to one per core,
    unless given."""
    step_timeout: float | None = None
    """Seconds after which a step on the host counts as hanging: 60 unless given."""
    start_timeout: float | None = None
    """Seconds that making an environment on the host may take: 120 unless given."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules to import first, which register environments of your own with Gymnasium."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags(RunFlags, Generic[Config]):
    """Train a policy on ENV; the environment's tuned settings hold where no flag is given.

    `--resume DIR` in place of ENV goes on with a run that was stopped.
    """

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
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
    backend: str | None = None
    """Physics of Brax: generalized, spring, positional or mjx."""
    max_episode_steps: int | None = None
    """Steps after which an episode is cut, in evaluation too: what the environment is registered
    with unless given."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, as max_episode_steps=200 forward_reward_weight=2.0; values are
    Python's or JSON (is_slippery=False), or else text."""
    checkpoint_every: int | None = None
    """Generations between checkpoints."""
    checkpoint_seconds: float = 60.0
    """And seconds between them, whichever comes first; the end of a run has one too."""
    keep: int = 2
    """How many of the latest checkpoints remain."""
    out: Path | None = None
    """The run's folder: runs/ENV/AGENT/seed-SEED-TIME unless given."""


@dataclass(frozen=True, kw_only=True)
class ResumeFlags(RunFlags):
    """Go on with a run that was stopped or killed, as if it had not been.

    Environment, agent, settings and seed are those of its config.json, and so is all that is not
    given here.
    """

    resume: Path
    """The run's folder."""
    trust: bool = False
    """Let the arguments of the environment name files (as xml_file does): of runs of your own."""
    env_steps: int | None = None
    """Budget of the whole run."""
    target_return: float | None = None
    """Stop as soon as the mean policy's evaluation return reaches it."""
    checkpoint_every: int | None = None
    """Generations between checkpoints."""
    checkpoint_seconds: float | None = None
    """And seconds between them, whichever comes first."""
    keep: int | None = None
    """How many of the latest checkpoints remain."""
    devices: int | None = None
    """Devices of each process."""
    lanes: int | None = None
    """Environments stepped side by side on all devices together."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    if _value_of("--resume", arguments) is not None:
        return _resume(arguments)
    # The task is named first: its settings become the defaults of the flags.
    env_id = arguments[0] if arguments and not arguments[0].startswith("-") else _DEFAULT_ENV
    agent_name = _value_of("--agent", arguments) or "eggroll"
    config = config_type(agent_name)
    tuned = preset(agent_name, env_id)
    defaults = TrainFlags(
        env=env_id,
        settings=configure(agent_name, env_id),
        agent=agent_name,
        env_steps=tuned.env_steps,
        target_return=tuned.target_return,
        eval_every=tuned.eval_every,
    )
    flags = parse("train", TrainFlags[config], arguments, defaults)  # type: ignore[valid-type]
    if flags.env != env_id:
        raise UserError(f"env={flags.env}: must come first, as the flags' defaults depend on it")
    if flags.agent != agent_name:
        raise UserError(f"agent={flags.agent}: must be given once, not {agent_name} before")
    _check(flags)
    start_jax(getattr(flags.settings, "devices", None))
    flags.join()
    import_modules(flags.modules, flags.env)
    given = {name: getattr(flags, name) for name in ("backend", "max_episode_steps", *ON_HOST)}
    options = {name: value for name, value in given.items() if value is not None}
    env = envs.make(flags.env, **options, **env_kwargs(flags.env_kwargs, options))
    agent = agents.make(flags.agent, env, **vars(flags.settings))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = flags.out or Path("runs", env.spec.id, flags.agent, f"seed-{flags.seed}-{stamp}")
    return _train(
        agent,
        flags,
        out,
        env_steps=flags.env_steps,
        seed=flags.seed,
        target_return=flags.target_return,
        eval_every=flags.eval_every,
        eval_episodes=flags.eval_episodes,
        checkpoint_every=flags.checkpoint_every,
        checkpoint_seconds=flags.checkpoint_seconds,
        keep=flags.keep,
    )


def _resume(arguments: list[str]) -> int:
    if not arguments[0].startswith("-"):
        raise UserError(f"env={arguments[0]}: must not be given: --resume knows the environment")
    flags: ResumeFlags = parse("train", ResumeFlags, arguments)
    _check_run(flags)
    config = read_config(flags.resume)
    changed = {name: getattr(flags, name) for name in _CHANGEABLE}
    options = {name: config[name] for name in (*_KEPT, *_CHANGEABLE)}
    options |= {name: value for name, value in changed.items() if value is not None}
    options["seconds"] = math.inf if config["seconds"] is None else config["seconds"]
    env_id, settings = config["env"], config["settings"]
    module, _ = split_id(env_id)
    if module is not None and module not in flags.modules:
        # Making the environment would import the module, because a file says so.
        raise UserError(f"resume={flags.resume}: the environment {env_id} needs --import {module}")
    named = None if flags.trust else named_file(config["env_kwargs"])
    if named is not None:
        raise UserError(
            f"resume={flags.resume}: the environment's argument {one_line(named)} must not be a "
            "path or a module, unless the run is trusted (--trust)"
        )
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    places = {name: getattr(flags, name) for name in PLACES}
    settings |= {name: value for name, value in places.items() if value is not None}
    try:
        configured = configure(config["agent"], env_id, **settings)
        _check_size(configured)
    except ValueError as error:
        raise UserError(f"resume={flags.resume}: config.json: {one_line(error)}") from error
    start_jax(getattr(configured, "devices", None))
    flags.join()
    import_modules(flags.modules)
    given = {name: getattr(flags, name) for name in ON_HOST}
    on_host = {name: value for name, value in given.items() if value is not None}
    env = envs.make(env_id, **{**config["env_kwargs"], **on_host})
    agent = agents.make(config["agent"], env, **settings)
    return _train(agent, flags, flags.resume, resume=True, **options)


def _check_size(settings: Any) -> None:
    """Refuse settings from a file that no machine has the memory for.

    Raises:
      UserError: they are such.
    """
    for names in (
        ("population_size", "episodes_per_member"),
        ("num_envs", "num_steps"),
        ("lanes",),
    ):
        given = {name: getattr(settings, name, None) or 1 for name in names}
        if math.prod(given.values()) > _MOST_AT_ONCE:
            raise UserError(
                f"{' x '.join(f'{name}={value}' for name, value in given.items())} must be at most "
                f"{_MOST_AT_ONCE}"
            )


def _train(agent: Agent, flags: RunFlags, out: Path, **options: Any) -> int:
    """Train, show how it goes and how it went."""
    wrong: Counter[str] = Counter()
    follows = "training ends, the policy is evaluated and a checkpoint saved"
    with acknowledged(follows), agent, shown_progress(options["env_steps"]) as (show, show_within):
        films = _Films(agent, out / "videos", flags.video_every)

        def on_generation(metrics: dict[str, Any], snapshot: Callable[[], Policy]) -> None:
            show(metrics)
            wrong.update({name: int(metrics.get(name, 0)) for name in _WRONG})
            films.after(metrics["generation"], snapshot)

        result = agents.train(
            agent,
            out=out,
            on_generation=on_generation,
            on_progress=show_within,
            **options,
        )
    if processes.is_main():
        _print(agent, options["seed"], result)
        print(f"run: {out}")
        if result.new_generations == 0 and result.stopped_by is None:
            print(
                f"this run had ended: its budget is {options['env_steps']:,} env steps, its target "
                f"return {options['target_return']}; to go on: es-rl train --resume {out} with "
                "more --env-steps, or a higher --target-return"
            )
        for name, count in wrong.items():
            if count:
                print(f"warning: {_WRONG[name].format(count)} ({name})", file=sys.stderr)
    if result.stopped_by is not None:
        if processes.is_main():
            print(f"stopped by signal {result.stopped_by}; the policy is in {out / 'policy'}")
        if result.checkpoint is not None:
            print(f"checkpoint: {result.checkpoint}; go on with: es-rl train --resume {out}")
        return 128 + result.stopped_by
    return 0


@dataclass
class _Films:
    """Films of a run while it is trained; one that fails is logged once, and ends nothing."""

    agent: Agent
    folder: Path
    every: int | None
    """Generations from one to the next; None for no film."""
    failed: bool = False

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
            if isinstance(error, NoPicture):  # nor will there be one later
                self.every = None


def _check_run(flags: RunFlags) -> None:
    flags.check()
    counts = ("video_every", "checkpoint_every", "keep", "workers", "max_episode_steps", *PLACES)
    for name in (*counts, "env_steps", "eval_every", "eval_episodes"):
        value = getattr(flags, name, None)
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: must be at least 1")
    for name in ("checkpoint_seconds", "step_timeout", "start_timeout"):
        value = getattr(flags, name)
        if value is not None and not value > 0:
            raise UserError(f"{name}={value}: must be a number of seconds above 0")


def _check(flags: TrainFlags[Any]) -> None:
    """Refuse flags that are out of range, before JAX starts."""
    if flags.seed < 0:
        raise UserError(f"seed={flags.seed}: must be at least 0")
    _check_run(flags)
    for name, suite in (("backend", "brax"), *((name, "gymnasium") for name in ON_HOST)):
        value = getattr(flags, name)
        if value is not None and not flags.env.startswith(f"{suite}/"):
            raise UserError(f"{name}={value}: only {suite}/... environments have one")


def _print(agent: Agent, seed: int, result: agents.TrainResult) -> None:
    evaluation = result.evaluation
    print(
        f"{agent.env.spec.id} {agent.name} seed {seed}: "
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
