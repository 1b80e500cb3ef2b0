"""The page of a run as HTML: one file that loads nothing and reads nothing.

Its content security policy forbids all but its own script. Everything that comes from the run's
folder is escaped.
"""

import shlex
import time
from collections.abc import Sequence
from html import escape
from string import Template

from agents.registry import agent_type, list_agents
from envs.registry import split_id
from experiments.comparison.tables import TextTable, number
from experiments.markup import asset, details, items, look, table
from experiments.run_page.charts import MOST_POINTS, chart_html, short
from experiments.run_page.choice_of_charts import Charts, charts, problems
from experiments.run_page.films import FOLDER, ShownFilm
from experiments.run_page.run import Point, Run
from experiments.run_page.settings import settings

_KEYS = {
    "line": "mean of the training episodes",
    "band": "its standard deviation, within their range",
    "dots": "evaluations of the mean policy",
}
"""What the parts of the main chart are."""


def page(run: Run, films: Sequence[ShownFilm], film_count: int, every: float | None) -> str:
    """The page of a run.

    Args:
      run: the run as it is now.
      films: the films to show.
      film_count: how many films the run has.
      every: the seconds after which the page loads itself again; None if it does not.
    """
    saved, found = run.saved, charts(run)
    where = (*run.origin.items(), *run.versions.items())
    return Template(asset("run_page.html")).substitute(
        look("run_page"),
        title=escape(f"{saved.env}, {saved.agent}, seed {saved.options.seed}: {run.state}"),
        reload="" if every is None else f' data-reload="{every:g}"',
        folder=escape(str(run.folder)),
        env=escape(saved.env).replace("/", "/<wbr>"),
        agent=escape(saved.agent),
        seed=saved.options.seed,
        headline=_headline(run),
        cards=_cards(run),
        problems=_problems(run),
        curves=_curves(run, found),
        films=_films(run, films, film_count),
        commands=_commands(run),
        settings=_settings(run),
        versions=table(TextTable("Versions", ("part", "version"), where)),
        drawn=escape(_drawn(run, every)),
    )


def _headline(run: Run) -> str:
    state, points = run.state, run.evaluations
    said = "no evaluation yet"
    if points:
        said = f"return {' '.join(_earned(points[-1]))} in the last evaluation"
    bar = ""
    if run.under_way:
        share = run.share
        left = (run.metrics.last("wall_seconds") or 0) * (1 / share - 1) if share else 0
        label = "share of the budget that is spent"
        bar = f'<progress value="{share:.4f}" aria-label="{label}"></progress>'
        bar += f'<p class="note">At most about {duration(left)} to go.</p>' if left else ""
    kind = state.replace(" ", "-")
    return (
        f'<p class="finding"><span class="state {kind}">{state.capitalize()}</span> '
        f'{escape(said)}</p><p class="note">{escape(run.why().capitalize())}.</p>{bar}'
    )


def _earned(point: Point) -> tuple[str, str]:
    """The mean of an evaluation's returns, and their standard deviation: ("12.3", "± 0.4")."""
    if point.mean != point.mean:
        return "not finite", ""
    spread = "" if point.std != point.std else f"± {number(point.std, abs(point.mean) or None)}"
    return number(point.mean), spread


