"""`es-rl train`: train a policy, or resume a stopped run.

The command line is parsed twice. The first parse finds the environment, the agent and the run to
resume, which determine the other flags and their defaults. The second parse reads all flags.
"""

import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

import agents
import envs
from agents.object_settings import OBJECTS
from agents.policies.network import NetworkConfig
from agents.policies.policy import load_policy
from agents.policies.policy_files import named_file
from agents.policies.starting import saved_network_settings
from agents.registry import config_type, configure, preset
from agents.settings import check_kept
from agents.training.run_config import RunConfig
from agents.training.run_folder import SavedRun, check_new, read_config
from agents.training.trackers import Tracker, TrackerName, check_package
from envs.base import Env, HostEnv
from envs.errors import UserError, one_line
from envs.registry import split_id
from experiments.flags.environments import (
    EnvFlags,
    blamed_on,
    check_names,
    given,
    given_for_training,
    import_agent,
    make_env,
    make_envs,
)
from experiments.flags.parsing import MACHINE, Groups, of_agent, parse_groups
from experiments.flags.processes import ProcessFlags
from experiments.flags.settings_files import read_settings
from experiments.startup import import_modules, start_jax
from experiments.train_and_report import train_and_report

_DEFAULT_ENV = "gymnasium/phys2d/CartPole-v1"
_MOST_AT_ONCE = 1 << 26
"""The most episodes of a generation, or transitions of an update, of a resumed run."""
_OF_BOTH = ("backend", "max_episode_steps", "info_keys")
"""Flags that are arguments of the environment."""
_OF_NEW_RUNS = {
    "out": "out",
    **{name: name for name in _OF_BOTH},
    "env_kwargs": "env_kwargs",
    "train_env_kwargs": "train_env_kwargs",
    "settings_file": "settings",
}
"""Flags that are not allowed with --resume: the names of their fields and of the flags."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The flags that determine the other flags and their defaults."""

    agent: str = "eggroll"
    """The agent to train: eggroll, open_es, ppo, sbx_ppo, random, zero, or an agent that a module
    of yours registers."""
    resume: Path | None = None
    """In place of ENV, the folder of a run that was stopped or killed. The run continues with its
    own settings, as if it had not been interrupted."""
    init_from: Path | None = None
    """The folder of a saved policy, or of a run, of any agent. Training starts from its parameters
    and observation statistics, and its network settings become the defaults."""
    settings_file: Annotated[Path | None, tyro.conf.arg(name="settings")] = None
    """A TOML file of the agent's settings, such as best.toml of `es-rl tune`. They become the
    defaults of the flags, in place of the environment's tuned settings."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules to import first, which register your own environments or agents."""
    trust: bool = False
    """With --resume, allow arguments of the environment that name files (such as xml_file); only
    for your own runs."""


