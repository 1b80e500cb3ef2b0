"""Starts of Brax: each environment, backend and population in a process of its own, to its end.

    python -m tests.starts FILE [--episode-steps 20] [--only ant]

A start that stands still is one whose watchdog speaks, or that takes longer than ten minutes; the
seconds of CPU time beside it tell a start that waits from one on a machine that is too busy. Lines
of FILE, one JSON object a start, are kept: started again, the command goes on where it was stopped.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

BACKENDS = ("generalized", "mjx", "spring", "positional")
POPULATIONS = (64, 512, 2048)
_MOST_SECONDS = 600

_START = """
import logging, sys, time

import jax

from experiments.startup import start_jax

name, backend, population, episode_steps = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
start_jax()

import agents, envs
from agents.training.watchdog import Watchdog

try:
    env = envs.make(f"brax/{name}", backend=backend)
except envs.UserError as error:
    sys.exit(f"does not run: {error}")
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
# A small network: what may stand still is the physics.
settings = {"population_size": population, "episode_steps": episode_steps, "hidden": ()}
agent = agents.make("eggroll", env, **settings)
began = time.perf_counter()
with Watchdog("it stands still", 60.0):
    state = agent.init(jax.random.key(0))
    agent.compile(state)
    compiled = time.perf_counter()
    agent.step(state)[1]["return_mean"].block_until_ready()
ended = time.perf_counter()
print(f"ended {compiled - began:.1f} {ended - compiled:.1f}")
"""


def start(name: str, backend: str, population: int, episode_steps: int) -> dict:
    """What became of a start: {"outcome": "ended" | "stands still" | "does not run" | "failed"}."""
    command = [sys.executable, "-c", _START, name, backend, str(population), str(episode_steps)]
    began, used = time.monotonic(), _cpu_seconds()
    said, outcome = "", None
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=_MOST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            outcome = "stands still"
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if outcome is None:
        if "stands still" in said:
            outcome = "stands still"
        elif process.returncode == 0:
            outcome = "ended"
        else:
            outcome = "does not run" if last.startswith("does not run") else "failed"
    seconds = round(time.monotonic() - began, 1)
    used = round(_cpu_seconds() - used, 1)
    return {"outcome": outcome, "seconds": seconds, "cpu_seconds": used, "said": last}


def _cpu_seconds() -> float:
    """CPU time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    from envs.suites.brax_suite import names

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--episode-steps", type=int, default=20)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    file, kept = arguments.file, []
    if file.exists():
        kept = [json.loads(line) for line in file.read_text().splitlines()]
    done = {(line["env"], line["backend"], line["population"]) for line in kept}
    for backend, name, population in itertools.product(BACKENDS, sorted(names()), POPULATIONS):
        if (name, backend, population) in done or arguments.only not in (None, name):
            continue
        became = start(name, backend, population, arguments.episode_steps)
        line = {"env": name, "backend": backend, "population": population, **became}
        kept.append(line)
        with file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        print(*line.values(), flush=True)
    outcomes = [line["outcome"] for line in kept]
    counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
    print(f"{len(kept)} starts: {counts}")
    sys.exit(1 if counts.keys() & {"stands still", "failed"} else 0)


if __name__ == "__main__":
    main()
