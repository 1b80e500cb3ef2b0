"""`es-rl benchmark`: times of the engine and its alternatives, measured in one process.

Every table names its reference. A ratio is the reference's time divided by the row's time, so that
larger is faster. Times are medians over rounds, without compilation; in a round all rows of a table
take turns.
"""

import json
import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import jax
import tyro

from agents.training.provenance import versions
from envs.errors import UserError
from experiments.benchmarks.timing import Table
from experiments.flags.parsing import parse
from experiments.startup import machine, start_jax

Section: TypeAlias = Literal[
    "forward",
    "update",
    "generation",
    "lanes",
    "memory",
    "host",
    "checkpoints",
    "networks",
    "suites",
    "starts",
]


@dataclass(frozen=True)
class BenchmarkFlags:
    """Measure the engine and its alternatives, and print a table for each comparison."""

    sections: tyro.conf.Positional[tuple[Section, ...]] = get_args(Section)
    """What to measure; all sections take about an hour on 2 cores."""
    rounds: int = 5
    """How often every row is timed; the rows of a table take turns."""
    devices: int | None = None
    """Devices that share a population: all unless given. On a CPU a device is a core."""
    json: Path | None = None
    """Write the tables, with the command, versions and machine, to this JSON file."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags: BenchmarkFlags = parse("benchmark", BenchmarkFlags, arguments)
    for name in ("rounds", "devices"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: must be at least 1")
    if flags.json is not None and (flags.json.is_dir() or not flags.json.parent.is_dir()):
        raise UserError(f"json={flags.json}: must be a file in a folder that exists")
    start_jax(flags.devices)
    # Compilation is timed, so the cache must not be used.
    jax.config.update("jax_enable_compilation_cache", False)
    from experiments.benchmarks import (
        checkpoints,
        engine,
        host,
        networks,
        rollouts,
        starts,
        suite_loops,
    )

    rounds, devices = flags.rounds, flags.devices
    measure: dict[Section, Callable[[], Iterable[Table]]] = {
        "forward": lambda: engine.forward(rounds, devices),
        "update": lambda: engine.update(rounds),
        "generation": lambda: rollouts.generation(rounds, devices),
        "lanes": lambda: rollouts.lanes(rounds, devices),
        "memory": engine.memory,
        "host": lambda: host.host(rounds),
        "checkpoints": lambda: checkpoints.checkpoints(rounds),
        "networks": lambda: networks.networks(rounds),
        "suites": lambda: suite_loops.suites(rounds),
        "starts": lambda: starts.starts(rounds),
    }
    tables: list[Table] = []
    for section in flags.sections:
        for table in measure[section]():
            _print(table)
            tables.append(table)
            if flags.json is not None:  # after each table, as the next may take minutes
                _write(flags.json, arguments, tables)
    return 0


def _print(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, title_justify="left")
    shown.add_column("")
    for column in table.columns:
        shown.add_column(column, justify="right")
    for row in table.rows:
        values = [row.values.get(column) for column in table.columns]
        formats = table.columns.values()
        cells = ["-" if v is None else format(v, f) for v, f in zip(values, formats, strict=True)]
        shown.add_row(row.name, *cells)
    console = Console()
    console.print(shown)
    for note in table.notes:
        console.print(note, highlight=False)


def _write(path: Path, arguments: list[str], tables: list[Table]) -> None:
    record = {
        "command": shlex.join(["es-rl", "benchmark", *arguments]),
        "versions": versions(),
        "machine": machine(),
        "tables": [asdict(table) for table in tables],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
