"""Benchmark of the wait for a run: from the command until its first generation has ended."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from agents.training.run_folder import METRICS
from experiments.benchmarks.timing import Row, Table

_TASKS = {
    "gymnasium/CartPole-v1": (),
    "gymnasium/Hopper-v5": (),
    "brax/ant": (),
    "brax/ant, spring": ("--env-kwargs", "backend=spring"),
}
"""Environments by the names of rows, and their flags; all other settings are the defaults."""
_PACE_SECONDS = 0.02
"""The seconds between two looks at a run's folder."""
_MOST_SECONDS = 900.0
"""The seconds after which a run counts as hanging."""


def starts(rounds: int) -> Iterator[Table]:
    """(j) Seconds from the command `es-rl train` until its first generation has ended."""
    rows = []
    for name, flags in _TASKS.items():
        command = ["train", name.partition(",")[0], *flags]
        times: dict[str, list[float]] = {"cold s": [], "warm s": []}
        for _ in range(rounds):
            with TemporaryDirectory() as cache:
                for column in times:
                    times[column].append(_first_generation(command, cache))
        rows.append(Row(name, {column: statistics.median(each) for column, each in times.items()}))
    yield Table(
        "(j) From the command to the end of the first generation",
        {"cold s": ".1f", "warm s": ".1f"},
        rows,
        [
            "Imports, compilation and the generation itself, with the default settings. Cold: "
            "nothing is compiled yet; warm: the same command once more."
        ],
    )


def _first_generation(command: list[str], cache: str) -> float:
    """Start a run, and stop it once it has written the metrics of its first generation.

    Raises:
      RuntimeError: the run ended before, or took too long.
    """
    # The cache of compiled programs is in the user's cache folder where JAX's variables do not say
    # otherwise.
    ours = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    with TemporaryDirectory() as folder, TemporaryFile("w+") as errors:
        metrics = Path(folder, "run", METRICS)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.cli", *command, "--out", str(metrics.parent)],
            env={**ours, "XDG_CACHE_HOME": cache},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while True:
                ended, seconds = process.poll() is not None, time.perf_counter() - began
                if metrics.exists() and metrics.read_bytes().endswith(b"\n"):
                    return seconds
                if ended or seconds > _MOST_SECONDS:
                    errors.seek(0)
                    what = "ended" if ended else f"no generation in {_MOST_SECONDS:g} s"
                    raise RuntimeError(f"es-rl {' '.join(command)}: {what}: {errors.read()}")
                time.sleep(_PACE_SECONDS)
        finally:
            process.kill()
            process.wait()
