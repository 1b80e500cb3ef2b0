"""The report of a comparison in a browser: how it looks, and what its script does."""

import imageio.v3 as imageio
import numpy as np
import pytest

from experiments.comparison.films import Played, Replay
from experiments.comparison.report import write_report
from tests.experiments.browser import Browser
from tests.experiments.comparison.synthetic import ANT, comparison

THEME = "document.querySelector('button.theme')"
BOXES = "[...document.querySelectorAll('.scroll')]"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The report of a comparison with a film."""
    out = tmp_path_factory.mktemp("report")
    imageio.imwrite(out / "film.jpg", np.full((60, 80, 3), 200, np.uint8))
    (out / "film.mp4").write_bytes(b"no film")
    film = Replay(out / "film.mp4", out / "film.jpg", Played(1.0, True))
    return write_report(comparison(), out, {(ANT, "eggroll"): film})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False)])
def test_the_page_in_a_browser(browser, path, tmp_path, width, dark):
    browser.open(path, width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.evaluate("Promise.all([...document.images].map(i => i.decode()))")
    # Not innerWidth: a phone widens it for a page that does not fit.
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.body.scrollWidth") <= width
    # Tables that are wider scroll in boxes of their own.
    assert browser.evaluate(f"{BOXES}.every(b => b.getBoundingClientRect().right <= {width})")
    assert browser.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    assert browser.evaluate("getComputedStyle(document.body).fontSize") == "16px"
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []
    browser.screenshot(tmp_path / "page.png")
    shot = imageio.imread(tmp_path / "page.png")
    assert shot.shape[:2] == (844, width)
    assert shot[..., :3].std() > 20
    assert (np.median(shot[..., :3]) < 60) == dark


def test_a_film_shows_its_poster_before_it_plays(browser, path):
    browser.open(path, 390)
    video = "document.querySelector('video')"
    assert browser.evaluate(f"{video}.paused && {video}.readyState === 0")
    shape = browser.evaluate(
        f"new Promise(done => {{ const of = () => {video}.clientHeight / {video}.clientWidth;"
        "const look = () => Math.abs(of() - 0.75) < 0.02 ? done(of()) : setTimeout(look, 20);"
        "look(); setTimeout(() => done(of()), 10000); })"
    )
    assert shape == pytest.approx(0.75, abs=0.02)  # that of the poster


def test_only_tables_that_are_wider_have_a_hint_and_a_tab_stop(browser, path):
    for width in (390, 1280):
        browser.open(path, width)
        browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        browser.evaluate("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")
        found = browser.evaluate(
            f"{BOXES}.map(b => [b.scrollWidth > b.clientWidth,"
            "b.previousElementSibling.matches('.hint'), b.previousElementSibling.clientHeight > 0,"
            "b.tabIndex === 0])"
        )
        assert all(is_hint for _, is_hint, _, _ in found)
        assert all(wide == shown == stop for wide, _, shown, stop in found)
        assert {wide for wide, *_ in found} == {True, False}


def test_the_button_changes_the_theme(browser, path):
    browser.open(path, 390, dark=False)
    colour = "getComputedStyle(document.body).backgroundColor"
    white, label = browser.evaluate(colour), f"{THEME}.textContent"
    assert white == "rgb(255, 255, 255)"
    assert browser.evaluate(label) == "Dark theme"
    browser.evaluate(f"{THEME}.click()")
    assert browser.evaluate(colour) != white
    assert browser.evaluate(label) == "Light theme"
    browser.evaluate(f"{THEME}.click()")
    assert browser.evaluate(colour) == white
    browser.evaluate("localStorage.clear()")


TABLE = """<div class="scroll"><table><thead><tr><th>name</th><th>value</th></tr></thead><tbody>
{}</tbody></table></div>"""
CELLS = {
    "a10": "1.25 M",
    "a9": "failed (5 of 5 seeds)",
    "b": "900 k to 1 M [800 k, &gt; 2 M]",
    "c": "-12.5 [-400.0, 900.0]",
    "d": "&gt; 1,220.0 s",
    "e": "-",
    "f": "0.024 to 0.368 s [0, 0.478]",
    "g": "3.11.7",
}


def test_tables_sort_by_numbers_and_by_names(browser, path):
    rows = "".join(f"<tr><th>{name}</th><td>{cell}</td></tr>" for name, cell in CELLS.items())
    page = path.with_name("sorting.html")
    report = path.read_text()
    script = report[report.index("<script>") : report.index("</script>")] + "</script>"
    page.write_text(f"<!doctype html>{script}{TABLE.format(rows)}")
    browser.open(page, 1280)
    button = "document.querySelectorAll('.sort')"
    names = "[...document.querySelectorAll('tbody th')].map(cell => cell.textContent)"
    order = "[...document.querySelectorAll('thead th')].map(head => head.getAttribute('aria-sort'))"
    assert browser.evaluate(order) == ["none", "none"]
    # A button takes the focus, and the keys of space and enter.
    browser.evaluate(f"{button}[1].focus()")
    for state, expected in (
        ("ascending", [*"cfdb", "a10", "e", "g", "a9"]),
        ("descending", ["a10", *"bdfc", "a9", "g", "e"]),
        ("none", list(CELLS)),
    ):
        for kind in ("keyDown", "keyUp"):
            key = {"type": kind, "key": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
            browser.send("Input.dispatchKeyEvent", **key)
        assert browser.evaluate(order) == ["none", state]
        assert browser.evaluate(names) == expected
    browser.evaluate(f"{button}[0].click()")
    assert browser.evaluate(order) == ["ascending", "none"]
    assert browser.evaluate(names)[:3] == ["a9", "a10", "b"]  # 9 before 10
    assert browser.complaints() == []


def test_the_tables_of_the_report_are_sorted_by_their_means(browser, path):
    browser.open(path, 1280)
    table = "document.querySelector('#task-0 ~ .scroll table')"
    browser.evaluate(f"{table}.querySelectorAll('.sort')[1].click()")
    cells = f"[...{table}.tBodies[0].rows].map(row => parseFloat(row.cells[1].textContent))"
    found = browser.evaluate(cells)
    assert found == sorted(found)
    assert len(found) == 4
    assert browser.evaluate(f"{table}.querySelectorAll('[aria-sort=ascending]').length") == 1
