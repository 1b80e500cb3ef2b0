"""A generation's seconds and memory over the size of the network, for `eggroll` and `open_es`.

    python -m experiments.benchmarks.networks --out experiments/results/networks

Low rank pays where networks are large: full noise of every member is as large as the network, and
so is what it costs to read it in every step. Multilayer perceptrons play Pendulum, whose physics
costs next to nothing; Nature's convolutional network (Mnih et al. 2015) plays Atari's Pong.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import jax

import envs
from agents.evolution.agent import EvolutionAgent
from agents.evolution.config import EggrollConfig, EvolutionConfig
from experiments.benchmarks.timing import Row, Table
from experiments.flags.parsing import parse
from experiments.startup import machine, start_jax

CONFIGS = {"eggroll": EggrollConfig, "open_es": EvolutionConfig}
_STEPS = 100
"""The length of every episode: Pendulum never ends earlier, and Pong takes far longer."""

_PONG = "own/Pong"


@dataclass(frozen=True)
class Size:
    """One size of network, and the population that it is measured with."""

    env: str
    population: int
    settings: dict[str, Any]
    """The settings that make the network."""


def _mlp(width: int, layers: int) -> Size:
    return Size("gymnasium/phys2d/Pendulum-v0", 256, {"hidden": (width,) * layers})


SIZES = {
    "MLP 64x2": _mlp(64, 2),
    "MLP 128x2": _mlp(128, 2),
    "MLP 256x3": _mlp(256, 3),
    "MLP 512x3": _mlp(512, 3),
    "MLP 1024x3": _mlp(1024, 3),
    "Nature CNN": Size(_PONG, 64, {"network": "cnn", "cnn": "nature"}),
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure a generation of eggroll and of open_es for networks of several sizes."""

    out: Path | None = None
    """Folder for networks.json, table.md and networks.png."""
    rounds: int = 5
    """How many generations of each are timed; the median is reported."""
    measure: tuple[str, str] | None = None
    """For the processes that this starts itself: an agent and a size."""


def pong() -> gymnasium.Env:
    """Atari's Pong as Mnih et al. 2015 show it to their network: four grey frames of 84x84."""
    import ale_py
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    gymnasium.register_envs(ale_py)
    return FrameStackObservation(AtariPreprocessing(gymnasium.make("ALE/Pong-v5", frameskip=1)), 4)


def measure(agent_name: str, size: Size, rounds: int) -> dict[str, Any]:
    """Generations of one agent in this process, which should do nothing else.

    Returns:
      parameters: how many the network has; noise_bytes: what a generation's noise takes;
      compile_seconds; seconds: of each generation; peak_bytes: the most memory that this process
      has held, JAX and its compiler included.
    """
    env = envs.from_gymnasium(pong, id=_PONG) if size.env == _PONG else envs.make(size.env)
    settings = {"population_size": size.population, "episode_steps": _STEPS, **size.settings}
    # Presets are left out, as they may change.
    with EvolutionAgent(agent_name, env, CONFIGS[agent_name](**settings)) as agent:
        state = agent.init(jax.random.key(0))
        params = agent.snapshot(state).weights.params
        noise = jax.eval_shape(lambda state: agent.ask(state)[0].noise, state)
        began = time.perf_counter()
        agent.compile(state)
        compiled = time.perf_counter() - began
        seconds = []
        for number in range(rounds + 1):
            began = time.perf_counter()
            state, metrics = agent.step(state)
            jax.block_until_ready(state)
            if number:  # the first one starts threads and workers
                seconds.append(time.perf_counter() - began)
            assert metrics["env_steps"] == size.population * _STEPS
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "noise_bytes": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(noise)),
        "compile_seconds": compiled,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def measured(rounds: int) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """(size, agent -> what `measure` says), each in a process of its own, one after the other."""
    for size in SIZES:
        found = {}
        for agent in CONFIGS:
            command = [sys.executable, "-m", "experiments.benchmarks.networks"]
            command += ["--rounds", str(rounds), "--measure", agent, size]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[agent] = json.loads(done.stdout.splitlines()[-1])
        yield size, found


def table(found: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """A row for each size of network: both agents' seconds, memory and noise."""
    kinds = {"s": ".3f", "peak MB": ",.0f", "noise MB": ",.1f"}
    columns = {"parameters": ",.0f"}
    columns |= {f"{agent}: {kind}": how for kind, how in kinds.items() for agent in CONFIGS}
    columns["open_es takes"] = ".1f"
    rows = []
    for size, by_agent in found.items():
        values: dict[str, float | None] = {"parameters": by_agent["eggroll"]["parameters"]}
        for agent, run in by_agent.items():
            values[f"{agent}: s"] = statistics.median(run["seconds"])
            values[f"{agent}: peak MB"] = run["peak_bytes"] / 1e6
            values[f"{agent}: noise MB"] = run["noise_bytes"] / 1e6
        eggroll, open_es = (values[f"{agent}: s"] or 0.0 for agent in CONFIGS)
        values["open_es takes"] = open_es / eggroll
        rows.append(Row(f"{size}, {SIZES[size].population} members", values))
    notes = [
        f"A generation of {_STEPS} steps a member, the median of several, compilation apart.",
        "peak: all memory of the process, JAX and its compiler included; noise: that of `ask`.",
        "open_es takes: its seconds as a multiple of eggroll's.",
    ]
    return Table("networks, MLPs on phys2d Pendulum, Nature's CNN on Pong", columns, rows, notes)


def networks(rounds: int) -> Iterator[Table]:
    """(h) A generation over the size of the network."""
    yield table(dict(measured(rounds)))


def markdown(table: Table) -> str:
    """The table for a page."""
    lines = [f"| {' | '.join(['network', *table.columns])} |", "| --- " * (1 + len(table.columns))]
    lines[-1] += "|"
    for row in table.rows:
        cells = [format(row.values[column], how) for column, how in table.columns.items()]
        lines.append(f"| {' | '.join([row.name, *cells])} |")
    return "\n".join([*lines, "", *table.notes]) + "\n"


def draw(found: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Seconds and peak memory over the number of parameters; the CNN stands apart."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for number, agent in enumerate(CONFIGS):
        runs = {size: by_agent[agent] for size, by_agent in found.items()}
        for convolutional, style in ((False, "o-"), (True, "*")):
            chosen = [run for size, run in runs.items() if ("CNN" in size) == convolutional]
            counts = [run["parameters"] for run in chosen]
            label = f"{agent}, Nature's CNN on Pong, 64 members" if convolutional else agent
            options: dict[str, Any] = {"color": f"C{number}", "label": label, "markersize": 9}
            seconds = [statistics.median(run["seconds"]) for run in chosen]
            axes[0].loglog(counts, seconds, style, **options)
            axes[1].loglog(counts, [run["peak_bytes"] / 1e9 for run in chosen], style, **options)
    axes[0].set(xlabel="parameters", ylabel="seconds a generation")
    axes[1].set(xlabel="parameters", ylabel="peak memory of the process, GB")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    flags: Flags = parse("networks", Flags, arguments)
    start_jax()
    if flags.measure is not None:
        jax.config.update("jax_enable_compilation_cache", False)  # what is compiled here is timed
        agent, size = flags.measure
        print(json.dumps(measure(agent, SIZES[size], flags.rounds)))
        return 0
    out = flags.out or Path("experiments/results/networks")
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for size, by_agent in measured(flags.rounds):
        found[size] = by_agent
        print(size, by_agent, flush=True)
    record = {"machine": machine(), "steps": _STEPS, "found": found}
    (out / "networks.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "table.md").write_text(markdown(table(found)))
    draw(found, out / "networks.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
