"""Progress of training: a bar in one line of a terminal, otherwise a line every half minute."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from agents.training.evaluation import Evaluation
from agents.training.loop import OnProgress
from agents.training.run_config import RunConfig
from es_rl import processes
from experiments.comparison.results import UNLIMITED

OnMetrics: TypeAlias = Callable[[dict[str, Any]], None]
_LINE_SECONDS = 30.0
"""The seconds between two lines, where no bar can be shown."""
_SHORTER: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("steps", lambda text: text.replace(" / ", "/").removesuffix(" env steps")),
    ("task", lambda text: text.rsplit("/", 1)[-1]),
    ("speed", lambda text: text.replace(" steps/s", "/s")),
    ("playing", lambda text: text.replace("generation ", "gen ")),
    ("best", lambda text: text.replace(" evaluation", "").replace(" / ", "/")),
    ("left", lambda text: text.removesuffix(" left")),
    ("gap", lambda text: text),
    *((name, lambda text: "") for name in ("success", "speed", "task", "return")),
    *((name, lambda text: "") for name in ("playing", "best", "steps")),
)
"""How parts of the line are shortened, one after the other, until it fits; "gap" is the space
between them."""
_BAR_WIDTH = (8, 40)
"""The least and the most columns of the bar."""
_AROUND_BAR = 3
"""The columns of the spinner and of the spaces between the parts of the line."""


@contextmanager
def shown_progress(task: str, config: RunConfig) -> Iterator[tuple[OnMetrics, OnProgress]]:
    """Yield two functions: one takes the metrics of an ended generation (see `OnGeneration`), one
    the progress within it.

    What they are told is shown on stderr: on a terminal as a bar, elsewhere as a line every half
    minute. Process 0 alone shows anything.

    Args:
      task: the name of the environment.
      config: has the budgets and the target.
    """
    status = Status(task, config)
    if not processes.is_main():
        yield status.ended, status.within
        return
    with _bar(status) if sys.stderr.isatty() else _lines(status):
        yield status.ended, status.within


class Status:
    """How far a run has come, as text."""

    def __init__(self, task: str, config: RunConfig):
        self.task = task
        self._config = config
        self._first: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._successful: float | None = None
        self._width = self._shortened = 0
        self._told_at = 0.0
        self._playing = ""

    def ended(self, metrics: dict[str, Any]) -> None:
        """Take the metrics of a generation that has ended."""
        self._first = self._first or metrics
        self._last, self._told_at, self._playing = metrics, time.monotonic(), ""
        self._successful = metrics.get("eval_success_rate", self._successful)

    def within(self, what: str, ended: int, total: int) -> None:
        """Take the number of episodes that have ended within a generation or an evaluation."""
        self._playing = f"{what} {ended / total:.0%}"

    @property
    def share(self) -> float:
        """The share of the budget that is spent."""
        last = self._last
        return 0.0 if last is None else self._config.share(last["env_steps"], _training(last))

    def line(self) -> str:
        """Everything, in words."""
        parts = {**self._parts(), "task": ""}
        return f"{self.task}: {', '.join(filter(None, parts.values()))}"

    def fitted(self, width: int) -> str:
        """The same in at most `width` columns: the least important parts are shortened or left
        out."""
        parts, gap = self._parts(), "  "
        # What was left out once stays so, or numbers of another length would make the line flicker.
        kept = self._shortened if self._width == width else 0
        for number, (name, shorter) in enumerate(_SHORTER):
            if number >= kept and len(gap.join(filter(None, parts.values()))) <= width:
                break
            gap = " " if name == "gap" else gap
            if name in parts:
                parts[name] = shorter(parts[name])
            kept = max(kept, number + 1)
        self._width, self._shortened = width, kept
        return gap.join(filter(None, parts.values()))[:width]

    def _parts(self) -> dict[str, str]:
        """The parts of the line, in order; "" and parts that are not there are not shown."""
        last, budget = self._last, self._config.env_steps
        if last is None:
            return {"task": self.task, "playing": self._playing or "compiling"}
        of_steps = f" / {_short(budget)}" if budget < UNLIMITED else ""
        parts = {
            "task": self.task,
            "playing": self._playing or f"generation {last['generation']}",
            "steps": f"{_short(last['env_steps'])}{of_steps} env steps",
            "speed": f"{_short(last['steps_per_second'])} steps/s",
        }
        # There is none of the task itself if training plays another environment.
        if "return_mean" in last:
            parts["return"] = f"return {_return(last['return_mean'])}"
        if "best_return" in last:
            target = self._config.target_return
            of = "" if target is None else f" / {_return(target)}"
            parts["best"] = f"best evaluation {_return(last['best_return'])}{of}"
        if self._successful is not None:
            parts["success"] = f"{self._successful:.0%} successful"
        return parts | {"left": f"{_clock(self._seconds_left(last))} left"}

    def _seconds_left(self, last: dict[str, Any]) -> float:
        """Seconds until the first of the budgets is spent, at the pace since the command began."""
        assert self._first is not None
        steps, wall = (last[k] - self._first[k] for k in ("env_steps", "wall_seconds"))
        training = _training(last) - _training(self._first)
        pace = steps / wall if steps and wall > 0 else last["steps_per_second"]
        left = (self._config.env_steps - last["env_steps"]) / pace if pace > 0 else math.inf
        if self._config.seconds is not None:
            slower = wall / training if training > 0 else 1.0
            left = min(left, (self._config.seconds - _training(last)) * slower)
        return max(left - (time.monotonic() - self._told_at), 0.0)


def _training(metrics: dict[str, Any]) -> float:
    """Seconds of training, without evaluation."""
    return metrics["wall_seconds"] - metrics["evaluation_seconds"]


def _short(count: float) -> str:
    """A count with at most three digits: 950, 37.9k, 1.2M, 10M."""
    for size, unit in ((1, ""), (10**3, "k"), (10**6, "M"), (10**9, "G")):
        if count < 999.5 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def _return(value: float) -> str:
    """A return with about four digits: 0.25, 47, 812.3, 9,360."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    shown = f"{value:,.{digits}f}"
    return shown.rstrip("0").rstrip(".") if digits else shown


def _clock(seconds: float) -> str:
    """A time as minutes:seconds or hours:minutes:seconds."""
    if not seconds < 1e6:
        return "long"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def _lines(status: Status) -> Iterator[None]:
    """Print the status from time to time, in a thread of its own: also while a program compiles."""
    over = threading.Event()

    def show() -> None:
        with suppress(OSError):  # nobody reads them any more
            while not over.wait(_LINE_SECONDS):
                print(status.line(), file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _bar(status: Status) -> Iterator[None]:
    """Show the status and a bar in one line of a terminal, which is drawn ten times a second."""
    console = Console(stderr=True)
    spinner = Spinner("dots")

    def line() -> Table:
        least, most = _BAR_WIDTH
        text = status.fitted(console.width - least - _AROUND_BAR)
        width = min(max(console.width - len(text) - _AROUND_BAR, least), most)
        share = status.share
        drawn = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=share, width=width, pulse=share == 0)
        drawn.add_row(spinner, Text(text, no_wrap=True), bar)
        return drawn

    with Live(get_renderable=line, console=console, refresh_per_second=10, transient=True):
        yield


def successful(evaluation: Evaluation) -> str:
    """The share of successful episodes as text; "" if the environment does not report success."""
    rate = evaluation.success_rate
    return "" if rate is None else f", {rate:.0%} successful"
