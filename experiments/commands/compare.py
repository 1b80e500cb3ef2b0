"""`es-rl compare`: train several agents from several seeds on a suite of tasks, and report."""

import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeAlias

import jax
import numpy as np
import tyro

import agents
import envs
from agents.registry import agent_type, check_train_env
from agents.training.provenance import versions
from envs.available import obstacle
from envs.base import Env, HostEnv
from envs.errors import UserError
from experiments.comparison import films, imported, report, results
from experiments.comparison.folder import (
    check_folder,
    claim,
    has_random_return,
    save_random_return,
    saved_random_return,
)
from experiments.comparison.outputs import write_tables
from experiments.comparison.results import Results, Run, Task
from experiments.comparison.statistics import spent_until
from experiments.comparison.suites import Contestant, Suite, load
from experiments.comparison.trials import (
    Stopped,
    Trials,
    final_returns,
    make_evaluator,
)
from experiments.flags.parsing import parse
from experiments.signals import acknowledged
from experiments.startup import import_modules, machine, start_jax

_Runs: TypeAlias = dict[tuple[str, str, int], Run]
"""Runs by task, agent and seed."""
_Envs: TypeAlias = dict[str, tuple[Env | HostEnv, Env | HostEnv | None]]
"""The environment of a task, and that of training if the task gives it other arguments, by the
task's name."""


