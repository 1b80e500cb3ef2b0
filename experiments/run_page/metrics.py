"""The metrics of a run, read piece by piece while the run writes them."""

import json
import math
import os
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.training.run_folder import METRICS
from envs.errors import UserError, one_line
from es_rl.files import open_own

_LONGEST_LINE = 1 << 20
"""The longest line that is read, in bytes."""
_LONGEST_NAME = 100
_MOST_NAMES = 300
_MOST_NUMBERS = 100_000_000
"""The most numbers that are kept, of 8 bytes each: 3 million generations of 30 metrics."""
_LARGEST = 1e100
"""Numbers beyond this count as not finite: differences of them might not be."""
_COUNTS = ("generation", "env_steps")
"""The metrics that every line must have."""


@dataclass(eq=False)
class Metrics:
    """The columns of `metrics.jsonl`: one number a generation for each name."""

    folder: Path
    """The run's folder."""
    lines: int = 0
    """How many lines, of a generation each, were read."""
    not_finite: Counter[str] = field(default_factory=Counter)
    """How often each metric was not finite, by name."""
    changed: float | None = None
    """When the file was last written, in seconds since the epoch; None if there is no file."""
    _columns: dict[str, "array[float]"] = field(default_factory=dict)
    _file: int | None = None
    """The number of the file that was read, as a resumed run replaces it by a new one."""
    _offset: int = 0
    """How many bytes of the file were read."""

    @property
    def names(self) -> list[str]:
        """The names of the metrics, in the order of the file."""
        return list(self._columns)

    def __getitem__(self, name: str) -> np.ndarray:
        """(lines,) float64, NaN where a metric is absent or not finite."""
        if name not in self._columns:
            return np.full(self.lines, math.nan)
        return np.array(self._columns[name])

    def last(self, name: str) -> float | None:
        """The value of the last generation; None if it is absent or not finite."""
        values = self._columns.get(name)
        return None if not values or math.isnan(values[-1]) else values[-1]

    def read(self) -> bool:
        """Read the lines that were added since the last call; return whether there were any.

        The last line may be half-written: without its end it is left for the next call. A file that
        was replaced, as a run does that is resumed, is read from its start.

        Raises:
          UserError: a line holds no metrics, or there are too many numbers.
          OSError: the file cannot be read.
        """
        path = self.folder / METRICS
        if not os.path.lexists(path):
            return False
        with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
            status = os.fstat(file.fileno())
            self.changed = status.st_mtime
            anew = status.st_ino != self._file or status.st_size < self._offset
            if anew:
                self.lines, self._offset, self._file = 0, 0, status.st_ino
                self._columns, self.not_finite = {}, Counter()
            before = self.lines
            file.seek(self._offset)
            while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
                self._add(line)
                self._offset += len(line)
            if len(line) == _LONGEST_LINE:
                raise self._damaged(f"must have fewer than {_LONGEST_LINE} bytes")
        return anew or self.lines > before

    def _add(self, line: bytes) -> None:
        """Add the metrics of a line to the columns."""
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"must be a JSON object ({one_line(error)})") from error
        if not isinstance(values, dict):
            raise self._damaged("must be a JSON object")
        for name in values:
            if name not in self._columns:
                self._add_column(name)
        self._check_counts(values)
        for name, column in self._columns.items():
            number = values.get(name, math.nan)
            if name in values and not (type(number) is float and abs(number) <= _LARGEST):
                number = self._checked(name, number)
            column.append(number)
        self.lines += 1
        if self.lines * len(self._columns) > _MOST_NUMBERS:
            raise self._damaged(f"it and those before hold more than {_MOST_NUMBERS:,} numbers")

    def _checked(self, name: str, value: Any) -> float:
        """A value as a number that is finite, or NaN."""
        if value is None or (isinstance(value, int | float) and not abs(value) <= _LARGEST):
            self.not_finite[name] += 1
            return math.nan
        if not isinstance(value, int | float):
            raise self._damaged(f"{name} must be a number or null")
        return float(value)

    def _add_column(self, name: str) -> None:
        if not (name.isprintable() and 0 < len(name) <= _LONGEST_NAME):
            raise self._damaged(
                f"{name[:_LONGEST_NAME]!a} must be a printable name of 1 to {_LONGEST_NAME} "
                "characters"
            )
        if len(self._columns) == _MOST_NAMES:
            raise self._damaged(f"there must be at most {_MOST_NAMES} names")
        self._columns[name] = array("d", [math.nan]) * self.lines

    def _check_counts(self, values: dict[str, Any]) -> None:
        """Check that a line follows upon the last one."""
        for name in _COUNTS:
            if not isinstance(values.get(name), int):
                raise self._damaged(f"{name} must be there, and a whole number")
        least = {"generation": (self.last("generation") or 0) + bool(self.lines)}
        least["env_steps"] = self.last("env_steps") or 0
        for name, number in least.items():
            if not values[name] >= number:
                raise self._damaged(f"{name} must be at least {number:.0f}")

    def _damaged(self, what: str) -> UserError:
        return UserError(f"line {self.lines + 1} of {METRICS}: {what}")
