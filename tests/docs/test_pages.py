"""What the README and the documentation show can be typed, and does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.run_page import LANGUAGES, snippets

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_snippets_of_a_page_run(page, tmp_path):
    if not any(snippet.language in ("bash", "python") for snippet in snippets(page)):
        pytest.skip("this page has no snippets")
    command = [sys.executable, "-m", "tests.docs.run_page", str(page)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_has_a_language(page):
    assert {snippet.language for snippet in snippets(page)} <= set(LANGUAGES)
    assert page.read_text().count("```") == 2 * len(list(snippets(page)))


def test_every_page_is_in_the_navigation():
    named = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]]
    assert sorted(named) == pages


def test_what_the_pages_name_is_there():
    """Files of the project in code font, and pictures, whose links the builder does not check."""
    for page in PAGES:
        text = page.read_text()
        paths = r"`((?:tests|agents|envs|es_rl|experiments|docs|examples)/[\w./-]*)`"
        assert [p for p in re.findall(paths, text) if not (ROOT / p).exists()] == []
        pictures = re.findall(r"!\[[^\]]*\]\(([^)#]+)\)", text)
        pictures += re.findall(r"<(?:img|source|video)[^>]* (?:src|srcset)=\"([^\"]+)\"", text)
        assert [p for p in pictures if not (page.parent / p).exists()] == []
