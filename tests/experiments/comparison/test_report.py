"""The report of a comparison: what is in it, what can never get into it, and how it looks."""

import base64
import csv
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from experiments.comparison import findings, results
from experiments.comparison.figures import COLOURS, Picture
from experiments.comparison.films import Played, Replay, best_run
from experiments.comparison.report import (
    headline_picture,
    main_finding,
    short_names,
    write_report,
)
from experiments.comparison.results import Results, Run, Task
from experiments.comparison.tables import (
    csv_text,
    markdown,
    markdown_table,
    number,
    quantity,
    write_csv,
)
from experiments.markup import data_uri
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
def films(tmp_path_factory):
    """A film that repeats what was measured, and one that does not and is cut."""
    path = tmp_path_factory.mktemp("films")
    frames = np.random.default_rng(0).integers(0, 255, (4, 60, 80, 3), dtype=np.uint8)
    imageio.imwrite(path / "film.jpg", frames[0])
    (path / "film.mp4").write_bytes(b"a film")
    measured = best_run(comparison(), CART_POLE, "ppo").returns[0]
    return {
        (task, agent): Replay(path / "film.mp4", path / "film.jpg", played)
        for task, agent, played in (
            (CART_POLE, "ppo", Played(measured, True)),
            (ANT, "eggroll", Played(12.5, False)),
        )
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, films):
    """The report of a comparison with two films."""
    out = tmp_path_factory.mktemp("report")
    assert write_report(comparison(), out, films) == out / "report.html"
    return out


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


def test_figures_are_small_images_with_something_in_them(folder):
    paths = sorted((folder / "figures").glob("*.png"))
    assert len(paths) == 2 + 2 * 4
    for path in paths:
        image = imageio.imread(path)
        assert 600 <= image.shape[1] <= 800
        assert 200 <= image.shape[0] <= 1500
        assert image[..., :3].std() > 5
        assert path.stat().st_size < 150_000


def test_the_page_holds_its_figures(folder, page):
    images = page.of("img")
    sources = {data_uri(path) for path in (folder / "figures").glob("*.png")}
    assert sources == {image["src"] for image in images}
    assert all(image["alt"] for image in images)


def test_films_have_posters_and_say_what_they_show(page, films):
    assert len(page.of("video")) == 2
    for (task, agent), video in zip(films, page.of("video"), strict=True):
        assert video["src"] == "data:video/mp4;base64," + base64.b64encode(b"a film").decode()
        assert video["poster"] == data_uri(films[task, agent].poster)
        assert video["poster"].startswith("data:image/jpeg;base64,")
        assert video["preload"] == "none"  # nothing is decoded before it plays
        assert "controls" in video
        assert video["aria-label"] == f"Film of {agent} on {task.rpartition('/')[2]}"
    captions = [text for text in page.text if "in this film" in text]
    assert len(captions) == 2
    for (task, agent), caption in zip(films, captions, strict=True):
        best = best_run(comparison(), task, agent)
        assert best.return_mean == max(r.return_mean for r in comparison().of(task, agent))
        filmed = number(films[task, agent].played.episode_return)
        assert f"seed {best.seed}, the best of 5: return {filmed} in this film" in caption
        assert f"{number(best.return_mean)} the mean of its 32 episodes" in caption
    measured = number(best_run(comparison(), ANT, "eggroll").returns[0])
    different = f"When it was measured, this episode had {measured}"
    assert [different in caption for caption in captions] == [False, True]
    assert ["film ends before the episode" in caption for caption in captions] == [False, True]


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
    assert "eggroll: tuned here, on seeds 100 and 101." in page.text


def test_nothing_is_loaded_from_elsewhere(folder, page):
    for _, attrs in page.elements:
        for name, value in attrs.items():
            if name in ("src", "href", "poster", "srcset", "data", "action"):
                assert value.startswith(("data:", "#"))
    text = (folder / "report.html").read_text()
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert [link["rel"] for link in page.of("link")] == ["icon"]


