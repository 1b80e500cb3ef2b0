"""The report of a comparison: one self-contained HTML page that includes all of the data.

The page loads nothing from any address, and its content security policy lets no other script run
than its own. Everything that comes from results is escaped. Tasks have short names where these
differ: `Hopper-v5` for `gymnasium/Hopper-v5`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from string import Template

from es_rl.files import write_whole
from experiments.comparison import figures, findings, hyperparameters
from experiments.comparison.films import Replay, best_run
from experiments.comparison.findings import Outcome
from experiments.comparison.results import Results, Run, Task
from experiments.comparison.statistics import RESAMPLES, aggregate
from experiments.comparison.tables import TextTable, csv_text, number, quantity
from experiments.markup import data_uri, details, items, look, paragraphs, table, uri_of

_TEMPLATE = Path(__file__).with_name("report.html")
_MOST_NAMED = 3
"""The most other agents that the main finding names; of more it gives the sum."""


def write_report(results: Results, folder: Path, replays: Mapping[tuple[str, str], Replay]) -> Path:
    """Write `report.html`, and the figures in it, into a folder that exists.

    Args:
      results: the results of the whole comparison.
      folder: the comparison's folder.
      replays: (task, agent) -> the film of the policy of `best_run`. Missing ones are left out of
        the page.

    Returns:
      The path of the page.
    """
    names = short_names([*(task.name for task in results.tasks), *results.published])
    pictures = figures.draw(_renamed(results, names), folder / "figures")
    page = folder / "report.html"
    films = {(names[task], agent): film for (task, agent), film in replays.items()}
    write_whole(page, _page(results, names, pictures, films).encode())
    return page


def short_names(names: Iterable[str]) -> dict[str, str]:
    """The last part of each name, such as `Hopper-v5`, or the whole name if others end alike."""
    last = {name: name.rpartition("/")[2] or name for name in names}
    count = Counter(last.values())
    return {name: short if count[short] == 1 else name for name, short in last.items()}


def _renamed(results: Results, names: Mapping[str, str]) -> Results:
    """The same results, with other names of the tasks."""
    return replace(
        results,
        tasks=tuple(replace(task, name=names[task.name]) for task in results.tasks),
        runs=tuple(replace(run, task=names[run.task]) for run in results.runs),
        published={names[task]: scores for task, scores in results.published.items()},
    )


def _page(
    whole: Results,
    names: Mapping[str, str],
    pictures: Sequence[figures.Picture],
    films: Mapping[tuple[str, str], Replay],
) -> str:
    """The page; `pictures` and `films` have the short names of tasks."""
    results = _renamed(whole, names)
    headline = headline_picture(results, pictures)
    pictures = [picture for picture in pictures if picture is not headline]
    sections = {
        "headline": _figure(headline) if headline else "",
        "legend": _legend(results),
        "overall": _overall(results, pictures),
        "tasks": "".join(
            _task(results, position, pictures, films) for position in range(len(results.tasks))
        ),
        "failed": _failed(results),
        "how": _how(results),
    }
    links = "".join(
        f'<li><a href="#task-{i}">{escape(task.name)}</a></li>'
        for i, task in enumerate(results.tasks)
    )
    text = json.dumps(asdict(whole), indent=1)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        sections | look(),
        suite=escape(results.suite),
        finding=escape(main_finding(results)),
        summary=items(findings.summary(results)),
        links=links,
        json=escape(uri_of("application/json", text.encode())),
        csv=escape(uri_of("text/csv", csv_text(whole).encode())),
        command=escape(results.command),
    )


def headline_picture(
    results: Results, pictures: Sequence[figures.Picture]
) -> figures.Picture | None:
    """The figure at the top: times to the threshold, or scores if they say more.

    Where runs stop when solved, all good agents have the same score; and scores are only of the
    tasks that all agents play.
    """
    overall = {picture.path.stem: picture for picture in pictures if picture.task is None}
    stops = sum(task.stop_when_solved for task in results.tasks)
    scored = len(aggregate(results).tasks)
    order = ["seconds-to-threshold", "scores"]
    if 2 * stops < len(results.tasks) <= 2 * scored:
        order.reverse()
    return next((overall[stem] for stem in order if stem in overall), None)


def main_finding(results: Results) -> str:
    """The main finding in one sentence: on how many tasks the first agent beats the others, and
    they it; of a single agent, what it solves."""
    judged = {
        other: [findings.outcome(results, task, results.agents[0], other) for task in results.tasks]
        for other in results.agents[1:]
    }
    said = {other: [o for o in found if o] for other, found in judged.items() if any(found)}
    if not said:
        return findings.summary(results)[len(results.agents)]
    first = results.agents[0]
    every = [outcome for found in said.values() for outcome in found]
    won, lost = every.count("better"), every.count("worse")
    if not won and not lost:
        why = ": there are too few seeds to tell" if "too few seeds" in every else ""
        return f"No clear difference between {first} and {_joined(list(said))}{why}."
    stop = all(task.stop_when_solved for task in results.tasks)
    words = ("faster", "slower") if stop else ("better", "worse")
    if len(said) > _MOST_NAMED:
        return (
            f"{first} is clearly {words[0]} in {won} of {len(every)} comparisons with {len(said)} "
            f"other agents, and clearly {words[1]} in {lost}."
        )
    better, worse = _spread(said, "better"), _spread(said, "worse")
    alike = _joined([other for other, found in said.items() if not {"better", "worse"} & {*found}])
    return (
        f"{first} is clearly {words[0]} than {better or 'no other agent'}, "
        f"and clearly {words[1]} than {worse or 'none'}"
        + (f"; there is no clear difference from {alike}." if alike else ".")
    )


def _spread(said: Mapping[str, Sequence[Outcome]], kind: Outcome) -> str:
    """The other agents with an outcome: "open_es on 1 of 3 tasks and ppo on 2 of 2"."""
    found = [
        f"{agent} on {outcomes.count(kind)} of {len(outcomes)}"
        for agent, outcomes in said.items()
        if kind in outcomes
    ]
    found[:1] = [f"{first} tasks" for first in found[:1]]
    return _joined(found)


def _joined(words: Sequence[str]) -> str:
    """Words as in a sentence: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _legend(results: Results) -> str:
    """What colours, lines and intervals mean."""
    swatches = "".join(
        f'<li><i style="--colour: {figures.COLOURS[i % len(figures.COLOURS)]}"></i>'
        f"{escape(results.label(agent))}</li>"
        for i, agent in enumerate(results.agents)
    )
    counts = Counter((run.task, run.agent) for run in results.runs if run.error is None)
    low, high = min(counts.values(), default=0), max(counts.values(), default=0)
    seeds = f"{low} to {high} seeds" if low < high else f"{high} seed{'' if high == 1 else 's'}"
    texts = [
        f"12.3 [11.0, 13.1] is an interquartile mean (IQM) over {seeds}, and its 95 % interval: "
        f"percentiles of {RESAMPLES:,} stratified bootstrap resamples, in which the seeds of each "
        "task and agent are drawn anew. The IQM is the mean of the middle half; of fewer than 4 "
        "values, of all. Times to a threshold are medians, with intervals of the same kind. "
        "Clearly better or worse: the interval of the comparison leaves out a tie.",
        "In learning curves, a thick line is the IQM over seeds of the latest evaluation, the band "
        "its 95 % interval at each point, thin lines the seeds; dots and dashes show where seeds "
        "stopped and what they keep, and the dotted grey line is the threshold.",
    ]
    return (
        f'<section aria-label="Legend"><ul class="legend">{swatches}</ul>\n'
        f"{paragraphs(texts, 'note')}</section>"
    )


