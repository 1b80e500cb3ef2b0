"""The page of a run: what `es-rl report` writes, and what a browser makes of it."""

import base64
import hashlib
import json
import re
import threading
import time

import pytest

import agents
import envs
from es_rl.files import locked
from experiments import cli
from experiments.commands import report
from experiments.run_page import films
from tests.experiments.browser import Browser


def page_of(run, *flags):
    assert report.main([str(run), *flags]) == 0
    return (run / "report.html").read_text()


def text_of(page):
    body = page[page.index("<body") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_a_page_of_a_finished_run(run, capsys):
    page = page_of(run)
    assert capsys.readouterr().out == f"page of the run: {run}/report.html\n"
    said = text_of(page)
    assert "gymnasium/ phys2d/ CartPole-v1 eggroll, seed 0" in said
    assert "Finished return 500.0 ± 0.0 in the last evaluation" in said
    assert "An evaluation has reached the target return 500." in said
    assert re.search(r"env steps [\d,]+ of 2,000,000 generations \d+ time [\d.]+ s", said)
    for title in ("Return", "Grad norm", "Lane utilization", "Steps per second"):
        assert f"<b>{title}</b>" in page
    assert "The same in every generation: learning rate 1, sigma 0.8." in said
    assert "sigma 0.8 0.1 tuned" in said, "value, default, origin"
    assert "noise_reuse 2 " in said[said.index("All other settings") :]
    assert "jax 0." in said
    assert f"es-rl replay {run} --video {run}/replay.gif" in said
    assert f"es-rl train --resume {run} --target-return None" in said
    assert "data-reload" not in page


def test_the_page_loads_nothing_and_runs_its_own_script_alone(run):
    page = page_of(run)
    assert not re.search(r"https?://|\bimport\b|@import|fetch\(|XMLHttpRequest", page)
    sources = re.findall(r'\b(?:src|href|poster)="([^"]{5})', page)
    assert set(sources) == {"data:"}
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_films_have_a_poster(run):
    page = page_of(run)
    shown = re.findall(r'<video src="data:video/mp4;base64,([^"]*)" poster="([^"]*)"', page)
    kept = sorted((run / "videos").iterdir())
    assert [base64.b64decode(film) for film, _ in shown] == [path.read_bytes() for path in kept]
    for _, poster in shown:
        kind, data = poster.split(",", 1)
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(data)[:3] == b"\xff\xd8\xff"
    assert f"<b>Generation {5 * (len(kept) - 1)}</b>" in page


def test_of_many_films_the_page_has_some_and_those_of_the_future_are_left_out(run, metrics_of):
    (film, *_) = sorted((run / "videos").iterdir())
    for generation in range(30):
        film.with_name(f"generation-{generation:06d}.mp4").write_bytes(b"no film")
    metrics_of(*[{}] * 21)
    shown, count = films.Films(run).shown(21)
    assert count == 21
    numbers = [film.generation for film in shown]
    assert len(numbers) == len(set(numbers)) == 8
    assert (numbers[0], numbers[-1]) == (0, 20)
    assert "8 of the 21 films in videos/." in page_of(run)


def test_a_page_while_training_is_under_way(tmp_path):
    agent = agents.make("eggroll", envs.make("probe/policy_reward"), population_size=8, hidden=())
    out, said = tmp_path / "run", []

    def look(metrics, snapshot):
        if metrics["generation"] == 3:
            said.append(text_of(page_of(out)))

    options = {"eval_episodes": 4, "env_steps": 512}
    with agent:
        agents.train(agent, out=out, on_generation=look, **options)
    (said,) = said
    assert "Under way return" in said
    assert "50% of its budget is spent." in said
    assert f"es-rl report {out} --watch" in said
    assert "--resume" not in said
    assert "Finished" in text_of(page_of(out))


def test_a_page_of_another_agent_shows_its_own_metrics(tmp_path):
    settings = {"num_envs": 4, "num_steps": 8, "minibatch_size": 16, "hidden": (4,)}
    agent = agents.make("ppo", envs.make("probe/policy_reward"), **settings)
    out = tmp_path / "run"
    with agent:
        agents.train(agent, out=out, eval_episodes=4, env_steps=320)
    page = page_of(out)
    for title in ("Return", "Approx kl", "Value loss", "Entropy"):
        assert f"<b>{title}</b>" in page
    assert "num_steps 8 256 given" in text_of(page)


def test_agents_that_are_not_known_have_settings_without_defaults(run, config_of):
    config_of(agent="mine", settings={"depth": 3}, env="mine/world")
    said = text_of(page_of(run))
    assert "mine, seed 0" in said
    assert "depth 3" in said


def test_another_file(run, tmp_path):
    out = tmp_path / "new" / "x.html"
    page_of_run = page_of(run)
    assert report.main([str(run), "--out", str(out)]) == 0
    assert out.read_text()[:1000] == page_of_run[:1000]


def watching(run, *flags):
    command = [str(run), "--watch", "--every", "0.1", *flags]
    thread = threading.Thread(target=report.main, args=(command,))
    thread.start()
    return thread


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_watch_follows_a_run_and_ends_with_it(run, config_of, metrics_of, capsys):
    config_of(target_return=None)
    metrics_of()
    page = run / "report.html"
    with locked(run / ".lock"):
        thread = watching(run)
        until(page.exists)
        said = page.read_text()
        assert 'data-reload="0.1"' in said
        assert "The first generation has not ended yet" in said
        metrics_of({"return_mean": 1.0, "eval_return_mean": 23.0})
        until(lambda: "return 23.0 in the last evaluation" in text_of(page.read_text()))
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()
    assert "data-reload" not in page.read_text()
    assert "Stopped" in page.read_text()
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"page of the run: {page} (renewed every 0.1 s until the run is over)"
    assert last == "the run is over: stopped, it ended before its budget was spent"


def test_watch_of_a_run_that_is_over_is_a_page(run):
    assert "data-reload" not in page_of(run, "--watch")


def test_ctrl_c_ends_watching_and_leaves_a_page_that_rests(run, monkeypatch, capsys):
    def interrupted(seconds):
        assert 'data-reload="5"' in (run / "report.html").read_text()
        raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", interrupted)
    with locked(run / ".lock"), pytest.raises(SystemExit) as ended:
        cli.main(["report", str(run), "--watch"])
    assert ended.value.code == 130
    page = (run / "report.html").read_text()
    assert "Under way" in page
    assert "data-reload" not in page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1440, False)])
