"""Measures what hyperparameters do on two cheap tasks, for the page `algorithm.md`.

`python -m docs.hyperparameters` trains what `experiments/results/hyperparameters/results.csv` does
not hold yet, and draws the figures in `docs/assets/hyperparameters/` from it. It may be stopped at
any time and called again. `--draw` trains nothing.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import agents
import envs
from agents.training.evaluation import Evaluator
from es_rl.files import write_whole
from experiments.startup import start_jax

_ROOT = Path(__file__).parent.parent
RESULTS = _ROOT / "experiments" / "results" / "hyperparameters" / "results.csv"
FIGURES = _ROOT / "docs" / "assets" / "hyperparameters"
FIRST_SEED = 100
SEEDS, SEEDS_OF_GRIDS = 6, 4
LANES = 7
"""Fewer than 8 lanes compile in two thirds of the time, which here is most of it; lanes do not
change what is learned."""
EVALUATIONS, EVALUATION_EPISODES = 20, 64

Settings = dict[str, Any]
Curve = list[tuple[int, float]]
"""(env steps, mean return) of each evaluation of the mean policy."""


@dataclass(frozen=True)
class Task:
    """A task, and the settings from which each study departs."""

    name: str
    """The name in figures and files."""
    env: str
    """The id of the environment."""
    env_steps: int
    """The budget of a run."""
    threshold: float
    """The return that counts as solved."""
    base: Settings
    """Settings of the agent; those of neither tasks nor studies have their preset's values."""


@dataclass(frozen=True)
class Study:
    """One hyperparameter, and the values that are compared."""

    name: str
    """The name in files."""
    values: Mapping[str, Mapping[str, Settings]]
    """By the task's name and the label of the value, what is changed from the base."""


CART_POLE = Task(
    name="cart-pole",
    env="gymnasium/phys2d/CartPole-v1",
    env_steps=100_000,
    threshold=475,
    base={
        "agent": "eggroll",
        "population_size": 64,
        "noise_reuse": 2,
        "episodes_per_member": 1,
        "hidden": [32, 32],
        "sigma": 0.3,
        "learning_rate": 0.06,
        "optimizer": "sgd",
        "rank": 1,
    },
)
PENDULUM = Task(
    name="pendulum",
    env="gymnasium/phys2d/Pendulum-v0",
    env_steps=500_000,
    threshold=-200,
    base={
        "agent": "eggroll",
        "population_size": 64,
        "noise_reuse": 2,
        "episodes_per_member": 1,
        "group_size": 16,
        "hidden": [32, 32],
        "activation": "relu",
        "episode_steps": 50,
        "sigma": 0.3,
        "learning_rate": 0.12,
        "optimizer": "sgd",
        "rank": 1,
    },
)
TASKS = {task.name: task for task in (PENDULUM, CART_POLE)}
SIGMAS = (0.075, 0.15, 0.3, 0.6)
RATES = (0.03, 0.06, 0.12, 0.24)


def _varied(name: str, pendulum: Sequence[Any], cart_pole: Sequence[Any]) -> Study:
    def labelled(values: Sequence[Any]) -> dict[str, Settings]:
        return {str(value): {name: value} for value in values}

    return Study(name, {"pendulum": labelled(pendulum), "cart-pole": labelled(cart_pole)})


def _ranked(task: Task) -> Settings:
    # Uniform numbers from -1/2 to 1/2 have a standard deviation of 1 / sqrt(12), z-scores have 1.
    rate = round(task.base["learning_rate"] * math.sqrt(12), 3)
    return {"shaping": "centered_rank", "learning_rate": rate}


_FULL = {"agent": "open_es", "rank": None}
STUDIES = (
    Study(
        "population_size",
        {
            "pendulum": {
                "16": {"population_size": 16},
                "64": {},
                "256": {"population_size": 256},
                "256, rate 0.36": {"population_size": 256, "learning_rate": 0.36},
            },
            "cart-pole": {
                "16": {"population_size": 16},
                "64": {},
                "256": {"population_size": 256},
            },
        },
    ),
    Study(
        "rank",
        {
            "pendulum": {"1": {}, "4": {"rank": 4}, "full": _FULL},
            "cart-pole": {"1": {}, "4": {"rank": 4}, "full": _FULL},
        },
    ),
    _varied("noise_reuse", (1, 2, 8), (1, 2)),
    _varied("episodes_per_member", (1, 2, 4), (1, 4)),
    Study(
        "shaping",
        {
            "pendulum": {
                "z-score, G = 16": {},
                "rank, G = 16": _ranked(PENDULUM),
                "z-score, G = 64": {"group_size": 64},
                "z-score, no groups": {"group_size": 0},
            },
            "cart-pole": {"z-score": {}, "rank": _ranked(CART_POLE)},
        },
    ),
    Study(
        "top_draws",
        {
            "pendulum": {
                "all 32": {"group_size": 0},
                "16": {"group_size": 0, "top_draws": 16},
                "8": {"group_size": 0, "top_draws": 8},
            },
            "cart-pole": {"all 32": {}, "8": {"top_draws": 8}},
        },
    ),
)


