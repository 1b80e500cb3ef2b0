"""The report of a comparison: one self-contained HTML page that includes all of the data.

The page has no scripts and loads nothing from any address; its content security policy forbids
both. Everything that comes from results is escaped.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template

from envs.errors import UserError
from es_rl.files import write_whole
from experiments.comparison import figures, findings
from experiments.comparison.results import Results, Run, Task
from experiments.comparison.statistics import aggregate
from experiments.comparison.tables import TextTable, csv_text, number

_TEMPLATE = Path(__file__).with_name("report.html")
_MEDIA_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}

# Matches an interval, or a quantity with its unit, in escaped text; lines must not break inside.
_UNBROKEN = re.compile(r"\[[^]]*\]|(?:&gt; )?[\d.,]+ [skMG]\b")


def write_report(results: Results, folder: Path, media: Mapping[tuple[str, str], str]) -> Path:
    """Write `report.html`, and the figures in it, into a folder that exists.

    Args:
      results: the results of the whole comparison.
      folder: the comparison's folder.
      media: (task, agent) -> the replay of the policy of `best_run`, as a URI from `data_uri`.
        Missing replays are left out of the page.

    Returns:
      The path of the page.

    Raises:
      UserError: a replay is neither a data URI of a video nor one of an image.
    """
    for (task, agent), uri in media.items():
        if not uri.startswith(("data:video/", "data:image/")):
            raise UserError(f"media of {task}, {agent}: must be a data URI of a video or an image")
    pictures = figures.draw(results, folder / "figures")
    page = folder / "report.html"
    write_whole(page, _page(results, pictures, media).encode())
    return page


def data_uri(path: Path) -> str:
    """Read an image or a video (.png, .gif or .mp4) as a data URI."""
    return _data_uri(_MEDIA_TYPES[path.suffix.lower()], path.read_bytes())


def best_run(results: Results, task: str, agent: str) -> Run | None:
    """The run of an agent on a task with the highest final return, whose replay is shown."""
    return max(results.of(task, agent), key=lambda run: run.return_mean, default=None)


def _page(
    results: Results,
    pictures: Sequence[figures.Picture],
    media: Mapping[tuple[str, str], str],
) -> str:
    sections = {
        "overall": _overall(results, pictures),
        "tasks": "".join(
            f'<h2 id="task-{i}">{escape(task.name)}</h2>\n' + _task(results, task, pictures, media)
            for i, task in enumerate(results.tasks)
        ),
        "failed": _failed(results),
        "how": _how(results),
    }
    links = "".join(
        f'<li><a href="#task-{i}">{escape(task.name)}</a></li>'
        for i, task in enumerate(results.tasks)
    )
    text = json.dumps(asdict(results), indent=1)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        sections,
        suite=escape(results.suite),
        summary=_paragraphs(findings.summary(results)),
        links=links,
        json=escape(_data_uri("application/json", text.encode())),
        csv=escape(_data_uri("text/csv", csv_text(results).encode())),
        command=escape(results.command),
    )


def _overall(results: Results, pictures: Sequence[figures.Picture]) -> str:
    found = aggregate(results)
    parts = [
        _table(findings.head_to_head(results)),
        _table(findings.scores_table(found)),
        _list(found.left_out, "Left out of the normalised score:"),
        _table(findings.relative_table(results)),
        _table(findings.improvement_table(results)),
        _figures(picture for picture in pictures if picture.task is None),
    ]
    return "\n".join(parts)


def _task(
    results: Results,
    task: Task,
    pictures: Sequence[figures.Picture],
    media: Mapping[tuple[str, str], str],
) -> str:
    parts = [
        _table(findings.returns_table(results, task)),
        _table(findings.times_table(results, task)),
        _figures(picture for picture in pictures if picture.task == task.name),
        _replays(results, task, media),
        _settings(results, task),
    ]
    return "\n".join(parts)


def _failed(results: Results) -> str:
    table = findings.failed_table(results)
    return _table(table) if table else "<p>No run failed.</p>"


def _how(results: Results) -> str:
    versions = tuple(results.versions.items())
    machine = tuple(results.machine.items())
    parts = [
        _list(findings.protocol(results)),
        _table(findings.tasks_table(results)),
        _table(TextTable("Versions", ("library", "version"), versions)),
        _table(TextTable("Machine", ("part", "what it is"), machine)),
        _details("All runs", _table(findings.runs_table(results))),
    ]
    return "\n".join(parts)


def _replays(results: Results, task: Task, media: Mapping[tuple[str, str], str]) -> str:
    shown = []
    for agent in results.agents:
        uri, run = media.get((task.name, agent)), best_run(results, task.name, agent)
        if uri is None or run is None:
            continue
        of = len(results.of(task.name, agent))
        caption = f"{agent}: seed {run.seed}, the best of {of}, return {number(run.return_mean)}"
        label = escape(f"Replay of {agent} on {task.name}")
        source = escape(uri)
        if uri.startswith("data:video/"):
            element = f'<video src="{source}" aria-label="{label}" controls muted playsinline loop>'
            element += "</video>"
        else:
            element = f'<img src="{source}" alt="{label}">'
        shown.append(f"<figure>{element}<figcaption>{escape(caption)}</figcaption></figure>")
    if not shown:
        return ""
    return f'<h3>Best policies</h3>\n<div class="figures">{"".join(shown)}</div>'


def _settings(results: Results, task: Task) -> str:
    parts = []
    for agent in results.agents:
        # All seeds have the same settings, but a failed run may lack them.
        run = next((r for r in results.of(task.name, agent)), None)
        if run is None:
            continue
        rows = tuple((name, json.dumps(value)) for name, value in run.settings.items())
        source = f"Source: {run.source or 'not recorded'}."
        parts.append(_table(TextTable(agent, ("hyperparameter", "value"), rows, (source,))))
    return _details("Hyperparameters", "\n".join(parts)) if parts else ""


def _figures(pictures: Iterable[figures.Picture]) -> str:
    shown = [
        f'<figure><img src="{data_uri(picture.path)}" alt="{escape(picture.alt)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    ]
    return f'<div class="figures">{"".join(shown)}</div>' if shown else ""


def _table(table: TextTable | None) -> str:
    """A table as HTML, in a box that scrolls by itself; "" for None."""
    if table is None:
        return ""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "\n".join(f"<tr>{_cells(row)}</tr>" for row in table.rows)
    label = escape(table.title)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>'
        f"<caption>{label}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>"
        f"</table></div>\n{_paragraphs(table.notes, 'note')}"
    )


def _cells(row: Sequence[str]) -> str:
    first, *others = map(escape, row)
    name = first.replace("/", "/<wbr>")  # allows a line break in the id of an environment
    return f'<th scope="row">{name}</th>' + "".join(
        f"<td>{_UNBROKEN.sub(_span, cell)}</td>" for cell in others
    )


def _span(found: re.Match[str]) -> str:
    return f"<span>{found[0]}</span>"


def _paragraphs(texts: Iterable[str], kind: str = "") -> str:
    opening = f'<p class="{kind}">' if kind else "<p>"
    return "\n".join(f"{opening}{escape(text)}</p>" for text in texts)


def _list(texts: Sequence[str], title: str = "") -> str:
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return (f"<p>{escape(title)}</p>" if title else "") + f"<ul>{items}</ul>"


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>\n{content}\n</details>"


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
