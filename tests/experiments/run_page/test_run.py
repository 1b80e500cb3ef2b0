"""What is read from a run's folder, piece by piece while the run writes it."""

import json
import os
import shutil

import numpy as np
import pytest

from es_rl.files import is_locked, locked
from experiments.run_page.charts import MOST_POINTS, thinned
from experiments.run_page.choice_of_charts import charts
from experiments.run_page.run import open_run


def test_a_finished_run(cart_pole):
    run = open_run(cart_pole)
    lines = [json.loads(line) for line in (cart_pole / "metrics.jsonl").read_text().splitlines()]
    assert run.state == "finished"
    assert run.why() == "an evaluation has reached the target return 500"
    assert run.evaluations[-1].mean == run.best.mean == lines[-1]["eval_return_mean"] == 500
    assert run.metrics["return_mean"].tolist() == [line["return_mean"] for line in lines]
    assert run.metrics.lines == len(lines)
    assert run.policies == ("policy", "best")
    assert run.versions["python"]
    assert not run.read(), "nothing is new"


@pytest.mark.parametrize(
    ("options", "lines", "state", "says"),
    [
        ({"env_steps": 300}, [{}, {}, {}], "finished", "its budget of 300 env steps is spent"),
        ({"env_steps": 301}, [{}, {}, {}], "stopped", "it ended before its budget was spent"),
        (
            {"seconds": 4.0},
            [{"wall_seconds": 9.0, "evaluation_seconds": 5.0}],
            "finished",
            "its budget of 4 s of training is spent",
        ),
        ({"seconds": 4.1}, [{"wall_seconds": 9.0, "evaluation_seconds": 5.0}], "stopped", ""),
        ({"target_return": 7.0}, [{"eval_return_mean": 7.0}], "finished", "the target return 7"),
        ({"target_return": 7.0}, [{"eval_return_mean": 6.9}], "stopped", ""),
        ({}, [{"update_skipped": 1}] * 10, "stopped", "training has diverged: the last 10 updates"),
        ({}, [{"update_skipped": 1}] * 9, "stopped", "before its budget"),
        ({}, [], "stopped", "before its budget"),
    ],
)
def test_how_a_run_ended(run, config_of, metrics_of, options, lines, state, says):
    config_of(**{"target_return": None, **options})
    metrics_of(*lines)
    seen = open_run(run)
    assert seen.state == state
    assert says in seen.why()
    with locked(run / ".lock"):
        seen.read()
        assert seen.state == "under way"
    seen.read()
    assert seen.state == state


def test_a_lock_is_seen_and_neither_taken_nor_made(tmp_path):
    path = tmp_path / ".lock"
    assert not is_locked(path)
    assert not path.exists()
    with locked(path):
        assert is_locked(path)
        assert is_locked(path)
    assert not is_locked(path)
    with locked(path):
        pass


def test_lines_are_read_once_and_a_half_of_one_is_left(run, metrics_of):
    metrics_of({"return_mean": 1.0})
    seen = open_run(run)
    path = run / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"generation": 1, "env_steps": 200, "ret')
        file.flush()
        assert not seen.read()
        assert seen.metrics.lines == 1
        file.write('urn_mean": null, "later": 3}\n')
        file.flush()
    assert seen.read()
    np.testing.assert_array_equal(seen.metrics["return_mean"], [1.0, np.nan])
    np.testing.assert_array_equal(seen.metrics["later"], [np.nan, 3.0])
    assert seen.metrics.not_finite == {"return_mean": 1}
    assert seen.metrics.last("return_mean") is None
    # What is read already may be gone: it is not read again.
    text = path.read_bytes()
    with path.open("r+b") as file:
        file.write(b"#" * len(text))
        file.seek(len(text))
        file.write(b'{"generation": 7, "env_steps": 800}\n')
    assert seen.read()
    assert seen.metrics["generation"].tolist() == [0, 1, 7]