def settings_of(task: Task, changed: Settings) -> str:
    """The settings of a run as JSON, which names it."""
    chosen = {k: v for k, v in {**task.base, **changed}.items() if v is not None}
    return json.dumps(chosen, sort_keys=True)


def grid() -> Iterator[tuple[float, float, str]]:
    """Each sigma and learning rate that is tried on Pendulum, and the settings of its runs."""
    for sigma in SIGMAS:
        for rate in RATES:
            yield sigma, rate, settings_of(PENDULUM, {"sigma": sigma, "learning_rate": rate})


def wanted() -> dict[tuple[str, str], int]:
    """The number of seeds of each task and settings that figures need."""
    seeds: dict[tuple[str, str], int] = {}
    for name, task in TASKS.items():
        for study in STUDIES:
            for changed in study.values[name].values():
                seeds[name, settings_of(task, changed)] = SEEDS
        if task is PENDULUM:
            for _, _, settings in grid():
                seeds.setdefault((name, settings), SEEDS_OF_GRIDS)
    return seeds


@dataclass
class Results:
    """The curves that have been measured; each new one is written at once."""

    path: Path
    """The CSV file: task, settings, seed, and the curve as "env steps:return" with spaces."""
    curves: dict[tuple[str, str, int], Curve]
    """By task, settings and seed."""

    @staticmethod
    def read(path: Path) -> "Results":
        """Read the file; there are no curves if it is absent."""
        curves: dict[tuple[str, str, int], Curve] = {}
        if path.exists():
            for row in csv.DictReader(path.read_text().splitlines()):
                pairs = (point.split(":") for point in row["curve"].split())
                curve = [(int(steps), float(value)) for steps, value in pairs]
                curves[row["task"], row["settings"], int(row["seed"])] = curve
        return Results(path, curves)

    def add(self, task: str, settings: str, seed: int, curve: Curve) -> None:
        """Add a curve and write the file."""
        self.curves[task, settings, seed] = curve
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("task", "settings", "seed", "curve"))
        for key, points in sorted(self.curves.items()):
            rows.writerow((*key, " ".join(f"{steps}:{value:.1f}" for steps, value in points)))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, text.getvalue().encode())

    def of(self, task: str, settings: str) -> list[Curve]:
        """The curves of all seeds that are there."""
        return [curve for key, curve in self.curves.items() if key[:2] == (task, settings)]


def missing(results: Results) -> Iterator[tuple[str, str, list[int]]]:
    """Task, settings and seeds of the runs that are wanted and not there."""
    for (task, settings), count in wanted().items():
        seeds = range(FIRST_SEED, FIRST_SEED + count)
        left = [seed for seed in seeds if (task, settings, seed) not in results.curves]
        if left:
            yield task, settings, left


def measure(results: Results) -> None:
    """Train what is missing."""
    evaluators: dict[str, Evaluator] = {}
    for name, text, seeds in missing(results):
        task, settings = TASKS[name], json.loads(text)
        env = envs.make(task.env)
        with agents.make(settings.pop("agent"), env, lanes=LANES, **settings) as agent:
            if name not in evaluators:  # the networks of a task are all of one shape
                policy = agent.snapshot(agent.init(jax.random.key(0)))
                evaluators[name] = Evaluator(env, policy.actor)
            for seed in seeds:
                curve = train(agent, evaluators[name], task, seed)
                results.add(name, text, seed, curve)
                print(name, text, seed, curve[-1], flush=True)