@dataclass(frozen=True)
class CompareFlags:
    """Train agents on the tasks of a suite, from several seeds, and write a report.

    Finished runs are kept: a command that was stopped continues when it is started again with the
    same folder. A folder that holds nothing but `results.json` of an earlier comparison is enough.
    What is reported is all that the folder holds, so that a comparison can be made in parts, also
    by commands that run side by side on different tasks.
    """

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE")]
    """A bundled suite (classic, ablation, box2d, brax, masks, mujoco, paper, pixels, reference), or
    the path of a TOML file."""
    agents: tuple[str, ...] = ()
    """The agents to train: those of the suite unless given."""
    tasks: tuple[str, ...] = ()
    """The tasks to train on: those of the suite unless given."""
    seeds: int = 5
    """The number of seeds: each of these agents is trained on each task from seeds 0 to seeds-1."""
    out: Path | None = None
    """The comparison's folder: runs/compare/SUITE unless given."""
    scale: float = 1.0
    """Multiplies the budgets of all tasks, in env steps and in seconds; a run plays at least one
    generation."""
    seconds: float | None = None
    """The seconds of training of every run, in place of the suite's budgets: agents are then
    compared after equal wall-clock time."""
    results: tuple[Path, ...] = ()
    """CSV files with the evaluations of agents that were not run here, which are compared too. The
    columns are agent, task, seed, env_steps, seconds (of training; may be empty) and return."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules to import first, which register your own environments and agents."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags: CompareFlags = parse("compare", CompareFlags, arguments)
    if flags.seeds < 1:
        raise UserError(f"seeds={flags.seeds}: must be at least 1")
    import_modules(flags.modules)
    suite = load(flags.suite, flags.modules).with_budgets(flags.scale, flags.seconds)
    out = flags.out or Path("runs", "compare", suite.name)
    earlier = check_folder(out, suite)
    others = imported.gather(out, suite, earlier, flags.results)
    chosen, tasks_now = suite.choose(flags.agents), suite.choose_tasks(flags.tasks)
    _check_installed(chosen, tasks_now)
    start_jax()
    made = _make_envs(flags.suite, tasks_now, chosen)
    claim(out, suite, earlier)
    imported.keep(out, others)
    # What is saved is read at once, as damaged files should not be found after hours.
    failed = _failed_runs(earlier)
    _all_runs(_trials(suite, _present(suite, chosen, failed, out), made, out), failed)
    now = [each for each in _trials(suite, chosen, made, out) if each.task in tasks_now]
    ended, stopped = _play(now, flags.seeds)
    # Another command may have saved results meanwhile, in which its failed runs are.
    latest = check_folder(out, suite)
    failed |= _failed_runs(latest) | {k: run for k, run in ended.items() if run.error is not None}
    contestants = _present(suite, chosen, failed, out)
    runs = _all_runs(_trials(suite, contestants, made, out), failed)
    command = shlex.join(["es-rl", "compare", *arguments])
    found = _results(suite, contestants, runs, out, command)
    results.save(found, out / "results.json")
    write_tables(found, out)
    if stopped is not None:
        print(f"stopped by signal {stopped.signal}; the same command goes on from here")
        return 128 + stopped.signal
    print(f"report: {report.write_report(found, out, dict(films.replays(found, out)))}")
    return 0


def _failed_runs(saved: Results | None) -> _Runs:
    return {(run.task, run.agent, run.seed): run for run in (saved.failed() if saved else ())}


def _results(
    suite: Suite,
    contestants: Sequence[Contestant],
    runs: Sequence[Run],
    out: Path,
    command: str,
) -> Results:
    """The results of these runs, and of the imported agents that the folder has."""
    others = imported.gather(out, suite, None, ())
    every = [*runs, *(run for of_agent in others.values() for run in of_agent)]
    begun = {run.task for run in every}
    tasks = [
        replace(entry.task, random_return=saved_random_return(out, entry.task))
        for entry in suite.entries
        if entry.task.name in begun
    ]
    order = [task.name for task in tasks]
    return Results(
        suite=suite.name,
        command=command,
        agents=(*(contestant.name for contestant in contestants), *others),
        tasks=tuple(tasks),
        runs=tuple(sorted(every, key=lambda run: order.index(run.task))),
        versions=versions(),
        machine=machine(),
        relative_to=suite.relative_to,
        published={entry.task.name: entry.published for entry in suite.entries},
    )


def _present(
    suite: Suite, chosen: Sequence[Contestant], failed: _Runs, out: Path
) -> tuple[Contestant, ...]:
    """The chosen contestants, then the others that have failed or whose runs are in the folder."""
    saved = {path.parts[-3] for path in (out / "runs").rglob("seed-*/run.json")}
    saved |= {agent for _, agent, _ in failed}
    others = [*(each.name for each in suite.contestants), *agents.list_agents()]
    names = [each.name for each in chosen]
    return suite.choose(list(dict.fromkeys((*names, *(name for name in others if name in saved)))))


def _trials(
    suite: Suite,
    contestants: Sequence[Contestant],
    made: _Envs,
    out: Path,
) -> list[Trials]:
    """The trials of each contestant on each task, also on the tasks that are not trained now."""
    found = []
    for entry in suite.entries:
        env, train_env = made.get(entry.task.name, (None, None))
        found += [
            Trials(entry.task, env, agent, entry.settings_of(agent), out, train_env)
            for agent in contestants
            if env is None or agent_type(agent.kind).plays(env)
        ]
    return found


def _play(trials: Sequence[Trials], seeds: int) -> tuple[_Runs, Stopped | None]:
    """Train what is not saved yet.

    Returns:
      The runs that have ended, and the signal that ended the command early, if any.
    """
    ended: _Runs = {}
    try:
        with acknowledged("the run at hand is given up, those that ended are kept"):
            for each in trials:
                _measure_random_return(each)
                for run in each.runs(seeds):
                    ended[run.task, run.agent, run.seed] = run
                    print(_line(each.task, run), flush=True)
    except Stopped as error:
        return ended, error
    except KeyboardInterrupt:  # outside of training, which makes it a `Stopped`
        return ended, Stopped(signal.SIGINT)
    return ended, None


def _all_runs(trials: Sequence[Trials], failed: _Runs) -> tuple[Run, ...]:
    """The saved runs, of earlier commands and of those that train other parts at the same time too,
    and the failed ones, which are not saved. In the order of trials and seeds.

    Raises:
      UserError: a saved run is of another comparison, or damaged.
    """
    found = []
    for each in trials:
        of = (each.task.name, each.agent.name)
        seeds = {*each.saved_seeds(), *(key[2] for key in failed if key[:2] == of)}
        for seed in sorted(seeds):
            run = each.kept(seed) or failed.get((*of, seed))
            found += [] if run is None else [run]
    return tuple(found)


def _check_installed(contestants: Sequence[Contestant], tasks: Sequence[Task]) -> None:
    """Refuse agents and tasks whose packages are missing.

    Raises:
      UserError: a package is missing; the message says how to install it, and how to leave out the
        agents and tasks that need it.
    """
    for flag, missing in (
        ("agents", {c.name: agent_type(c.kind).missing_package() for c in contestants}),
        ("tasks", {task.name: obstacle(task.env) for task in tasks}),
    ):
        able = [name for name, why in missing.items() if why is None]
        for name, why in missing.items():
            if why is not None:
                without = f"; without it: --{flag} {' '.join(able)}" if able else ""
                raise UserError(f"{flag}={name}: {why}{without}")


def _make_envs(name: str, tasks: Sequence[Task], contestants: Sequence[Contestant]) -> _Envs:
    """Make the environments of all tasks first, so that errors are not found after hours.

    Raises:
      UserError: an argument is wrong, a package is missing, or an agent cannot train on other
        arguments.
    """
    made: _Envs = {}
    for task in tasks:
        where = f"suite={name}: task {task.name}"
        given, train_env = "env_kwargs", None
        try:
            env = envs.make(task.env, **task.env_kwargs)
            if task.train_env_kwargs:
                given = "train_env_kwargs"
                train_env = envs.make(task.env, **{**task.env_kwargs, **task.train_env_kwargs})
                for contestant in contestants:
                    if agent_type(contestant.kind).plays(env):
                        check_train_env(contestant.kind, env, train_env)
        except UserError as error:
            raise UserError(f"{where}, {given}: {error}") from error
        made[task.name] = env, train_env
    return made


def _measure_random_return(trials: Trials) -> None:
    """Play random actions on a task, once for a comparison, and save their mean return."""
    if has_random_return(trials.root, trials.task):
        return
    assert trials.env is not None, "these trials are only read"
    with agents.make("random", trials.env) as agent:
        policy = agent.snapshot(agent.init(jax.random.key(0)))
        played = final_returns(make_evaluator(agent), policy, trials.task.final_episodes)
    save_random_return(trials.root, trials.task, float(np.mean(played)))


def _line(task: Task, run: Run) -> str:
    start = f"{run.task} {run.agent} seed {run.seed}: "
    if run.error is not None:
        return f"{start}failed: {run.error}"
    reached = run.first_reaching(task.threshold)
    when = "not reached"
    if reached is not None:
        below = run.last_below(task.threshold)
        after = spent_until(run, below, "seconds") if below else 0.0
        when = f"reached after {after:.1f} to {spent_until(run, reached, 'seconds'):.1f} s"
    spent = f"{run.env_steps:,} env steps, {spent_until(run, None, 'seconds'):.1f} s"
    return f"{start}{run.return_mean:.1f} after {spent}; {task.threshold:g} {when}"
