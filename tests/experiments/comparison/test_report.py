"""The report of a comparison: what is in it, what can never get into it, and how it looks."""

import base64
import csv
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import imageio.v3 as imageio
import numpy as np
import pytest

from experiments.comparison import findings, results
from experiments.comparison.report import best_run, data_uri, write_report
from experiments.comparison.results import Results, Run, Task
from experiments.comparison.tables import (
    csv_text,
    markdown,
    markdown_table,
    number,
    quantity,
    write_csv,
)
from tests.experiments.browser import Browser
from tests.experiments.comparison.synthetic import (
    ANT,
    CART_POLE,
    LANDER,
    PENDULUM,
    comparison,
    learning,
)

HOSTILE = "<script>alert(1)</script>\"'&$suite `|` $x^2$"


class Page(HTMLParser):
    """The text of a page and the attributes of its elements."""

    def __init__(self, text):
        super().__init__()
        self.text, self.elements = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The report of a comparison with two replays."""
    out = tmp_path_factory.mktemp("report")
    frames = np.random.default_rng(0).integers(0, 255, (4, 60, 80, 3), dtype=np.uint8)
    imageio.imwrite(out / "film.gif", frames, loop=0)
    uri = data_uri(out / "film.gif")
    media = {(CART_POLE, "ppo"): uri, (ANT, "eggroll"): "data:video/mp4;base64,AAAA"}
    assert write_report(comparison(), out, media) == out / "report.html"
    return out


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


def test_figures_are_small_images_with_something_in_them(folder):
    paths = sorted((folder / "figures").glob("*.png"))
    assert len(paths) == 2 + 2 * 4
    for path in paths:
        image = imageio.imread(path)
        assert 600 <= image.shape[1] <= 800
        assert 200 <= image.shape[0] <= 1500
        assert image[..., :3].std() > 5
        assert path.stat().st_size < 150_000


def test_the_page_holds_its_figures_and_replays(folder, page):
    images = page.of("img")
    sources = [image["src"] for image in images]
    for path in (folder / "figures").glob("*.png"):
        assert data_uri(path) in sources
    assert all(image["alt"] for image in images)
    assert data_uri(folder / "film.gif") in sources
    (video,) = page.of("video")
    assert video["aria-label"] == f"Replay of eggroll on {ANT}"
    best = best_run(comparison(), ANT, "eggroll")
    assert best.return_mean == max(r.return_mean for r in comparison().of(ANT, "eggroll"))
    caption = f"eggroll: seed {best.seed}, the best of 5, return {number(best.return_mean)}"
    assert caption in page.text


def test_every_number_of_the_results_is_in_the_page(page, tmp_path):
    found = comparison()
    links = {a["download"]: a["href"] for a in page.of("a") if "download" in a}
    decoded = {n: base64.b64decode(uri.partition(",")[2]).decode() for n, uri in links.items()}
    (tmp_path / "results.json").write_text(decoded["results.json"])
    assert results.load(tmp_path / "results.json") == found
    assert decoded["results.csv"] == csv_text(found)
    for run in found.runs:
        if run.error is None:
            for text in (
                number(run.return_mean),
                f"{run.env_steps:,}",
                quantity(run.seconds, "seconds"),
                quantity(run.seconds * run.devices, "device_seconds"),
                quantity(run.compile_seconds, "seconds"),
                quantity(run.evaluation_seconds, "seconds"),
            ):
                assert text in "".join(page.text)
    for text in (found.command, *found.versions.values(), *found.machine.values()):
        assert text in "".join(page.text)
    assert "learning_rate" in page.text
    assert "Source: tuned here, on seeds 100 and 101." in page.text


def test_nothing_is_loaded_from_elsewhere(page):
    for _, attrs in page.elements:
        for name, value in attrs.items():
            if name in ("src", "href", "poster", "srcset", "data", "action"):
                assert value.startswith(("data:", "#"))
    policy = page.of("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert not page.of("script")
    assert not page.of("link")


def test_failed_runs_are_shown_as_failed(page):
    text = "".join(page.text)
    assert "75 runs, 6 failed" in text
    assert "ValueError: <b>no</b> & such $thing" in text
    assert not page.of("b")
    assert "failed (5 of 5 seeds)" in text
    assert "4 (1 failed)" in text
    assert "not played" in text
    assert "No curve: open_es (failed (5 of 5 seeds)), sbx_ppo (not played)." in text


def test_hostile_names_are_escaped(tmp_path):
    found = comparison(seeds=2)
    env, agent = f"brax/{HOSTILE}", f"a{HOSTILE}"
    task = replace(found.tasks[3], env=env, name=env, env_kwargs={HOSTILE: HOSTILE})
    runs = [learning(task, name, seed, 4500, 0.2) for name in (agent, "b") for seed in (0, 1)]
    runs = [replace(r, source=HOSTILE, settings={HOSTILE: HOSTILE}, policy=HOSTILE) for r in runs]
    runs.append(Run(env, "b", 2, HOSTILE))
    named = {HOSTILE: HOSTILE}
    found = Results(HOSTILE, HOSTILE, (agent, "b"), (task,), tuple(runs), named, named)
    uri = 'data:image/png;base64,"><script>alert(1)</script>'
    text = write_report(found, tmp_path, {(env, agent): uri}).read_text()
    assert "<script" not in text
    page = Page(text)
    assert page.of("img")[-1]["src"] == uri
    assert HOSTILE in "".join(page.of("img")[0].values()) + "".join(page.text)
    assert html.escape(f"{HOSTILE}={HOSTILE}") in text
    assert all(path.parent == tmp_path / "figures" for path in tmp_path.rglob("*.png"))
    rows = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert [row["env"] for row in rows] == [env] * 5
    # A cell ends at a bar that no backslash precedes.
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in markdown_table(found).splitlines()[:3]]
    assert cells == [4, 4, 4]


def test_the_summary_says_who_wins_and_who_loses():
    said = findings.summary(comparison())
    assert said[0] == "eggroll, open_es, ppo, sbx_ppo on 4 tasks: 75 runs, 6 failed."
    assert said[1].startswith(f"eggroll against open_es: clearly better on {CART_POLE}, {PENDULUM}")
    assert f"clearly worse on {CART_POLE}, {PENDULUM}, {ANT}" in said[2]
    assert f"no clear difference on {LANDER}" in said[2]
    assert "eggroll on 3 of 4, open_es on 1 of 3" in said[4]
    assert "on the 3 tasks that all play" in said[5]


def test_relative_scores_beside_published_ones(tmp_path):
    published = {CART_POLE: {"eggroll": 1.5}, ANT: {"eggroll": 0.5}, "brax/humanoid": {}}
    found = replace(comparison(), relative_to="ppo", published=published)
    table = findings.relative_table(found)
    assert table.head == ("task", "eggroll", "open_es", "sbx_ppo", "eggroll, published")
    rows = {name: cells for name, *cells in table.rows}
    means = ["mean of the 4 with scores", "mean of all 5"]
    assert list(rows) == [CART_POLE, ANT, "brax/humanoid", PENDULUM, LANDER, *means]
    assert rows[CART_POLE][0] == "1.01 [1.00, 1.03]"
    assert rows[CART_POLE][-1] == "1.50"
    assert rows[ANT][1:] == ["failed (5 of 5 seeds)", "not run", "0.500"]
    assert rows["brax/humanoid"] == ["not run", "not run", "not run", "-"]
    assert rows[PENDULUM][-1] == "-"
    assert rows[means[0]][0].endswith("]")
    assert rows[means[0]][1:] == ["-"] * 3  # open_es and sbx_ppo have not run on all of them
    assert rows[means[1]] == ["-"] * 4
    assert "Score relative to ppo" in write_report(found, tmp_path, {}).read_text()
    lines = markdown(table).splitlines()
    assert len({line.count("|") for line in lines[2:11]}) == 1
    assert findings.relative_table(comparison()) is None


def test_a_comparison_of_one_seed_makes_a_page(tmp_path):
    text = write_report(comparison(seeds=1), tmp_path, {}).read_text()
    assert "(1 seed, no interval)" in text
    assert "too few seeds to tell on" in text
    assert "Best policies" not in text


def test_one_agent_or_no_run_at_all_makes_a_page(tmp_path):
    one = comparison()
    one = replace(one, agents=("eggroll",), runs=tuple(r for r in one.runs if r.agent == "eggroll"))
    text = write_report(one, tmp_path, {}).read_text()
    assert "Probability of improvement" not in text
    empty = Results("none", "es-rl", ("x", "y"), (Task("a", 1.0, 1, 1.0),), (), {}, {})
    text = write_report(empty, tmp_path, {}).read_text()
    assert "x against y: no task in common." in text
    assert text.count("not played") == 4
    assert "| a (1.00) | not played | not played |" in markdown_table(empty)


def test_a_replay_that_is_no_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a data URI of a video or an image"):
        write_report(comparison(), tmp_path, {(ANT, "ppo"): "javascript:alert(1)"})
    assert list(tmp_path.iterdir()) == []


def test_csv_has_one_row_a_run(tmp_path):
    found = comparison()
    write_csv(found, tmp_path / "results.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert len(rows) == len(found.runs)
    for row, run in zip(rows, found.runs, strict=True):
        assert (row["task"], row["agent"], int(row["seed"])) == (run.task, run.agent, run.seed)
        assert row["error"] == (run.error or "")
        if run.error is None:
            assert float(row["return_mean"]) == run.return_mean
            assert float(row["device_seconds"]) == run.seconds * 2
            assert json.loads(row["settings"]) == run.settings
            first = run.first_reaching({t.name: t for t in found.tasks}[run.task].threshold)
            assert row["seconds_to_threshold"] == ("" if first is None else str(first.seconds))
            if first is not None and first != run.curve[0]:
                below = run.curve[run.curve.index(first) - 1]
                assert row["seconds_last_below"] == str(below.seconds)
                assert row["env_steps_last_below"] == str(below.env_steps)
        else:
            assert row["return_mean"] == row["seconds"] == ""


def test_the_markdown_table_has_a_column_an_agent():
    lines = markdown_table(comparison()).splitlines()
    assert lines[0] == "| task | eggroll | open_es | ppo | sbx_ppo |"
    assert lines[1] == "| --- | --- | --- | --- | --- |"
    cells = lines[2].split(" | ")
    assert cells[0] == f"| {CART_POLE} (475.0)"
    assert re.fullmatch(
        r"[\d.]+ \[[\d.]+, [\d.]+\]; [\d.]+ to [\d.]+ s \[[\d.]+, [\d.]+\]; 4 of 4 \(1 failed\)",
        cells[1],
    )
    assert lines[5].endswith("| not played |")
    assert "89 % with 5" in lines[-1]


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False)])
def test_the_page_in_a_browser(browser, folder, tmp_path, width, dark):
    path = folder / "report.html"
    browser.open(path, width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.evaluate("Promise.all([...document.images].map(i => i.decode()))")
    # Not innerWidth: a phone widens it for a page that does not fit.
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.body.scrollWidth") <= width
    # Tables that are wider scroll in boxes of their own.
    boxes = "[...document.querySelectorAll('.scroll')]"
    assert browser.evaluate(f"{boxes}.every(b => b.getBoundingClientRect().right <= {width})")
    if width == 390:
        assert browser.evaluate(f"{boxes}.some(b => b.scrollWidth > b.clientWidth)")
    assert browser.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    assert browser.evaluate("getComputedStyle(document.body).fontSize") == "16px"
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []
    browser.screenshot(tmp_path / "page.png")
    shot = imageio.imread(tmp_path / "page.png")
    assert shot.shape[:2] == (844, width)
    assert shot[..., :3].std() > 20
    assert (np.median(shot[..., :3]) < 60) == dark