def train(agent: agents.Agent, evaluator: Evaluator, task: Task, seed: int) -> Curve:
    """Train from one seed, and return the curve of its evaluations."""
    curve: Curve = []

    def note(metrics: dict[str, Any], _: Any) -> None:
        if "eval_return_mean" in metrics:
            curve.append((metrics["env_steps"], metrics["eval_return_mean"]))

    agents.train(
        agent,
        env_steps=task.env_steps,
        seed=seed,
        evaluations=EVALUATIONS,
        eval_episodes=EVALUATION_EPISODES,
        checkpoint_seconds=None,
        evaluator=evaluator,
        on_generation=note,
    )
    return curve


def over_seeds(curves: Sequence[Curve], env_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The quartiles over seeds of the latest evaluation.

    Returns:
      Env steps (points,), from the first at which all seeds have been evaluated to `env_steps`,
      and the quartiles (3, points) there.
    """
    x = np.linspace(0, env_steps, 101)
    x = x[x >= max(curve[0][0] for curve in curves)]
    values = []
    for curve in curves:
        steps, returns = np.array(curve).T
        values.append(returns[np.searchsorted(steps, x, side="right") - 1])
    return x, np.quantile(values, (0.25, 0.5, 0.75), axis=0)


def score(curves: Sequence[Curve], env_steps: int) -> float:
    """The median over seeds of the mean return of the evaluations in the last half of a run."""
    late = [[value for steps, value in c if 2 * steps >= env_steps] for c in curves]
    return float(np.median([np.mean(values) for values in late]))


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":")
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "es_rl",  # the same figure is the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "savefig.facecolor": "#fbfbfd",
}
TITLES = {"cart-pole": "CartPole", "pendulum": "Pendulum"}


def _save(figure: Figure, name: str) -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None, "Creator": None})


def _panel(task: Task) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.5, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(TITLES[task.name])
    return figure, axes


def draw_study(results: Results, study: Study, task: Task) -> None:
    """Draw the curves of a study on a task."""
    figure, axes = _panel(task)
    for i, (label, changed) in enumerate(study.values[task.name].items()):
        curves = results.of(task.name, settings_of(task, changed))
        if not curves:
            continue
        x, (low, median, high) = over_seeds(curves, task.env_steps)
        axes.plot(x / 1000, median, LINES[i], color=COLOURS[i], label=label, linewidth=1.6)
        axes.fill_between(x / 1000, low, high, color=COLOURS[i], alpha=0.15, linewidth=0)
    axes.axhline(task.threshold, color="#777777", linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set_xlabel("thousand env steps")
    axes.set_ylabel("return of the mean policy")
    axes.legend(title=study.name, fontsize=8, title_fontsize=8, framealpha=0.8)
    _save(figure, f"{study.name}-{task.name}")


def draw_grid(results: Results) -> None:
    """Draw the score of each sigma and learning rate on Pendulum."""
    scores = np.full((len(SIGMAS), len(RATES)), np.nan)
    for sigma, rate, settings in grid():
        # The base has more seeds than the others, and all cells should be means of as many.
        seeds = range(FIRST_SEED, FIRST_SEED + SEEDS_OF_GRIDS)
        curves = [results.curves.get((PENDULUM.name, settings, seed), []) for seed in seeds]
        if all(curves):
            scores[SIGMAS.index(sigma), RATES.index(rate)] = score(curves, PENDULUM.env_steps)
    figure, axes = _panel(PENDULUM)
    axes.grid(False)
    axes.pcolormesh(scores, cmap="viridis", edgecolors="#fbfbfd", linewidth=1.5)
    low, high = np.nanmin(scores), np.nanmax(scores)
    for (i, j), value in np.ndenumerate(scores):
        colour = "black" if value > (low + high) / 2 else "white"
        axes.text(j + 0.5, i + 0.5, f"{value:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(np.arange(len(RATES)) + 0.5, [f"{rate:g}" for rate in RATES])
    axes.set_yticks(np.arange(len(SIGMAS)) + 0.5, [f"{sigma:g}" for sigma in SIGMAS])
    axes.set_xlabel("learning_rate")
    axes.set_ylabel("sigma")
    _save(figure, "sigma-pendulum")


def draw(results: Results) -> None:
    """Draw all figures."""
    with matplotlib.rc_context(LOOK):
        for task in TASKS.values():
            for study in STUDIES:
                draw_study(results, study, task)
        draw_grid(results)


def main() -> None:
    """Measure what is missing, unless told only to draw, and draw."""
    results = Results.read(RESULTS)
    if "--draw" not in sys.argv[1:]:
        start_jax(devices=1)
        measure(results)
    draw(results)


if __name__ == "__main__":
    main()
