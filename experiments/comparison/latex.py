"""Tables as LaTeX, with the rules of the package booktabs."""

import re
from collections.abc import Sequence

from experiments.comparison.tables import TextTable

HEAD = "% Needs \\usepackage{booktabs}.\n"
"""The first line of a file of tables."""
_ESCAPES = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "[": "{[}",  # LaTeX takes one that follows \\ as the start of an argument, and so a star
    "]": "{]}",
    "*": "{*}",
}
_ESCAPED = re.compile("|".join(map(re.escape, _ESCAPES)))
_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")


def escaped(text: str) -> str:
    """Text of which LaTeX prints every character; hyphens before numbers are minus signs."""
    safe = _ESCAPED.sub(lambda found: _ESCAPES[found[0]], " ".join(text.split()))
    return _MINUS.sub("$-$", safe)


def paragraph(text: str) -> str:
    """A paragraph of text."""
    return f"{escaped(text)}\n"


def table(table: TextTable, *, grouped: bool = False) -> str:
    """A table in an environment of its own, with its title as the caption and its notes below it.

    Args:
      table: what is shown.
      grouped: put some space before each row, but for the first one, whose first cell is not
        empty.
    """
    lines: list[str] = []
    for row in table.rows:
        if grouped and row[0] and lines:
            lines.append(r"\addlinespace")
        lines.append(_row(row))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(table.title)}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.head)}}}",
            r"\toprule",
            _row(table.head),
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {escaped(note)}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def _row(cells: Sequence[str]) -> str:
    return " & ".join("--" if cell == "-" else escaped(cell) for cell in cells) + r" \\"
