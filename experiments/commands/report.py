"""`es-rl report`: make a page of a run, and renew it while the run is under way."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from envs.errors import UserError, one_line
from es_rl.files import write_whole
from experiments.flags.outputs import check_output
from experiments.flags.parsing import parse
from experiments.run_page.films import Films
from experiments.run_page.page import page
from experiments.run_page.run import Run, open_run

_EVERY = 5.0
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 3600.0


@dataclass(frozen=True)
class ReportFlags:
    """Make a page of a run, finished or under way: its curves, films, settings and commands.

    The page is one HTML file that loads nothing from the network.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The folder of a run."""
    out: Path | None = None
    """The .html file to write: report.html in the run's folder unless given."""
    watch: bool = False
    """Renew the page until the run is over. A browser that shows it follows by itself."""
    every: float | None = None
    """With --watch, the seconds between two renewals: 5 unless given."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags: ReportFlags = parse("report", ReportFlags, arguments)
    every = _check(flags)
    run = open_run(flags.run)
    if not run.metrics.lines and not (flags.watch and run.under_way):
        waits = "--watch waits for it" if run.under_way else "the run was stopped before it"
        raise UserError(
            f"run={flags.run}: must be a run whose first generation has ended: its metrics.jsonl "
            f"holds none yet; {waits}"
        )
    out, films = flags.out or run.folder / "report.html", Films(run.folder)
    check_output("out", out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if flags.watch and run.under_way:
        _watch(run, films, out, every)
    else:
        _write(run, films, out, None)
        print(f"page of the run: {out}")
    return 0


def _check(flags: ReportFlags) -> float:
    """Refuse flags that are out of range; return the seconds between two renewals."""
    if flags.out is not None and flags.out.suffix.lower() != ".html":
        raise UserError(f"out={flags.out}: must end in .html")
    if flags.every is not None and not flags.watch:
        raise UserError(f"every={flags.every:g}: must come with --watch")
    every = _EVERY if flags.every is None else flags.every
    if not _LEAST_SECONDS <= every <= _MOST_SECONDS:
        raise UserError(f"every={every:g}: must be from {_LEAST_SECONDS:g} to {_MOST_SECONDS:g}")
    return every


def _watch(run: Run, films: Films, out: Path, every: float) -> None:
    """Write the page again and again until the run is over."""
    _write(run, films, out, every)
    print(f"page of the run: {out} (renewed every {every:g} s until the run is over)", flush=True)
    try:
        while run.under_way:
            time.sleep(every)
            if run.read() and run.under_way:
                _write(run, films, out, every)
    finally:
        # The last page does not load itself again, also after Ctrl-C.
        _write(run, films, out, None)
    print(f"the run is over: {run.state}, {run.why()}")


def _write(run: Run, films: Films, out: Path, every: float | None) -> None:
    try:
        shown, count = films.shown(int(run.metrics.last("generation") or 0) + 1)
    except (OSError, UserError) as error:
        raise UserError(f"run={run.folder}: {one_line(error)}") from error
    try:
        write_whole(out, page(run, shown, count, every).encode())
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from error
