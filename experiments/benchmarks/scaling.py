"""How far a generation scales: measured on this machine, and by a model beyond it.

    python -m experiments.benchmarks.scaling --out experiments/results/scaling

`docs/scaling.md` explains the model. Its inputs are measured here, its predictions are checked
against runs in 1, 2 and 4 processes, and it is plotted for up to 10,000 devices and a million
members.
"""

import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import envs
from agents.evolution.agent import EvolutionAgent
from agents.evolution.config import EggrollConfig
from es_rl import processes
from experiments.commands.launch import free_address
from experiments.flags.parsing import parse
from experiments.startup import machine, start_jax

_ON_HOST = "gymnasium/Pendulum-v1"
# Every setting that a preset may change is given, so that the table stays comparable.
_SETTINGS = "--optimizer adam --rank 1 --squash tanh"
_RUNS = {
    env: tuple(f"{flags} {_SETTINGS}".split())
    for env, flags in {
        "gymnasium/phys2d/CartPole-v1": "--population-size 2048 --env-steps 30000000 --sigma 0.3 "
        "--learning-rate 0.1 --hidden 32 --episode-steps None",
        "brax/inverted_pendulum": "--population-size 512 --env-steps 600000 --sigma 0.1 "
        "--learning-rate 0.05 --hidden 64 64 --episode-steps None",
        _ON_HOST: "--population-size 256 --env-steps 300000 --sigma 0.3 --learning-rate 0.1 "
        "--hidden 16 --activation relu --group-size 16 --episode-steps 100",
    }.items()
}
_PLACES = {"1, alone": 1, "1, neighbour busy": 1, "2": 2, "4": 4}
"""The number of processes of each measurement; the name says what else runs."""
_ROUNDS = 2
_LANES = 32
_ALONE = 1 / 8
"""The cost of a step of 1 lane, as a fraction of a step of 32 (see `es_rl.devices.tail_lanes`)."""
_NETWORK_LATENCY, _NETWORK_BANDWIDTH = 20e-6, 10e9
"""Latency (seconds) and bandwidth (bytes per second) between devices of the modelled cluster."""
_MODELLED = "brax/inverted_pendulum"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure and model how a generation scales."""

    out: Path
    """Folder for scaling.json and scaling.png."""
    exchange: tuple[str, int, int] | None = None
    """For the processes that this script starts: coordinator, number of processes, process id."""


@dataclass(frozen=True)
class Costs:
    """The inputs of the model: seconds on one core of this machine, and bytes."""

    lane_step: float
    """Seconds of one env step of one lane, including the network's action."""
    draw: float
    """Seconds to draw the noise of one member and to compute its part of the update."""
    job_bytes: int
    """Bytes that an episode's results send to every process."""
    noise_bytes: int
    """Bytes of the noise of one member."""
    params_bytes: int
    """Bytes of the parameters."""