@dataclass(frozen=True, kw_only=True)
class _FirstFlags(Choice):
    """The flags of the first parse, which ignores all others."""

    env: tyro.conf.Positional[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class TrainFlags(Choice, ProcessFlags, EnvFlags):
    """Train a policy on ENV. The environment's tuned settings are the defaults of the flags.

    With `--resume RUN` in place of ENV, continue a run that was stopped.
    """

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[ENV]")]
    """The environment as suite/name; `es-rl envs` lists them."""
    info_keys: tuple[str, ...] | None = None
    """Scalars in the info of an episode's last step (in Brax's metrics) whose mean over episodes is
    logged."""
    out: Path | None = None
    """The run's folder, which must be empty or new: runs/ENV/AGENT/seed-SEED-TIME unless given."""
    video_every: int | None = None
    """The number of generations between two films of the mean policy, written to the run's folder
    videos/."""
    logger: TrackerName | None = None
    """Also send the metrics to Weights & Biases (offline, unless WANDB_MODE says otherwise) or
    Trackio."""


@dataclass(frozen=True)
class _Plan:
    """What to train and how: the defaults of the flags."""

    env: str
    """The environment's id, as it was typed."""
    agent: str
    settings: Any
    """The agent's configuration."""
    options: RunConfig


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    first, _ = tyro.cli(
        _FirstFlags,
        args=arguments,
        prog="es-rl train",
        add_help=False,
        return_unknown_args=True,
    )
    saved = None if first.resume is None else _read(first)
    defaults = _new_plan(first) if saved is None else _plan_of(saved, first)
    flags, plan = _parse(arguments, defaults)
    _check(flags)
    if saved is None:
        _check_new(flags, defaults)
    else:
        _check_resumed(flags, plan, defaults)
    start_jax(getattr(plan.settings, "devices", None))
    flags.join()
    import_modules(flags.modules, "" if saved is not None else flags.env)
    env, train_env = _make_envs(flags, saved)
    # Files that its environment names are not opened, as that environment is not made.
    initial = None if flags.init_from is None else load_policy(flags.init_from, trusted=True)
    with blamed_on(_given_for_training(flags), "train_env="):
        agent = agents.make(plan.agent, env, train_env=train_env, **vars(plan.settings))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    new = Path("runs", env.spec.id, plan.agent, f"seed-{plan.options.seed}-{stamp}")
    out = flags.resume or flags.out or new
    described = {"env": env.spec.id, **asdict(plan)}
    loggers = () if flags.logger is None else (Tracker(flags.logger, out, described),)
    return train_and_report(
        agent,
        plan.options,
        out,
        resume=saved is not None,
        initial=initial,
        video_every=flags.video_every,
        loggers=loggers,
        needed=_needed(flags, env, train_env),
    )


def _needed(flags: TrainFlags, env: Env | HostEnv, train_env: Env | HostEnv | None) -> list[str]:
    """The flags without which the run is neither replayed nor resumed."""
    modules = dict.fromkeys(filter(None, (*flags.modules, split_id(flags.env)[0])))
    trust = any(e is not None and named_file(e.spec.kwargs) for e in (env, train_env))
    return [*(["--import", *modules] if modules else []), *(["--trust"] if trust else [])]


def _make_envs(
    flags: TrainFlags, saved: SavedRun | None
) -> tuple[Env | HostEnv, Env | HostEnv | None]:
    """Make the environment, and that of training if it has other arguments.

    Raises:
      UserError: an argument is wrong; the message names the flag.
    """
    on_host = flags.on_host()
    if saved is None:
        chosen = {**given(flags, _OF_BOTH), **on_host}
        return make_envs(flags.env, chosen, flags.env_kwargs, flags.train_env_kwargs)
    env = make_env(saved.env, {**saved.env_kwargs, **on_host}, ())
    if saved.train_env_kwargs is None:
        return env, None
    with blamed_on(_given_for_training(flags)):
        return env, envs.make(flags.env, **{**saved.train_env_kwargs, **on_host})


def _given_for_training(flags: TrainFlags) -> str:
    """What gave the arguments of training, for messages."""
    if flags.resume is not None:
        return f"resume={flags.resume}: config.json: train_env_kwargs"
    return given_for_training(flags.train_env_kwargs)


def _new_plan(first: _FirstFlags) -> _Plan:
    """The defaults of the flags for a new run."""
    env_id, name = (first.env or (_DEFAULT_ENV,))[0], first.agent
    import_agent(name, first.modules)
    options = RunConfig.of(preset(name, env_id).run)
    settings = {} if first.settings_file is None else _from_file(first, env_id)
    if first.init_from is not None:
        known = {field.name for field in fields(config_type(name))}
        try:
            network = saved_network_settings(first.init_from)
        except UserError as error:
            raise UserError(f"init_from={first.init_from}: {error}") from error
        settings |= {name: value for name, value in network.items() if name in known}
    return _Plan(env_id, name, configure(name, env_id, **settings), options)


def _from_file(first: _FirstFlags, env_id: str) -> dict[str, Any]:
    """The settings of the agent in the file of --settings."""
    assert first.settings_file is not None
    try:
        settings = read_settings(first.settings_file, first.agent)
        configure(first.agent, env_id, **settings)
    except UserError as error:
        raise UserError(f"settings={first.settings_file}: {error}") from error
    return settings


def _read(first: _FirstFlags) -> SavedRun:
    """Read the run to resume, whose folder may come from an untrusted source.

    Raises:
      UserError: the run cannot be read, or it names modules or files that no flag allows.
    """
    assert first.resume is not None
    if first.env:
        raise UserError(f"env={first.env[0]}: must not be given: --resume knows the environment")
    saved = read_config(first.resume)
    module, _ = split_id(saved.env)
    if module is not None and module not in first.modules:
        # Otherwise a file could make us import any module, by naming it in the environment's id.
        raise UserError(
            f"resume={first.resume}: the environment {saved.env} needs --import {module}"
        )
    for arguments in (saved.env_kwargs, saved.train_env_kwargs or {}):
        named = None if first.trust else named_file(arguments)
        if named is not None:
            raise UserError(
                f"resume={first.resume}: the environment's argument {one_line(named)} must not be "
                "a path or a module, unless the run is trusted (--trust)"
            )
    if saved.train_env not in (None, saved.env):
        raise UserError(
            f"resume={first.resume}: it trains on {one_line(saved.train_env)}, which must be made "
            "in Python: agents.train(agent, out=..., resume=True)"
        )
    return saved


def _plan_of(saved: SavedRun, first: _FirstFlags) -> _Plan:
    """The defaults of the flags for a resumed run.

    Raises:
      UserError: the run's settings do not fit its agent, or need more memory than any machine has.
    """
    import_agent(saved.agent, first.modules)
    _check_objects(saved, first)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.settings.items()}
    try:
        settings = configure(saved.agent, saved.env, **given)
        _check_size(settings)
    except UserError as error:
        raise UserError(f"resume={first.resume}: config.json: {one_line(error)}") from error
    return _Plan(saved.env, saved.agent, settings, saved.options)


