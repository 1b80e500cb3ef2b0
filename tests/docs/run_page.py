"""Runs the snippets of one page in the current folder, from top to bottom, as a reader would.

Python is executed in one namespace. A block with a title is a file, and is written. Of a block of
commands each `es-rl` line is executed, in this process, so that what one command compiled the next
one uses; other lines (pip, make, python) are left to continuous integration and to the tests of
examples. `<!-- test: FLAGS -->` before a block adds flags to its commands, such as a short budget;
before Python, NAME=VALUE replaces the value of that argument, which the block must have once.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(
    r"(?:<!-- test: (?P<flags>.+?) -->\n+)?"
    r'(?P<indent> *)```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^ *```$',
    re.MULTILINE | re.DOTALL,
)
LANGUAGES = ("bash", "python", "toml", "csv", "json", "text", "math")
"""The languages of blocks; text and math are not executed."""


class Snippet(NamedTuple):
    """A block of code of a page."""

    language: str
    title: str | None
    """The file that the block is the content of."""
    text: str
    flags: list[str]
    """What tests change: flags added to its commands, or arguments replaced in its Python."""
    line: int


def snippets(page: Path) -> Iterator[Snippet]:
    """The blocks of code of a page, in order."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        indent = len(found["indent"])
        code = "".join(x[indent:] for x in found["text"].splitlines(keepends=True))
        line = text.count("\n", 0, found.start("language")) + 1
        flags = shlex.split(found["flags"] or "")
        yield Snippet(found["language"], found["title"], code, flags, line)


def commands(snippet: Snippet) -> list[list[str]]:
    """The words of each `es-rl` command of a block, flags of tests included."""
    joined = snippet.text.replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [[*words[1:], *snippet.flags] for words in lines if words[:1] == ["es-rl"]]


def python(snippet: Snippet) -> str:
    """The code of a Python block, with the arguments that tests replace."""
    code = snippet.text
    for name, value in (flag.split("=") for flag in snippet.flags):
        code, count = re.subn(rf"\b{name}=[^,)]+", f"{name}={value}", code)
        assert count == 1, f"{name} is there {count} times"
    return code


def run(page: Path) -> None:
    """Execute the snippets of a page."""
    from experiments import cli

    sys.path.insert(0, "")
    namespace = {"__name__": "__main__"}
    for snippet in snippets(page):
        place = f"{page.name}:{snippet.line}"
        print(place, flush=True)
        if snippet.title:
            Path(snippet.title).write_text(snippet.text)
        elif snippet.language == "python":
            exec(compile(python(snippet), place, "exec"), namespace)
        for words in commands(snippet) if snippet.language == "bash" else []:
            print("es-rl", shlex.join(words), flush=True)
            try:
                cli.main(words)
            except SystemExit as end:
                if end.code:
                    raise


if __name__ == "__main__":
    run(Path(sys.argv[1]))