def makespan(lengths: np.ndarray, lanes: int) -> int:
    """Steps until every job is done, if each free lane takes the next job."""
    free = [0] * min(lanes, len(lengths))
    for length in lengths.tolist():
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def generation_seconds(
    costs: Costs, lengths: np.ndarray, devices: int, *, shard_update: bool
) -> dict[str, float]:
    """Seconds of each part of a generation on `devices`, with one episode per member."""
    members = len(lengths)
    spans = [makespan(part, _LANES) for part in np.array_split(lengths, devices) if len(part)]
    lanes = min(_LANES, -(-members // devices))
    step = _LANES * costs.lane_step * (_ALONE + (1 - _ALONE) * (lanes - 1) / (_LANES - 1))
    hops = np.ceil(np.log2(devices))
    others = (devices - 1) / devices
    sent = members * costs.job_bytes * others
    if shard_update:
        sent += 2 * costs.params_bytes * others
    return {
        "rollout": max(spans) * step,
        "noise and update": members * costs.draw / (devices if shard_update else 1),
        "exchange": float(hops * _NETWORK_LATENCY + sent / _NETWORK_BANDWIDTH),
    }


def measure_costs(lane_step: float, rounds: int = 5) -> tuple[Costs, np.ndarray]:
    """The costs of the task `_MODELLED`, and the episode lengths of its first generation."""
    env = envs.make(_MODELLED)
    population = 1024
    config = EggrollConfig(population_size=population, devices=1, lanes=_LANES)
    agent: Any = EvolutionAgent("eggroll", env, config)
    state = agent.init(jax.random.key(0))
    learn = jax.jit(agent._learn)
    members, keys = agent.ask(state)
    played = agent.player.play(members, keys)
    asking = _median(lambda: agent.ask(state), rounds)
    learning = _median(lambda: learn(state, members.noise, played), rounds)
    leaves = jax.tree.leaves(members.noise.leaves)
    return Costs(
        lane_step=lane_step,
        draw=(asking + learning) / population,
        job_bytes=4 * (2 + 2 * played.obs_sum.shape[1]),
        noise_bytes=sum(leaf.nbytes for leaf in leaves) // population,
        params_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(state.es.params)),
    ), np.asarray(played.lengths)


def _median(run: Callable[[], Any], rounds: int) -> float:
    times = []
    jax.block_until_ready(run())
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def measure_runs() -> list[dict[str, Any]]:
    """Times of the same training in 1, 2 and 4 processes, which take turns.

    A single process runs on each of two cores, once alone and once while another run keeps the
    other core busy. A core is faster beside an idle core, and that speed must not count in favour
    of one process.
    """
    rows = []
    every = sorted(os.sched_getaffinity(0))
    pair = every[:2]
    for env_id, flags in _RUNS.items():
        taken: dict[str, list[dict[str, Any]]] = {place: [] for place in _PLACES}
        for number in range(_ROUNDS):
            for core in pair:
                taken["1, alone"].append(_run(env_id, flags, 1, [core]))
                with _busy(env_id, flags, [other for other in pair if other != core]):
                    taken["1, neighbour busy"].append(_run(env_id, flags, 1, [core]))
            taken["2"].append(_run(env_id, flags, 2, pair))
            if number == 0:
                taken["4"].append(_run(env_id, flags, 4, every[:4]))
        seconds = {
            place: float(np.median([run["seconds"] for run in runs]))
            for place, runs in taken.items()
        }
        for place, runs in taken.items():
            cores = min(_PLACES[place], len(every))
            rows.append(
                {
                    "env": env_id,
                    "place": place,
                    "processes": _PLACES[place],
                    "cores": cores,
                    **runs[0],
                    "seconds": seconds[place],
                    "all_seconds": [run["seconds"] for run in runs],
                    "efficiency": seconds["1, alone"] / seconds[place] / cores,
                    "of_independent": seconds["1, neighbour busy"] / seconds[place] / cores,
                }
            )
            print(rows[-1], flush=True)
    return rows


def _command(env_id: str, flags: tuple[str, ...], count: int, run: Path) -> list[str]:
    command = [sys.executable, "-m", "experiments.cli", "launch", "-n", str(count)]
    command += ["--", "train", env_id, *flags, "--out", str(run)]
    command += ["--target-return", "1e9", "--eval-every", "1000000"]
    lanes = ["--devices", "1", "--lanes", str(_LANES * count)]
    return command + (["--workers", "1"] if env_id == _ON_HOST else lanes)


@contextmanager
def _on(cores: list[int]) -> Iterator[None]:
    """Restrict processes that are started within this context to these cores."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # child processes inherit it
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


@contextmanager
def _busy(env_id: str, flags: tuple[str, ...], cores: list[int]) -> Iterator[None]:
    """Run another training of the same kind on these cores within this context."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        forever = (*flags, "--env-steps", str(10**12), "--seed", "1")  # the last value counts
        with _on(cores):
            command = _command(env_id, forever, 1, run)
            neighbour = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
                if neighbour.poll() is not None:
                    raise RuntimeError(f"{env_id}: the run that was to keep a core busy has ended")
                time.sleep(0.1)
            yield
        finally:
            neighbour.terminate()
            neighbour.wait()


def _run(env_id: str, flags: tuple[str, ...], count: int, cores: list[int]) -> dict[str, Any]:
    """Seconds of training, without compilation and evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        with _on(cores):
            command = _command(env_id, flags, count, run)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    steps = np.diff([0] + [line["env_steps"] for line in lines])
    return {
        "generations": len(lines),
        "env_steps": lines[-1]["env_steps"],
        "lane_steps": float(np.sum(steps / [line["lane_utilization"] for line in lines])),
        "seconds": float(np.sum(steps / [line["steps_per_second"] for line in lines])),
    }


def measure_exchange() -> list[dict[str, float]]:
    """Seconds that 2 processes need to gather arrays of several sizes."""
    coordinator = free_address()
    with tempfile.TemporaryDirectory() as folder:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name, "--out", folder]
                + ["--exchange", coordinator, "2", str(number)],
                env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
                stdout=subprocess.DEVNULL,
            )
            for number in range(2)
        ]
        assert [process.wait() for process in running] == [0, 0]
        found: list[dict[str, float]] = json.loads(Path(folder, "exchange.json").read_text())
    return found


def _exchange(out: Path, coordinator: str, count: int, number: int) -> None:
    start_jax(1)
    processes.start(coordinator, count, number)
    found = []
    for size in (1, 1000, 100_000, 1_000_000):
        x = np.zeros(size, np.float32)
        found.append({"bytes": 4 * size, "seconds": _median(lambda: processes.gather(x), 30)})  # noqa: B023
    if processes.is_main():
        (out / "exchange.json").write_text(json.dumps(found))


def simulate(costs: Costs, lengths: np.ndarray) -> list[dict[str, Any]]:
    """Evaluate the model for populations and numbers of devices beyond this machine."""
    generator, rows = np.random.default_rng(0), []
    for members in (10_000, 100_000, 1_000_000):
        # Episode lengths of untrained policies, which vary, and of trained ones.
        early = generator.choice(lengths, members)
        late = np.full(members, 1000)
        for phase, drawn in (("first generation", early), ("trained", late)):
            for devices in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000):
                for shard in (False, True):
                    parts = generation_seconds(costs, drawn, devices, shard_update=shard)
                    held = members * costs.noise_bytes // (devices if shard else 1)
                    rows.append(
                        {
                            "members": members,
                            "phase": phase,
                            "devices": devices,
                            "shard_update": shard,
                            **parts,
                            "seconds": sum(parts.values()),
                            "noise_bytes": held,
                        }
                    )
    return rows


def _predicted(run: dict[str, Any], costs: Costs, exchange: list[dict[str, float]]) -> float:
    """The seconds that the model predicts for a run on this machine."""
    rollout = run["lane_steps"] * costs.lane_step / run["cores"]
    # If there are fewer cores than processes, processes share a core.
    members = int(_RUNS[_MODELLED][1])
    update = members * costs.draw * run["processes"] / run["cores"]
    hops = np.ceil(np.log2(run["processes"]))
    return float(rollout + run["generations"] * (update + hops * exchange[0]["seconds"]))


def tables(record: dict[str, Any]) -> str:
    """The measurements and the model's predictions as Markdown tables."""
    columns = "| task | processes | cores | s | efficiency | of independent runs | model, s |"
    lines = [columns, "| --- " * 7 + "|"]
    for run in record["runs"]:
        model = f"{run['model_seconds']:.1f}" if "model_seconds" in run else ""
        lines.append(
            f"| {run['env']}, {run['generations']} generations "
            f"| {run['place']} | {run['cores']} | {run['seconds']:.2f} "
            f"| {run['efficiency']:.2f} | {run['of_independent']:.2f} | {model} |"
        )
    lines += ["", "| bytes from each of 2 processes | gathered in |", "| --- | --- |"]
    lines += [f"| {x['bytes']:,} | {x['seconds'] * 1e3:.1f} ms |" for x in record["exchange"]]
    columns = "| members | devices | update | rollout | noise and update | exchange | noise held |"
    for phase in ("first generation", "trained"):
        lines += ["", f"Model, {phase}, seconds of a generation:", "", columns, "| --- " * 7 + "|"]
        for row in record["model"]:
            if row["phase"] == phase and row["devices"] in (1, 100, 1000, 10_000):
                parts = [row[name] for name in ("rollout", "noise and update", "exchange")]
                lines.append(
                    f"| {row['members']:,} | {row['devices']:,} "
                    f"| {'sharded' if row['shard_update'] else 'replicated'} | "
                    + " | ".join(f"{part:.3g}" for part in parts)
                    + f" | {row['noise_bytes'] / 1e6:,.3g} MB |"
                )
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot the speedup over one device, for each population size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, phase in zip(axes, ("first generation", "trained"), strict=True):
        for number, members in enumerate(sorted({row["members"] for row in rows})):
            for shard, style in ((False, "--"), (True, "-")):
                line = [
                    row
                    for row in rows
                    if (row["phase"], row["members"], row["shard_update"])
                    == (phase, members, shard)
                ]
                devices = [row["devices"] for row in line]
                alone = next(row["seconds"] for row in line if row["devices"] == 1)
                label = f"{members:,} members, {'--shard-update' if shard else 'replicated'}"
                speed = [alone / row["seconds"] for row in line]
                axis.loglog(devices, speed, style, color=f"C{number}", label=label)
        axis.loglog([1, 10_000], [1, 10_000], color="0.8", zorder=0)
        axis.set(title=phase, xlabel="devices")
    axes[0].set_ylabel("speedup over one device")
    axes[1].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    flags: Flags = parse("scaling", Flags, arguments)
    if flags.exchange is not None:
        _exchange(flags.out, *flags.exchange)
        return 0
    flags.out.mkdir(parents=True, exist_ok=True)
    runs, exchange = measure_runs(), measure_exchange()
    start_jax(1)
    one = next(
        run for run in runs if (run["env"], run["place"]) == (_MODELLED, "1, neighbour busy")
    )
    costs, lengths = measure_costs(one["seconds"] / one["lane_steps"])
    for run in runs:
        if run["env"] == _MODELLED and run["processes"] > 1:
            run["model_seconds"] = _predicted(run, costs, exchange)
    rows = simulate(costs, lengths)
    record = {
        "machine": machine(),
        "runs": runs,
        "exchange": exchange,
        "costs": asdict(costs),
        "network": {"latency": _NETWORK_LATENCY, "bandwidth": _NETWORK_BANDWIDTH},
        "model": rows,
    }
    (flags.out / "scaling.json").write_text(json.dumps(record, indent=1) + "\n")
    (flags.out / "table.md").write_text(tables(record))
    draw(rows, flags.out / "scaling.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