def _overall(results: Results, pictures: Sequence[figures.Picture]) -> str:
    found = aggregate(results)
    parts = [
        table(findings.head_to_head(results)),
        table(findings.scores_table(found)),
        items(found.left_out, "Left out of the normalised score:"),
        table(findings.relative_table(results)),
        table(findings.improvement_table(results)),
        _figures(picture for picture in pictures if picture.task is None),
    ]
    return "\n".join(parts)


def _task(
    results: Results,
    position: int,
    pictures: Sequence[figures.Picture],
    films: Mapping[tuple[str, str], Replay],
) -> str:
    task = results.tasks[position]
    seconds = f"{quantity(task.seconds, 'seconds')} of training"
    steps = f"{quantity(task.env_steps, 'env_steps')} env steps and "
    about = (
        f"{task.env}: solved at a return of {number(task.threshold)}. A run has at most "
        f"{'' if task.only_seconds else steps}{seconds}."
    )
    parts = [
        f'<h2 id="task-{position}">{escape(task.name)}</h2>',
        paragraphs([about], "note"),
        table(findings.returns_table(results, task)),
        table(findings.times_table(results, task)),
        _figures(picture for picture in pictures if picture.task == task.name),
        _films(results, task, films),
        _settings(results, task),
    ]
    return "\n".join(parts)


