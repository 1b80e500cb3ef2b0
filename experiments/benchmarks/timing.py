"""Times of alternatives that take turns, and tables of the times."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    name: str
    values: dict[str, float | None]
    """The value of each column; None if it was not measured."""


@dataclass(frozen=True)
class Table:
    """One comparison."""

    title: str
    """What is compared, with the section's letter."""
    columns: dict[str, str]
    """The format specification of each column's values."""
    rows: list[Row] = field(default_factory=list)
    """The lines of the table."""
    notes: list[str] = field(default_factory=list)
    """Sentences that are printed below the table."""


@dataclass(frozen=True)
class Contender:
    """One row of a table of times."""

    name: str
    run: Callable[[Any], Any]
    """The function that is timed: it takes the round's input, and returns arrays to wait for."""
    compile: Callable[[Any], None]
    """Compiles the function; it is called once, with the first round's input."""
    prepare: Callable[[int], Any] = lambda number: number
    """Makes the input of a round, given its number, before the clock starts. `run` may consume its
    input."""


def side_by_side(contenders: Sequence[Contender], rounds: int) -> dict[str, tuple[float, float]]:
    """The median seconds of a run, and the seconds of compilation, by name."""
    compiled = {}
    for contender in contenders:
        given = contender.prepare(0)
        began = time.perf_counter()
        contender.compile(given)
        compiled[contender.name] = time.perf_counter() - began
        jax.block_until_ready(contender.run(contender.prepare(0)))
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            given = jax.block_until_ready(contender.prepare(number))
            began = time.perf_counter()
            jax.block_until_ready(contender.run(given))
            times[contender.name].append(time.perf_counter() - began)
    return {name: (statistics.median(taken), compiled[name]) for name, taken in times.items()}