def test_metrics_that_a_resumed_run_replaced_are_read_anew(run, metrics_of):
    metrics_of({"old": 1.0}, {"old": 1.0}, {"old": 1.0})
    seen = open_run(run)
    new = run / "new"
    shutil.copy(run / "metrics.jsonl", new)
    new.write_text('{"generation": 0, "env_steps": 5, "new": 2.0}\n' * 1 + " " * 500)
    os.replace(new, run / "metrics.jsonl")
    assert seen.read()
    assert seen.metrics.lines == 1
    assert seen.metrics.names == ["generation", "env_steps", "new"]


def test_the_last_evaluation_of_a_run_that_a_signal_ended_is_that_of_its_policy(run, config_of):
    config_of(target_return=None)
    path = run / "metrics.jsonl"
    *lines, last = path.read_text().splitlines(keepends=True)
    lacks = {k: v for k, v in json.loads(last).items() if not k.startswith("eval_")}
    path.write_text("".join(lines) + json.dumps(lacks) + "\n")
    seen = open_run(run)
    generations = len(lines) + 1
    assert seen.state == "stopped"
    assert [point.generations for point in seen.evaluations] == [1, generations]
    found = seen.evaluations[-1]
    assert (found.mean, found.std, found.episodes) == (500.0, 0.0, 128)
    assert charts(seen).main.dots.y[-1] == 500.0
    with locked(run / ".lock"):
        seen.read()
        assert [point.generations for point in seen.evaluations] == [1], "it may be of another time"
    path.write_text("".join(lines))
    assert [point.generations for point in open_run(run).evaluations] == [1], "it is of later"


def test_many_generations_are_few_points(run, metrics_of):
    count = 30 * MOST_POINTS
    line = {"return_std": 1.0, "failed_episodes": 1}
    metrics_of(*({**line, "return_mean": i, "loss": i % 2} for i in range(count)))
    found = charts(open_run(run))
    assert len(found.main.line.x) == MOST_POINTS
    (_, (chart,)), (_, (problems,)) = found.groups
    assert chart.title == "Loss"
    assert problems.line.y.tolist() == list(range(30, count + 1, 30)), "so far"
    assert chart.line.y.tolist() == pytest.approx([0.5] * MOST_POINTS)
    assert set(chart.band.low) == {0}
    assert set(chart.band.high) == {1}


def test_the_mean_of_neighbours_leaves_none_out():
    values = np.random.default_rng(0).normal(size=3 * MOST_POINTS + 7)
    values[5] = np.nan
    x, y, band = thinned(np.arange(len(values), dtype=float), values)
    assert len(x) == len(y) == MOST_POINTS
    there = values[np.isfinite(values)]
    assert band.low.min() == there.min()
    assert band.high.max() == there.max()
    assert y.mean() == pytest.approx(there.mean(), abs=0.01)


def test_charts_are_of_whatever_numbers_there_are(run, metrics_of):
    line = {"return_mean": 5.0, "return_min": 1.0, "return_max": 6.0, "return_std": 2.0}
    more = {"mine": 1.0, "fixed": 3.5, "failed_episodes": 0, "nonfinite_members": 2}
    evaluated = {"eval_return_mean": 8.0, "info_x_mean": 1.0, "eval_info_x_mean": 2.0}
    metrics_of({**line, **more, **evaluated}, {**line, **more, "mine": 2.0})
    found = charts(open_run(run))
    assert found.main.dots.y.tolist() == [8.0]
    assert [curve.name for curve in found.main.read] == ["min", "max"]
    assert found.main.band.low.tolist() == [3, 3], "mean - std"
    assert found.main.band.high.tolist() == [6, 6], "no more than the largest"
    shown = {title: [chart.title for chart in group] for title, group in found.groups}
    assert shown == {
        "Update of the agent": ["Mine"],
        "Reported by the environment": ["Info x"],
        "Problems": ["Nonfinite members so far"],
    }
    assert found.constant == ["fixed 3.5"]
