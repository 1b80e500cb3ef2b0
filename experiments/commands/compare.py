"""`es-rl compare`: train several agents from several seeds on a suite of tasks, and report."""

import json
import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, TypeAlias

import jax
import numpy as np
import tyro

import agents
import envs
from agents import load_policy
from agents.policies.policy import Policy
from agents.policies.policy_files import named_file, read_json
from agents.registry import agent_type, check_train_env
from agents.training.filming import film
from agents.training.provenance import versions
from envs.base import Env, HostEnv
from envs.errors import UserError
from es_rl.files import check_plain, write_whole
from experiments.cli import can_be_made, parse
from experiments.comparison import report, results, tables
from experiments.comparison.results import Results, Run, Task, run_text
from experiments.comparison.suites import Contestant, Suite, checked_name, load
from experiments.comparison.trials import (
    Stopped,
    Trials,
    final_returns,
    make_evaluator,
    run_folder,
)
from experiments.signals import acknowledged
from experiments.startup import import_modules, machine, start_jax
from experiments.videos import why_not, write_video

_FILES = ("tasks.json", "results.json", "results.csv", "table.md", "report.html")
_FOLDERS = ("figures", "runs")
"""The folders inside a comparison's folder."""
_Runs: TypeAlias = dict[tuple[str, str, int], Run]
"""Runs by task, agent and seed."""
_LARGEST_FILM = 256 << 20
"""The largest film in bytes that is used; no episode needs as many."""