def _failed(results: Results) -> str:
    return table(findings.failed_table(results)) or "<p>No run failed.</p>"


def _how(results: Results) -> str:
    versions = tuple(results.versions.items())
    machine = tuple(results.machine.items())
    parts = [
        items(findings.protocol(results)),
        table(findings.tasks_table(results)),
        table(TextTable("Versions", ("library", "version"), versions)),
        table(TextTable("Machine", ("part", "what it is"), machine)),
        details("All runs", table(findings.runs_table(results))),
    ]
    return "\n".join(parts)


def _films(results: Results, task: Task, films: Mapping[tuple[str, str], Replay]) -> str:
    shown = []
    for agent in results.agents:
        film, run = films.get((task.name, agent)), best_run(results, task.name, agent)
        if film is None or run is None:
            continue
        label = escape(f"Film of {agent} on {task.name}")
        shown.append(
            f'<figure><video src="{data_uri(film.video)}" poster="{data_uri(film.poster)}" '
            f'preload="none" aria-label="{label}" controls muted playsinline loop></video>'
            f"<figcaption><strong>{escape(agent)}</strong>, {escape(_caption(results, run, film))}"
            "</figcaption></figure>"
        )
    if not shown:
        return ""
    note = (
        "Each film is the first episode of the final evaluation of an agent's best seed. Its "
        "return is that of one episode; those in the table are means over episodes and seeds."
    )
    films_html = f'<div class="figures films">{"".join(shown)}</div>'
    return f"<h3>Films</h3>\n{paragraphs([note], 'note')}\n{films_html}"


def _caption(results: Results, run: Run, film: Replay) -> str:
    """What a film shows, and how its return differs from those of the final evaluation."""
    filmed, measured = number(film.played.episode_return), number(run.returns[0])
    of = len(results.of(run.task, run.agent))
    text = (
        f"seed {run.seed}, the best of {of}: return {filmed} in this film, "
        f"{number(run.return_mean)} the mean of its {len(run.returns)} episodes."
    )
    if filmed != measured:
        text += (
            f" When it was measured, this episode had {measured}: a film repeats it up to "
            "rounding, which long episodes amplify."
        )
    return text if film.played.whole else f"{text} The film ends before the episode does."


def _settings(results: Results, task: Task) -> str:
    tables = hyperparameters.settings_tables(results, task)
    return details("Hyperparameters", "\n".join(map(table, tables))) if tables else ""


def _figures(pictures: Iterable[figures.Picture]) -> str:
    shown = "".join(map(_figure, pictures))
    return f'<div class="figures">{shown}</div>' if shown else ""


def _figure(picture: figures.Picture) -> str:
    return (
        f'<figure><img src="{data_uri(picture.path)}" alt="{escape(picture.alt)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )
