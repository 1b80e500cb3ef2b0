"""The cost of checkpoints: times of the same run with and without them."""

import statistics
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

import agents
import envs
from agents.evolution.agent import EvolutionAgent
from agents.evolution.config import EggrollConfig
from agents.training.evaluation import Evaluator
from experiments.benchmarks.timing import Row, Table

_ENVS: dict[str, dict[str, Any]] = {
    "gymnasium/phys2d/CartPole-v1": {
        "population_size": 64,
        "sigma": 0.3,
        "learning_rate": 0.1,
        "hidden": (32,),
    },
    # The population is small so that there are many generations; a checkpoint's size does not
    # depend on it.
    "brax/inverted_pendulum": {"population_size": 16, "learning_rate": 0.05},
}
_SECONDS = 8.0
"""The approximate length of one run."""
_COUNT = 40
"""The number of checkpoints of a run. It is fifty times as many as in practice, as the cost of a
single checkpoint is lost in the noise of the measurement."""
_INTERVAL = 10.0
"""Seconds between checkpoints in practice; the reported cost is for this interval."""


def checkpoints(rounds: int) -> Iterator[Table]:
    """(g) Seconds of a run with and without checkpoints."""
    for name, settings in _ENVS.items():
        yield _checkpoints(name, settings, rounds)


def _checkpoints(name: str, settings: dict[str, Any], rounds: int) -> Table:
    env = envs.make(name)
    agent = EvolutionAgent("eggroll", env, EggrollConfig(**settings))
    actor = agent.snapshot(agent.init(jax.random.key(0))).actor
    evaluator = Evaluator(env, actor, agent.stage)

    def run(every: int | None, **budget: float) -> agents.TrainResult:
        with tempfile.TemporaryDirectory() as folder:
            return agents.train(
                agent,
                **{"env_steps": 10**12, **budget},  # type: ignore[arg-type]
                out=folder,
                eval_every=10**9,
                eval_episodes=8,
                evaluator=evaluator,
                checkpoint_every=every,
                checkpoint_seconds=None,
            )

    first = run(None, seconds=_SECONDS)
    # Checkpoints in the first or last generation do not count.
    every = max(1, first.generations // (_COUNT + 1))
    count = (first.generations - 1) // every
    times: dict[int | None, list[float]] = {None: [], every: []}
    for _ in range(rounds):
        for interval, taken in times.items():
            taken.append(run(interval, env_steps=first.env_steps).wall_seconds)
    without, with_them = (statistics.median(taken) for taken in times.values())
    each = (with_them - without) / count
    columns = {"s": ".2f", "ms a checkpoint": ".0f", f"% every {_INTERVAL:.0f} s": ".2f"}
    return Table(
        f"(g) {name}, {first.generations} generations, {first.env_steps:,} env steps",
        columns,
        [
            Row("without checkpoints", {"s": without}),
            Row(
                f"{count} checkpoints",
                dict(zip(columns, (with_them, each * 1e3, each / _INTERVAL * 100), strict=True)),
            ),
        ],
        ["training alone, metrics included; compilation and the last checkpoint are not in it."],
    )