@dataclass(frozen=True)
class CompareFlags:
    """Train agents on the tasks of a suite, from several seeds, and write a report.

    Finished runs are kept: a command that was stopped continues when it is started again with the
    same folder. A folder that holds nothing but `results.json` of an earlier comparison is enough.
    What is reported is all that the folder holds, so that a comparison can be made in parts, also
    by commands that run side by side on different tasks.
    """

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE")]
    """A bundled suite (classic, ablation, box2d, brax, mujoco, pixels, reference), or the path of a
    TOML file."""
    agents: tuple[str, ...] = ()
    """The agents to train: those of the suite unless given."""
    tasks: tuple[str, ...] = ()
    """The tasks to train on: those of the suite unless given."""
    seeds: int = 5
    """The number of seeds: each of these agents is trained on each task from seeds 0 to seeds-1."""
    out: Path | None = None
    """The comparison's folder: runs/compare/SUITE unless given."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules to import first, which register your own environments and agents."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags: CompareFlags = parse("compare", CompareFlags, arguments)
    if flags.seeds < 1:
        raise UserError(f"seeds={flags.seeds}: must be at least 1")
    import_modules(flags.modules)
    suite = load(flags.suite, flags.modules)
    out = flags.out or Path("runs", "compare", suite.name)
    earlier = _check_folder(out, suite)
    chosen, tasks_now = suite.choose(flags.agents), suite.choose_tasks(flags.tasks)
    _check_installed(chosen)
    start_jax()
    made = _make_envs(flags.suite, suite, chosen)
    _claim(out, suite, earlier)
    # What is saved is read at once, as damaged files should not be found after hours.
    failed = {(run.task, run.agent, run.seed): run for run in earlier.failed()} if earlier else {}
    _all_runs(_trials(suite, _present(suite, chosen, failed, out), made, out), failed)
    now = [each for each in _trials(suite, chosen, made, out) if each.task in tasks_now]
    ended, stopped = _play(now, flags.seeds)
    failed |= {key: run for key, run in ended.items() if run.error is not None}
    contestants = _present(suite, chosen, failed, out)
    runs = _all_runs(_trials(suite, contestants, made, out), failed)
    begun = {run.task for run in runs}
    tasks = (
        replace(entry.task, random_return=_saved_random_return(out, entry.task))
        for entry in suite.entries
        if entry.task.name in begun
    )
    found = Results(
        suite=suite.name,
        command=" ".join(["es-rl", "compare", *arguments]),
        agents=tuple(contestant.name for contestant in contestants),
        tasks=tuple(tasks),
        runs=runs,
        versions=versions(),
        machine=machine(),
    )
    results.save(found, out / "results.json")
    tables.write_csv(found, out / "results.csv")
    write_whole(out / "table.md", tables.markdown_table(found).encode())
    if stopped is not None:
        print(f"stopped by signal {stopped.signal}; the same command goes on from here")
        return 128 + stopped.signal
    media = {(name, agent): report.data_uri(path) for name, agent, path in _films(found, out)}
    print(f"report: {report.write_report(found, out, media)}")
    return 0


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
    made: Sequence[tuple[Env | HostEnv, Env | HostEnv | None]],
    out: Path,
) -> list[Trials]:
    return [
        Trials(entry.task, env, agent, entry.settings_of(agent), out, train_env)
        for entry, (env, train_env) in zip(suite.entries, made, strict=True)
        for agent in contestants
        if agent_type(agent.kind).plays(env)
    ]


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


def _check_installed(contestants: Sequence[Contestant]) -> None:
    """Refuse agents whose packages are missing.

    Raises:
      UserError: a package is missing; the message says how to install it, and how to leave the
        agent out.
    """
    for contestant in contestants:
        missing = agent_type(contestant.kind).missing_package()
        if missing is not None:
            able = [c.name for c in contestants if not agent_type(c.kind).missing_package()]
            raise UserError(
                f"agents={contestant.name}: {missing}; without it: --agents {' '.join(able)}"
            )


def _make_envs(
    name: str, suite: Suite, contestants: Sequence[Contestant]
) -> list[tuple[Env | HostEnv, Env | HostEnv | None]]:
    """Make the environments of all tasks first, so that errors are not found after hours.

    Returns:
      For each task its environment, and that of training if the task gives it other arguments.

    Raises:
      UserError: an argument is wrong, or an agent cannot train on other arguments.
    """
    made = []
    for task in (entry.task for entry in suite.entries):
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
        made.append((env, train_env))
    return made


def _check_folder(out: Path, suite: Suite) -> Results | None:
    """Check that the folder is new or empty, or holds a comparison on the same tasks.

    Returns:
      The results that it holds, if any.

    Raises:
      UserError: the folder holds something else.
    """
    try:
        check_plain(out, _FILES, _FOLDERS)
    except (OSError, ValueError) as error:
        raise UserError(f"out={out}: must be a folder of a comparison: {error}") from error
    begun, ended = out / "tasks.json", out / "results.json"
    if not begun.exists() and not ended.exists():
        if not can_be_made(out) or (out.is_dir() and any(out.iterdir())):
            raise UserError(f"out={out}: must be an empty or a new folder, or one of a comparison")
        return None
    described = json.loads(_described(suite))
    earlier = None
    try:
        same = not begun.exists() or read_json(begun) == described
        if ended.exists():
            earlier = results.load(ended)
            for task in earlier.tasks:
                same &= asdict(replace(task, random_return=None)) in described
                if type(task.random_return) not in (int, float, NoneType):
                    raise UserError("results.json: random_return must be a number or null")
            for run in earlier.runs:
                _check_place(run, suite)
    except ValueError as error:
        raise UserError(f"out={out}: must be a folder of a comparison: {error}") from error
    if not same:
        raise UserError(f"out={out}: holds other tasks or budgets: must be another folder")
    return earlier


def _check_place(run: Run, suite: Suite) -> None:
    """Refuse a run whose place in the folder would be another than that of a run of the suite."""
    if run.task not in [entry.task.name for entry in suite.entries]:
        raise UserError(f"results.json has a run of {run.task!r}, which is no task of the suite")
    checked_name(run.agent, "results.json: the name of an agent")
    if type(run.seed) is not int or run.seed < 0:
        raise UserError(f"results.json: seed={run.seed!r}: must be a whole number of at least 0")
    if type(run.error) not in (str, NoneType):
        raise UserError("results.json: error must be a text or null")


def _claim(out: Path, suite: Suite, earlier: Results | None) -> None:
    """Make the folder, and record the suite in it.

    What only `results.json` has is put back into the folder: results that were copied without the
    runs, to another machine for example, can be added to.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "tasks.json", _described(suite).encode())
    if earlier is None:
        return
    for task in earlier.tasks:
        if task.random_return is not None and not _random_path(out, task).exists():
            _save_random_return(out, task, task.random_return)
    for run in earlier.runs:
        path = run_folder(out, run.task, run.agent, run.seed) / "run.json"
        if run.error is None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, run_text(run).encode())