def test_a_browser_shows_the_page(browser, run, config_of, width, dark):
    config_of(env="brax/" + "a_long_name_" * 10, settings={"hidden": [64] * 40})
    page_of(run)
    path = run / "report.html"
    browser.open(path, width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []
    # Each line is drawn over most of its chart.
    spans = browser.evaluate(
        "[...document.querySelectorAll('.plot')].map(p => p.querySelector('.line')"
        ".getBoundingClientRect().width / p.getBoundingClientRect().width)"
    )
    assert len(spans) >= 6
    assert min(spans) > 0.8


def test_pointing_at_a_chart_shows_its_numbers(browser, run, metrics_of):
    metrics_of({"return_mean": 1.5}, {"return_mean": 2500.25, "eval_return_mean": -7.0})
    page_of(run)
    browser.open(run / "report.html", 390)
    point = (
        "(at => { const plot = document.querySelector('.plot'), b = plot.getBoundingClientRect();"
        "plot.dispatchEvent(new PointerEvent('pointermove', {{clientX: b.left + at * b.width}}));"
        "return document.querySelector('.readout').textContent; }})({})"
    ).replace("{ const", "{{ const")
    assert browser.evaluate(point.format(0.99)) == "200 steps: training 2,500, evaluation -7"
    assert browser.evaluate(point.format(0.6)) == "100 steps: training 1.5, evaluation -7"
    gone = "document.querySelector('.plot').dispatchEvent(new PointerEvent('pointerleave')),"
    rest = browser.evaluate(gone + "document.querySelector('.readout').textContent")
    assert rest == "training 1.5 to 2.5k, evaluation -7"
    assert browser.complaints() == []


def test_a_page_that_follows_a_run_loads_itself_again(browser, run):
    page, path = page_of(run), run / "report.html"
    path.write_text(page.replace("<body>", '<body data-reload="3">'))
    browser.open(path, 390)
    path.write_text(page)
    browser.events.clear()
    browser.wait_for_load()
    assert browser.evaluate("document.body.dataset.reload === undefined")


def test_loading_again_keeps_the_readers_place(browser, run):
    page_of(run)
    browser.open(run / "report.html", 390)
    browser.events.clear()
    browser.evaluate("document.querySelector('details').open = true; scrollTo(0, 700)")
    browser.evaluate("void setTimeout(loadAgain)")
    browser.wait_for_load()
    assert browser.evaluate("scrollY") == 700
    assert browser.evaluate("document.querySelector('details').open")
    assert browser.complaints() == []


def test_a_page_that_plays_a_film_waits(browser, run):
    page_of(run)
    browser.open(run / "report.html", 390)
    film = "document.querySelector('video')"
    browser.evaluate(f"window.before = true; void {film}.play(); loadAgain()")
    time.sleep(1.5)  # it looks every second
    assert browser.evaluate("window.before")
    browser.events.clear()
    browser.evaluate(f"{film}.pause()")
    browser.wait_for_load()
    assert not browser.evaluate("window.before")


def test_numbers_on_the_page_are_those_of_the_run(run, metrics_of):
    metrics_of({"return_mean": 1.25}, {"return_mean": None}, {"return_mean": 1e300})
    page = page_of(run)
    (data,) = re.findall(r'class="chart large" data-chart="([^"]*)"', page)
    shown = json.loads(data.replace("&quot;", '"'))
    assert shown == {"until": 300.0, "curves": [["training", [100.0], [1.25]]]}
    assert "Not finite in 2 of 3 generations." in page


def test_training_that_cuts_episodes_is_not_compared_with_evaluation(run, config_of):
    settings = json.loads((run / "config.json").read_text())["settings"]
    assert "not comparable" not in page_of(run)
    config_of(settings={**settings, "episode_steps": 150})
    assert "Training stops episodes after 150 steps (episode_steps)" in page_of(run)