def _check_objects(saved: SavedRun, first: _FirstFlags) -> None:
    """Refuse a run with objects of the user's, as config.json holds only their names."""
    for name in OBJECTS:
        text = saved.settings.get(name)
        if isinstance(text, str) and "." in text:
            raise UserError(
                f"resume={first.resume}: {name}={one_line(text)} is an object, which is not read "
                "from a file: go on in Python with agents.train(agent, out=..., resume=True)"
            )


def _check_size(settings: Any) -> None:
    """Refuse settings from a file that need more memory than any machine has.

    Raises:
      UserError: a size is too large.
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


def _parse(arguments: list[str], defaults: _Plan) -> tuple[TrainFlags, _Plan]:
    """The second parse: all flags, and the plan that results from them and the defaults.

    Raises:
      UserError: a value is out of range.
    """
    check_names("train", defaults.agent, defaults.settings, TrainFlags)
    flags, settings, options = parse_groups(
        "train",
        arguments,
        _groups(defaults),
        TrainFlags(env=defaults.env, agent=defaults.agent),
        defaults.settings,
        defaults.options,
        about=TrainFlags.__doc__ or "",
    )
    return flags, _Plan(flags.env, flags.agent, settings, options)


def _groups(plan: _Plan) -> Groups:
    """The groups of the help page."""
    return {
        "": (
            *("env", "env_steps", "seconds", "target_return", "seed", "out", "agent"),
            *("settings_file", "resume", "init_from", "env_kwargs", "evaluations", "video_every"),
            "modules",
        ),
        **of_agent(plan.agent, plan.settings, NetworkConfig),
        "environment": ("max_episode_steps", "train_env_kwargs", "info_keys", "backend"),
        "evaluation and checkpoint": (
            *("eval_every", "eval_episodes", "checkpoint_every", "checkpoint_seconds", "keep"),
        ),
        "machine": MACHINE,
        "distributed": [each.name for each in fields(ProcessFlags)],
        "other": ("logger", "trust"),
    }


def _check(flags: TrainFlags) -> None:
    """Refuse flags that are out of range, before JAX starts."""
    flags.check()
    flags.check_env("" if flags.resume is not None else flags.env)
    if flags.video_every is not None and flags.video_every < 1:
        raise UserError(f"video_every={flags.video_every}: must be at least 1")
    if flags.logger is not None:
        check_package(flags.logger)


def _check_new(flags: TrainFlags, defaults: _Plan) -> None:
    """Refuse flags that a new run cannot have."""
    if flags.env != defaults.env:
        raise UserError(f"env={flags.env}: must come first, as the flags' defaults depend on it")
    if flags.trust:
        raise UserError("trust=True: must come with --resume, whose run it trusts")
    if flags.out is not None:
        check_new(flags.out)


def _check_resumed(flags: TrainFlags, plan: _Plan, defaults: _Plan) -> None:
    """Refuse flags that would change what a resumed run computes."""
    if flags.env != defaults.env:
        raise UserError(f"env={flags.env}: must not be given: --resume knows the environment")
    if flags.agent != defaults.agent:
        raise UserError(f"agent={flags.agent}: must be {defaults.agent}, as the run began with it")
    for name, flag in _OF_NEW_RUNS.items():
        if getattr(flags, name) not in (None, ()):
            raise UserError(f"{flag}={getattr(flags, name)}: must not be given with --resume")
    check_kept(defaults.settings, plan.settings)
    defaults.options.going_on(asdict(plan.options))