def _described(suite: Suite) -> str:
    return json.dumps([asdict(entry.task) for entry in suite.entries], indent=1) + "\n"


def _random_path(out: Path, task: Task) -> Path:
    return out / "runs" / task.name / "random.json"


def _measure_random_return(trials: Trials) -> None:
    """Play random actions on a task, once for a comparison, and save their mean return."""
    if _random_path(trials.root, trials.task).exists():
        return
    with agents.make("random", trials.env) as agent:
        policy = agent.snapshot(agent.init(jax.random.key(0)))
        played = final_returns(make_evaluator(agent), policy, trials.task.final_episodes)
    _save_random_return(trials.root, trials.task, float(np.mean(played)))


def _save_random_return(out: Path, task: Task, mean: float) -> None:
    path = _random_path(out, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(mean if math.isfinite(mean) else None).encode())


def _saved_random_return(out: Path, task: Task) -> float | None:
    """The mean return of random actions; None if it is not measured yet, NaN if it is not finite.

    Raises:
      UserError: the file holds something else.
    """
    path = _random_path(out, task)
    if not path.exists():
        return None
    found = read_json(path)
    if found is not None and type(found) not in (int, float):
        raise UserError(f"out={path.parent}: random.json must hold a number or null; remove it")
    return math.nan if found is None else float(found)


def _line(task: Task, run: Run) -> str:
    start = f"{run.task} {run.agent} seed {run.seed}: "
    if run.error is not None:
        return f"{start}failed: {run.error}"
    reached = run.first_reaching(task.threshold)
    when = "not reached"
    if reached is not None:
        below = run.last_below(task.threshold)
        when = f"reached after {below.seconds if below else 0:.1f} to {reached.seconds:.1f} s"
    return (
        f"{start}{run.return_mean:.1f} after {run.env_steps:,} env steps, {run.seconds:.1f} s; "
        f"{task.threshold:g} {when}"
    )


def _films(found: Results, out: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield a film of each agent's best policy on each task: (task, agent, path).

    If a film cannot be made, one line says why, and the report is written without it.
    """
    for task in found.tasks:
        for agent in found.agents:
            best = report.best_run(found, task.name, agent)
            if best is None or best.policy is None or not (out / best.policy).exists():
                continue
            path = (out / best.policy).parent / "replay.mp4"
            if not path.exists() or path.stat().st_size > _LARGEST_FILM:
                try:
                    env = envs.make(task.env, **task.env_kwargs)
                    write_video(path, film(_policy(out / best.policy, env), env, seed=1))
                except Exception as error:
                    print(f"no film of {agent} on {task.name}: {why_not(error)}")
                    continue
            yield task.name, agent, path


def _policy(folder: Path, env: Env | HostEnv) -> Policy:
    """Load a policy to play on an environment of the suite.

    Raises:
      UserError: there is no policy, or it is for another environment.
    """
    # Files that the suite itself names are trusted, as the suite is the user's own.
    policy = load_policy(folder, trusted=named_file(env.spec.kwargs) is not None)
    for name in ("id", "kwargs", "raw_observation_space", "observation_space", "action_space"):
        if getattr(policy.spec, name) != getattr(env.spec, name):
            raise UserError(f"policy {str(folder)!r}: is not one of {env.spec.id} as in the suite")
    return policy
