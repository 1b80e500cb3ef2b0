"""`es-rl tune`: search for settings of an agent on an environment, with Optuna.

As in `es-rl train` the command line is parsed twice: first for the environment and the agent, which
determine the other flags. A flag of the agent that is given fixes that setting.
"""

import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from agents.policies.network import NetworkConfig
from agents.registry import agent_type, check_train_env, configure, preset
from agents.training.run_config import RunConfig
from envs.base import Env, HostEnv
from envs.errors import UserError
from envs.installing import pip_install
from es_rl.files import check_plain, locked
from experiments.comparison.trials import Stopped
from experiments.flags.environments import (
    EnvFlags,
    blamed_on,
    check_names,
    given,
    given_for_training,
    import_agent,
    make_envs,
)
from experiments.flags.outputs import can_be_made
from experiments.flags.parsing import MACHINE, dashed, of_agent, parse_groups
from experiments.signals import acknowledged
from experiments.startup import import_modules, start_jax
from experiments.tuning.spaces import Space, load
from experiments.tuning.trial import FIRST_SEED, ObjectiveName, Protocol, Report, train_seeds

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from experiments.tuning.study import TrainSeeds

_LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class _FirstFlags:
    """The flags of the first parse, which ignores all others."""

    env: tyro.conf.Positional[tuple[str, ...]] = ()
    agent: str = "eggroll"
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()


@dataclass(frozen=True, kw_only=True)
class TuneFlags(EnvFlags):
    """Search for settings of an agent on ENV, beginning with the environment's tuned ones.

    Every trial is trained from the same seeds; those that are worse than the median are given up
    early. A command that was stopped goes on when it is started again with the same folder.
    """

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """The environment as suite/name; `es-rl envs` lists them."""
    agent: str = "eggroll"
    """The agent whose settings are searched. Its own flags fix settings: what is given is not
    searched."""
    trials: int = 40
    """The number of trials of the study, those of earlier commands included."""
    seeds: int = 3
    """The number of seeds of each trial."""
    first_seed: int = FIRST_SEED
    """The first of the seeds, at least 100: seeds below are kept for what is reported later."""
    env_steps: int | None = None
    """The budget of a seed in env steps, that of the environment's tuned settings unless given."""
    seconds: float | None = None
    """The budget of a seed in seconds of training, without compilation and evaluation."""
    objective: ObjectiveName = "final"
    """What is maximised, as a mean over seeds. final: the return of the last policy on episodes
    that no evaluation before has played; area: the mean of the evaluation curve over the budget,
    which rewards learning soon."""
    evaluations: int = 10
    """Evaluations of the mean policy after equal shares of the budget of a seed."""
    eval_episodes: int | None = None
    """The number of episodes of an evaluation; None means 128, or 32 if environments step on the
    host."""
    space: str | None = None
    """MODULE:FUNCTION, a function of yours that draws settings, in place of the agent's own in
    experiments/tuning/spaces.py."""
    out: Path | None = None
    """The study's folder: runs/tune/ENV/AGENT unless given."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules to import first, which register your own environments or agents."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    if find_spec("optuna") is None:
        raise UserError(f"Optuna must be installed to tune ({pip_install('tune')})")
    flags, settings, fixed = _parse(arguments)
    _check(flags)
    # Before modules of the user's are imported, which may ask JAX for its devices.
    start_jax(getattr(settings, "devices", None))
    function = load(flags.space, flags.agent)
    space = Space(function, flags.space or function.__name__, vars(settings), fixed)
    searched = space.searched(flags.agent, flags.env)
    out = flags.out or Path("runs", "tune", flags.env, flags.agent)
    _check_folder(out)
    import_modules(flags.modules, flags.env)
    chosen = {**given(flags, ("backend", "max_episode_steps")), **flags.on_host()}
    env, train_env = make_envs(flags.env, chosen, flags.env_kwargs, flags.train_env_kwargs)
    obstacle = agent_type(flags.agent).obstacle(env) or agent_type(flags.agent).missing_package()
    if obstacle is not None:
        raise UserError(f"agent={flags.agent}: {obstacle}")
    if train_env is not None:
        with blamed_on(given_for_training(flags.train_env_kwargs), "train_env="):
            check_train_env(flags.agent, env, train_env)
    protocol = _protocol(flags, env, train_env, space)

    def train(settings: dict[str, Any], report: Report, ended: Callable[[Any], None]) -> float:
        return train_seeds(env, train_env, protocol, settings, report, ended)

    command = shlex.join(["es-rl", "tune", *arguments])
    return _search(train, protocol, space, searched, flags.trials, out, command)


def _search(
    train: "TrainSeeds",
    protocol: Protocol,
    space: Space,
    searched: tuple[str, ...],
    trials: int,
    out: Path,
    command: str,
) -> int:
    """Run the trials, and return the command's exit code."""
    from experiments.tuning import outputs, study  # which need Optuna

    out.mkdir(parents=True, exist_ok=True)
    try:
        with (
            locked(out / _LOCK),
            study.opened_study(out / outputs.STUDY, protocol, space, searched) as tuning,
            acknowledged("the trial at hand is given up, those that ended are kept"),
        ):

            def after(trial: "FrozenTrial") -> None:
                outputs.write_all(tuning, out, command)
                print(outputs.line_of(tuning, trial), flush=True)

            tuning.run(trials, train, after)
            outputs.write_all(tuning, out, command)
            best = tuning.best()
    except BlockingIOError:
        raise UserError(f"out={out}: another command tunes there: must be another folder") from None
    except (Stopped, KeyboardInterrupt) as error:  # the latter comes outside of training
        number = error.signal if isinstance(error, Stopped) else signal.SIGINT
        print(f"stopped by signal {number}; the same command goes on from here")
        return 128 + number
    if best is None:
        print(f"no trial was completed; {out / 'trials.csv'} says why")
        return 1
    flags = ["--agent", protocol.agent, "--settings", str(out / "best.toml")]
    train_with = shlex.join(["es-rl", "train", protocol.env, *flags])
    print(f"best: trial {best.number}, {study.value_of(best):.6g}; train with: {train_with}")
    return 0


