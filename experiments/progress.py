"""Progress of training: a bar on a terminal, otherwise a line from time to time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from agents.training.evaluation import Evaluation
from agents.training.loop import OnProgress

OnMetrics: TypeAlias = Callable[[dict[str, Any]], None]
_LINE_SECONDS = 30.0
"""The least seconds between two lines about a long generation, where no bar can be shown."""


@contextmanager
def shown_progress(env_steps: int) -> Iterator[tuple[OnMetrics, OnProgress]]:
    """Yield two functions: one shows the metrics of an ended generation, one the progress within
    it.

    On a terminal both update a bar. Elsewhere only long generations print a line from time to time.
    """
    if not sys.stderr.isatty():
        yield lambda metrics: None, _Lines()
        return
    from rich.console import Console

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling", total=env_steps)
        latest, shown = "-", ""

        def show(metrics: dict[str, Any]) -> None:
            nonlocal latest, shown
            if "eval_return_mean" in metrics:
                latest = f"{metrics['eval_return_mean']:.1f}"
                if "eval_success_rate" in metrics:
                    latest += f", {metrics['eval_success_rate']:.0%} successful"
            # There is none of the task itself if training plays another environment.
            earned = f"return {metrics['return_mean']:.1f}  " if "return_mean" in metrics else ""
            shown = (
                f"generation {metrics['generation']}  "
                f"{metrics['steps_per_second']:,.0f} steps/s  {earned}evaluation {latest}"
            )
            bar.update(task, completed=metrics["env_steps"], description=shown)

        def show_within(what: str, ended: int, total: int) -> None:
            within = f"{what}: {ended:,} of {total:,} episodes"
            bar.update(task, description=f"{shown}  {within}" if shown else within)

        yield show, show_within


class _Lines:
    """Prints the progress of a generation or an evaluation, at most every 30 seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, ended: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            print(f"{what}: {ended:,} of {total:,} episodes ended", file=sys.stderr, flush=True)


def successful(evaluation: Evaluation) -> str:
    """The share of successful episodes as text; "" if the environment does not report success."""
    rate = evaluation.success_rate
    return "" if rate is None else f", {rate:.0%} successful"
