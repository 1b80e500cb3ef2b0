"""Equations as MathML: blocks between ```` ```math ```` fences and `` $`...`$ `` in a line, both of
which GitHub shows too. Pages need no script for them."""

import re

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`(.+?)`\$")


class _Equations(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        stash = self.md.htmlStash.store
        text = "\n".join(lines)
        text = _BLOCK.sub(lambda m: stash(convert(m[1].strip(), display="block")), text)
        return _INLINE.sub(lambda m: stash(convert(m[1])), text).split("\n")


class Equations(Extension):
    """Converts the equations of a page before the fences of code are looked for."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(_Equations(md), "equations", 27)


def makeExtension(**settings: object) -> Equations:
    """What Markdown calls to make the extension."""
    return Equations(**settings)
