"""Loggers, which receive the metrics of every generation."""

import json
import math
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from es_rl.files import open_own, whole

_LONGEST_LINE = 1 << 20
"""The longest line of metrics that is read, in bytes."""
_TIME = (
    *("generation", "env_steps", "wall_seconds", "evaluation_seconds", "steps_per_second"),
    "lane_utilization",
)
PROBLEMS = ("nonfinite_", "failed_", "update_skipped")
"""How the names of metrics begin that are 0 if all is well."""


def grouped(metrics: dict[str, float]) -> dict[str, float]:
    """Rename metrics to "group/name", as TensorBoard and tracking services show them in groups.

    The groups are eval, eval_info, time, train (returns of training episodes), train_info,
    train_env (if training plays another environment), update (whatever the agent's update reports)
    and warnings. Services sort groups and names by letters: the mean return is called "return",
    which puts it first in its group. The constant `eval_episodes` is left out.
    """
    return {_tag(name): x for name, x in metrics.items() if name != "eval_episodes"}


def _tag(name: str) -> str:
    if name in _TIME:
        return f"time/{name}"
    if name.startswith(PROBLEMS):
        return f"warnings/{name}"
    of, what = "train", name
    for prefix in ("eval", "train_env"):
        if name.startswith(f"{prefix}_"):
            of, what = prefix, name.removeprefix(f"{prefix}_")
    if what.startswith("info_"):
        return f"{of}_info/{what.removeprefix('info_')}"
    if of == "train" and not what.startswith(("return_", "success_")):
        return f"update/{what}"
    return f"{of}/{'return' if what == 'return_mean' else what}"


class Logger(Protocol):
    """Receives the metrics of every generation; `agents.train` takes any object with these methods.

    An exception in `log` ends the run, after a checkpoint of the generation. A run that is resumed
    from a checkpoint logs the generations after that checkpoint again.
    """

    def log(self, metrics: dict[str, float]) -> None:
        """Receive the metrics of one generation, with the names of `metrics.jsonl`."""
        ...

    def close(self) -> None:
        """Write the remaining data at the end of the run, also if the run ends with an
        exception."""
        ...


class JsonLines:
    """Writes one JSON object per generation to a file."""

    def __init__(self, path: Path, generations: int):
        """Keep the first `generations` lines of an existing file, and append to them.

        Raises:
          OSError: the file cannot be written; `log` and `sync` raise the same.
        """
        _cut(path, generations)
        self._file = os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND), "a", buffering=1)

    def log(self, metrics: dict[str, float]) -> None:
        """Write one line; JSON has no NaN, so a number that is not finite becomes null."""
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._file.write(json.dumps(finite) + "\n")

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cut(path: Path, generations: int) -> None:
    """Rewrite the file with its first `generations` complete lines only."""
    with ExitStack() as stack:
        old = None
        if os.path.lexists(path):
            old = stack.enter_context(os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb"))
        new = stack.enter_context(whole(path))
        for generation in range(generations if old is not None else 0):
            line = old.readline(_LONGEST_LINE)  # type: ignore[union-attr]
            if not line.endswith(b"\n") or _generation_of(line) != generation:
                break
            new.write(line)


def _generation_of(line: bytes) -> Any:
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return json.loads(line)["generation"]
    return None