def _parse(arguments: list[str]) -> tuple[TuneFlags, Any, tuple[str, ...]]:
    """The flags, the agent's settings, and the names of those that were given."""
    first, _ = tyro.cli(
        _FirstFlags, args=arguments, prog="es-rl tune", add_help=False, return_unknown_args=True
    )
    import_agent(first.agent, first.modules)
    env = first.env[0] if first.env else ""
    defaults = configure(first.agent, env)
    check_names("tune", first.agent, defaults, TuneFlags)
    flags, settings = parse_groups(
        "tune",
        arguments,
        {
            "": (
                *("env", "agent", "trials", "seeds", "env_steps", "seconds", "out", "objective"),
                *("space", "env_kwargs", "modules"),
            ),
            "study": ("first_seed", "evaluations", "eval_episodes"),
            **of_agent(first.agent, defaults, NetworkConfig),
            "environment": ("max_episode_steps", "train_env_kwargs", "backend"),
            "machine": MACHINE,
        },
        TuneFlags(env=env or tyro.MISSING, agent=first.agent),
        defaults,
        about=TuneFlags.__doc__ or "",
    )
    if flags.env != env:
        raise UserError(f"env={flags.env}: must come first, as the flags' defaults depend on it")
    typed = {word.partition("=")[0].replace("_", "-") for word in arguments}
    names = [each.name for each in fields(settings)]
    return (
        flags,
        settings,
        tuple(n for n in names if typed & {f"--{dashed(n)}", f"--no-{dashed(n)}"}),
    )


def _check(flags: TuneFlags) -> None:
    """Refuse flags that are out of range, before JAX starts."""
    flags.check_env(flags.env)
    for name in ("trials", "seeds", "evaluations"):
        if getattr(flags, name) < 1:
            raise UserError(f"{name}={getattr(flags, name)}: must be at least 1")
    if flags.first_seed < FIRST_SEED:
        raise UserError(
            f"first_seed={flags.first_seed}: must be at least {FIRST_SEED}, as seeds below are "
            "those of results that are reported"
        )
    RunConfig(**given(flags, ("env_steps", "seconds", "eval_episodes")))


def _check_folder(out: Path) -> None:
    """Refuse a folder that is neither new nor empty nor that of a study."""
    from experiments.tuning.outputs import FILES, STUDY

    try:
        check_plain(out, (*FILES, _LOCK))
    except (OSError, ValueError) as error:
        raise UserError(f"out={out}: must be a folder of a study: {error}") from error
    others = out.is_dir() and any(path.name != _LOCK for path in out.iterdir())
    if not can_be_made(out) or (others and not (out / STUDY).is_file()):
        raise UserError(f"out={out}: must be an empty or a new folder, or one of a study")


def _protocol(
    flags: TuneFlags, env: Env | HostEnv, train_env: Env | HostEnv | None, space: Space
) -> Protocol:
    options = RunConfig.of(preset(flags.agent, flags.env).run)
    return Protocol(
        env=env.spec.id,
        env_kwargs=env.spec.kwargs,
        train_env_kwargs=None if train_env is None else train_env.spec.kwargs,
        agent=flags.agent,
        base=dict(space.base),
        fixed=space.fixed,
        space=space.name,
        seeds=flags.seeds,
        first_seed=flags.first_seed,
        env_steps=flags.env_steps or options.env_steps,
        seconds=flags.seconds,
        objective=flags.objective,
        evaluations=flags.evaluations,
        eval_episodes=flags.eval_episodes,
    )