def duration(seconds: float) -> str:
    """A time in words: "2.2 s", "3 min 20 s", "5 h 12 min"."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _cards(run: Run) -> str:
    metrics, best = run.metrics, run.best
    cards: list[tuple[str, str, str]] = []
    for name, point in (("last evaluation", run.evaluations[-1:]), ("best evaluation", [best])):
        for found in filter(None, point):
            played = f"over {found.episodes:.0f} episodes, " if found.episodes > 0 else ""
            mean, spread = _earned(found)
            cards.append((name, mean, f"{spread} {played}after {short(found.env_steps)} steps"))
    success = metrics["eval_success_rate"]
    if (there := success[success == success]).size:
        cards.append(("success", f"{there[-1]:.0%}", "of the last evaluation's episodes"))
    if metrics.lines:
        steps, seconds = metrics.last("env_steps") or 0, metrics.last("wall_seconds")
        training = run.training_seconds
        budget = f"of {_count(run.saved.options.env_steps)}"
        cards.append(("env steps", _count(steps), budget))
        cards.append(("generations", f"{metrics.lines:,}", ""))
        if seconds is not None:
            aside = f"{duration(max(seconds - training, 0))} of them evaluation and saving"
            cards.append(("time", duration(seconds), aside))
        if training > 0:
            cards.append(("steps/s", number(steps / training), "of training"))
    shown = "".join(
        f'<div class="card"><dt>{escape(name)}</dt><dd>{escape(value)}'
        f"{f'<small>{escape(more)}</small>' if more else ''}</dd></div>"
        for name, value, more in cards
    )
    return f'<dl class="cards">{shown}</dl>' if shown else ""


def _count(value: float) -> str:
    """A count: in full where it is short enough for a card."""
    return f"{value:,.0f}" if value < 1e7 else short(value)


def _curves(run: Run, found: Charts) -> str:
    if not run.metrics.lines:
        return "<p>The first generation has not ended yet, so there are no curves.</p>"
    points = [point.env_steps for point in run.evaluations[-1:]]
    until = max(run.metrics.last("env_steps") or 0, *points, 0)
    note = "All over env steps. Point at a chart for its numbers."
    if run.metrics.lines > MOST_POINTS:
        note += " A line is the mean of neighbouring generations, a band shows how far they spread."
    parts = [f'<p class="note">{note}</p>']
    if found.main is not None:
        shown = {
            "line": found.main.line,
            "band": found.main.band if "return_std" in run.metrics.names else None,
            "dots": found.main.dots,
        }
        keys = "".join(
            f'<li><i class="{kind}"></i>{_KEYS[kind]}</li>'
            for kind, part in shown.items()
            if part is not None
        )
        parts.append(f'<ul class="keys">{keys}</ul>')
        parts.append(chart_html(found.main, until, large=True))
    for title, group in found.groups:
        drawn = "".join(chart_html(chart, until) for chart in group)
        parts.append(f'<h3>{escape(title)}</h3><div class="charts">{drawn}</div>')
    if found.constant:
        text = f"The same in every generation: {', '.join(found.constant)}."
        parts.append(f'<p class="note">{escape(text)}</p>')
    return "\n".join(parts)


def _films(run: Run, films: Sequence[ShownFilm], count: int) -> str:
    if not films:
        return (
            '<p class="note">There are none. With --video-every, training films the policy every '
            "so many generations.</p>"
        )
    shown = "".join(_film(run, film) for film in films)
    more = f"{len(films)} of the {count} films in {FOLDER}/." if count > len(films) else ""
    note = f'<p class="note">{more}</p>' if more else ""
    return f'{note}<div class="figures films">{shown}</div>'


def _film(run: Run, film: ShownFilm) -> str:
    name = f"generation {film.generation:,}"
    row = (run.metrics["generation"] == film.generation).nonzero()[0]
    caption = "".join(f", {short(run.metrics['env_steps'][i])} env steps" for i in row[:1])
    if film.video is None:
        shown = '<p class="note">This file is too large for the page, or no film.</p>'
    else:
        poster = "" if film.poster is None else f' poster="{film.poster}"'
        shown = (
            f'<video src="{film.video}"{poster} aria-label="Film of {name}" controls muted '
            'playsinline loop preload="none"></video>'
        )
    caption = f"<b>{name.capitalize()}</b>{escape(caption)}"
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def _commands(run: Run) -> str:
    """The commands that go on from the run, for a shell."""
    folder, saved = str(run.folder), run.saved
    lines: list[tuple[str, tuple[str, ...]]] = []
    if run.under_way:
        lines.append(("Keep this page up to date", ("report", folder, "--watch")))
    if "policy" in run.policies:
        film = str(run.folder / "replay.gif")
        lines.append(("Play the last policy again", ("replay", folder, "--video", film)))
    if "best" in run.policies:
        lines.append(("Play the best policy again", ("replay", str(run.folder / "best"))))
    resumable = saved.agent not in list_agents() or agent_type(saved.agent).resumable
    if resumable and not run.under_way:
        what, more = _more(run)
        lines.append((what, ("train", "--resume", folder, *more)))
    shown = "".join(
        f"<dt>{what}</dt><dd><pre><code>{escape(shlex.join(('es-rl', *words)))}</code></pre></dd>"
        for what, words in lines
    )
    module, _ = split_id(saved.env)
    # It is no part of the commands, as a run's folder must not choose what is imported.
    own = "" if module is None else f"All but the page need --import {module}, if you trust it."
    return f'<dl class="commands">{shown}</dl>' + (
        f'<p class="note">{escape(own)}</p>' if own else ""
    )


def _more(run: Run) -> tuple[str, tuple[str, ...]]:
    """What going on with a run means, and the flags that it needs."""
    options = run.saved.options
    match run.ended_by:
        case "target_return":
            return "Go on without a target, to the end of its budget", ("--target-return", "None")
        case "seconds":
            return "Go on with twice the time", ("--seconds", f"{2 * (options.seconds or 0):g}")
        case "env_steps":
            return "Go on with twice the budget", ("--env-steps", str(2 * options.env_steps))
    return "Go on where it was stopped", ()


def _settings(run: Run) -> str:
    found = settings(run)
    head = ("setting", "value", "default", "origin")
    tuned = f"Settings tuned for the task: {found.source.rstrip('.')}."
    changed = TextTable(
        "Settings that differ from the defaults",
        head,
        tuple(found.changed),
        (tuned,) if found.source else (),
    )
    others = TextTable("All other settings", head[:2], tuple(row[:2] for row in found.others))
    return (table(changed) if found.changed else "") + details(others.title, table(others))


def _problems(run: Run) -> str:
    found = items(list(problems(run.metrics)))
    return f'<div class="problems"><h2>What went wrong</h2>{found}</div>' if found else ""


def _drawn(run: Run, every: float | None) -> str:
    text = f"Drawn {_clock(time.time())}"
    if run.metrics.lines and run.metrics.changed is not None:
        text += f"; the last generation was written {_clock(run.metrics.changed)}"
    return f"{text}. {'' if every is None else f'The page is renewed every {every:g} s.'}"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
