"""Pieces of self-contained HTML pages: tables, figures, lists, and the look of all pages.

Texts are escaped here.
"""

import base64
import hashlib
import mimetypes
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from experiments.comparison.tables import TextTable

# Matches an interval, or a quantity with its unit, in escaped text; lines must not break inside.
_UNBROKEN = re.compile(r"(?:(?:P )?-?[\d.,]+ )?\[[^]]*\]|(?:&gt; )?[\d.,]+ [skMG]\b")
# Matches the parts of a long name, between which lines may break: "inverted_" and "pendulum".
_PARTS = re.compile(r"[^/_]{1,20}[/_]?|[/_]")
_LONG = 20
"""The most characters of a name that stay on one line."""
_VERDICT = re.compile(r"^(better|worse)(?=: )")


def look(*more: str) -> dict[str, str]:
    """The style sheet and the script of all pages, and the source of the script for a content
    security policy, as `style`, `script` and `script_source`.

    Args:
      *more: assets without their endings, whose style sheets and scripts follow.
    """
    names = ("page", *more)
    script = "\n".join(asset(f"{name}.js") for name in names)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "style": "\n".join(asset(f"{name}.css") for name in names),
        "script": script,
        "script_source": f"'sha256-{digest}'",
    }


def table(content: TextTable | None) -> str:
    """A table, in a box that scrolls by itself; "" for None."""
    if content is None:
        return ""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in content.head)
    rows = "\n".join(f"<tr>{_cells(row)}</tr>" for row in content.rows)
    label = escape(content.title)
    return (
        '<p class="hint" aria-hidden="true">This table is wider: scroll it sideways \u2192</p>\n'
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>'
        f"<caption><span>{label}</span></caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>\n{paragraphs(content.notes, 'note')}"
    )


def _cells(row: Sequence[str]) -> str:
    first, *others = row
    parts = _PARTS.findall(first) if len(first) > _LONG else [first]
    name = "<wbr>".join(map(escape, parts))
    return f'<th scope="row">{name}</th>' + "".join(
        f"<td>{_VERDICT.sub(_verdict, _UNBROKEN.sub(_span, escape(cell)))}</td>" for cell in others
    )


def _span(found: re.Match[str]) -> str:
    return f"<span>{found[0]}</span>"


def _verdict(found: re.Match[str]) -> str:
    return f'<strong class="{found[0]}">{found[0]}</strong>'


def paragraphs(texts: Iterable[str], kind: str = "") -> str:
    """A paragraph for each text, of a class of page.css if `kind` is given."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return "\n".join(f"{opening}{escape(text)}</p>" for text in texts)


def items(texts: Sequence[str], title: str = "") -> str:
    """A list with an item for each text, below its title; "" without texts."""
    if not texts:
        return ""
    shown = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return (f"<p>{escape(title)}</p>" if title else "") + f"<ul>{shown}</ul>"


def details(title: str, content: str) -> str:
    """A box with a title that opens and closes; `content` is HTML."""
    return f"<details><summary>{escape(title)}</summary>\n{content}\n</details>"


def asset(name: str) -> str:
    """The text of a file in experiments/assets."""
    return files("experiments").joinpath("assets", name).read_text(encoding="utf-8")


def data_uri(path: Path) -> str:
    """Read a picture or a film as a data URI."""
    kind, _ = mimetypes.guess_type(path.name)
    assert kind is not None
    return uri_of(kind, path.read_bytes())


def uri_of(media_type: str, content: bytes) -> str:
    """Data of a media type such as "text/csv" as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