def test_no_script_but_the_pages_own_can_run(folder, page):
    meta = page.of("meta")[1]
    assert meta["http-equiv"] == "Content-Security-Policy"
    policy = dict(part.strip().split(" ", 1) for part in meta["content"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == policy["media-src"] == "data:"
    (script,) = re.findall("<script>(.*?)</script>", (folder / "report.html").read_text(), re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'sha256-{digest}'"
    assert page.of("script") == [{}]
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


def test_tasks_have_short_names_unless_two_would_be_the_same(page):
    links = [link["href"] for link in page.of("a") if link["href"].startswith("#task")]
    assert links == [f"#task-{i}" for i in range(4)]
    for name in ("CartPole-v1", "Pendulum-v0", "LunarLander-v3", "ant"):
        assert page.text.count(name) >= 3  # the link, the heading, and the rows of tables
    assert any(text.startswith(f"{ANT}: solved at a return of 4,000") for text in page.text)
    assert short_names([CART_POLE, "gymnasium/CartPole-v1", ANT, "x", "y/", ANT]) == {
        CART_POLE: CART_POLE,
        "gymnasium/CartPole-v1": "gymnasium/CartPole-v1",
        ANT: "ant",
        "x": "x",
        "y/": "y/",
    }


def test_the_main_finding_is_one_sentence(page):
    found = comparison()
    said = (
        "eggroll is clearly better than open_es on 3 of 3 tasks and sbx_ppo on 1 of 3, and clearly "
        "worse than ppo on 3 of 4 tasks."
    )
    assert main_finding(found) == said
    assert said in page.text
    again = tuple(replace(run, agent="again") for run in found.runs if run.agent == "ppo")
    more = replace(found, agents=("ppo", "again", "eggroll"), runs=found.runs + again)
    assert main_finding(more) == (
        "ppo is clearly better than eggroll on 3 of 4 tasks, and clearly worse than none; there is "
        "no clear difference from again."
    )
    stops = replace(found, tasks=found.tasks[:1], agents=("sbx_ppo", "ppo", "eggroll"))
    assert main_finding(stops) == (
        "sbx_ppo is clearly faster than no other agent, and clearly slower than ppo on 1 of 1 "
        "tasks and eggroll on 1 of 1."
    )
    assert main_finding(replace(more, agents=(*found.agents, "again"))) == (
        "eggroll is clearly better in 4 of 14 comparisons with 4 other agents, and clearly worse "
        "in 6."
    )
    assert main_finding(comparison(seeds=1)) == (
        "No clear difference between eggroll and open_es, ppo and sbx_ppo: there are too few seeds "
        "to tell."
    )
    assert main_finding(replace(found, agents=("eggroll",))) == (
        "The median seed reaches the threshold: eggroll on 3 of 4 tasks played."
    )


def test_the_first_figure_is_the_one_that_tells_agents_apart():
    found = replace(comparison(seeds=2), agents=("eggroll", "ppo"))
    names = ("scores", "seconds-to-threshold", "other")
    scores, times, _ = drawn = [Picture(Path(f"{name}.png"), "", "") for name in names]
    assert headline_picture(found, drawn) is scores
    assert headline_picture(found, [times]) is times
    assert headline_picture(found, [replace(times, task="a")]) is None
    # Where runs stop when solved, the scores of good agents are the same.
    stops = replace(found, tasks=tuple(replace(t, stop_when_solved=True) for t in found.tasks))
    assert headline_picture(stops, drawn) is times
    # Scores are of the tasks that all agents play: here of the ant alone.
    lonely = [run for run in found.runs if run.agent != "ppo" or run.task == ANT]
    assert headline_picture(replace(found, runs=tuple(lonely)), drawn) is times


def test_the_legend_names_the_interval_and_the_seeds(page):
    text = "".join(page.text)
    assert "interquartile mean (IQM) over 4 to 5 seeds, and its 95 % interval" in text
    assert "9,999 stratified bootstrap resamples" in text
    assert [i["style"] for i in page.of("i")] == [f"--colour: {c}" for c in COLOURS[:4]]


def test_failed_runs_are_shown_as_failed(page):
    text = "".join(page.text)
    assert "75 runs, 6 failed" in text
    assert "ValueError: <b>no</b> & such $thing" in text
    assert not page.of("b")
    assert "failed (5 of 5 seeds)" in text
    assert "4 (1 failed)" in text
    assert "not played" in text
    assert "No curve: open_es (failed (5 of 5 seeds)), sbx_ppo (not played)." in text


def test_hostile_names_are_escaped(tmp_path, films):
    found = comparison(seeds=2)
    env, agent = f"brax/{HOSTILE}", f"a{HOSTILE}"
    task = replace(found.tasks[3], env=env, name=env, env_kwargs={HOSTILE: HOSTILE})
    runs = [learning(task, name, seed, 4500, 0.2) for name in (agent, "b") for seed in (0, 1)]
    runs = [replace(r, source=HOSTILE, settings={HOSTILE: HOSTILE}, policy=HOSTILE) for r in runs]
    runs.append(Run(env, "b", 2, HOSTILE))
    named = {HOSTILE: HOSTILE}
    found = Results(HOSTILE, HOSTILE, (agent, "b"), (task,), tuple(runs), named, named)
    film = next(iter(films.values()))
    text = write_report(found, tmp_path, {(env, agent): film}).read_text()
    assert text.count("<script") == 1
    page = Page(text)
    assert page.of("video")[0]["aria-label"].startswith(f"Film of {agent} on ")
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
    assert "(IQM) over 1 seed, and" in text
    assert "Films" not in text


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


def test_verdicts_are_marked(page):
    kinds = [strong.get("class") for strong in page.of("strong")]
    assert {"better", "worse"} < {*kinds}
    told = sum("better" in cell for row in findings.head_to_head(comparison()).rows for cell in row)
    assert kinds.count("better") == told
