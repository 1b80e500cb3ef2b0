"""Comparisons and suites from strangers: a folder is checked, and no link followed."""

import json
import sys
from contextlib import suppress
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import UserError
from envs.suites import gymnasium_suite
from experiments.comparison.folder import check_folder
from experiments.comparison.results import Results, Task, run_from_json, save
from experiments.comparison.suites import Contestant, Entry, load
from experiments.comparison.trials import Trials, run_folder
from tests.agents.hostile.spoiling import (
    ODD,
    SECRET,
    contents,
    error_of,
    inside_and_outside,
    many,
    paths_of,
    replaced,
    spoil,
)

KEPT = {
    "task": "probe/policy_reward",
    "agent": "eggroll",
    "kind": "eggroll",
    "seed": 0,
    "error": None,
    "returns": [8.0] * 128,
    "env_steps": 64,
    "seconds": 1.5,
    "compile_seconds": 2.0,
    "evaluation_seconds": 0.5,
    "devices": 2,
    "curve": [[32, 0.5, 4.0], [64, 1.5, None]],
    "policy": "runs/probe/policy_reward/eggroll/seed-0/policy",
}


@pytest.fixture
def place(tmp_path):
    """(a folder for comparisons, a folder outside of it with a file)."""
    return inside_and_outside(tmp_path)


@pytest.fixture
def trials(tmp_path):
    """Trials of which the first has been made."""
    entry = Entry(Task("probe/policy_reward", 8.0, 100, 1.0), {"eggroll": {"hidden": (4,)}})
    contestant = Contestant("eggroll", "eggroll")
    chosen = entry.settings_of(contestant)
    run_folder(tmp_path, entry.task.name, "eggroll", 0).mkdir(parents=True)
    return Trials(entry.task, None, contestant, chosen, tmp_path)


def suite_in(folder):
    """The path of a suite whose task is that of `KEPT`."""
    path = folder / "small.toml"
    path.write_text(
        'agents = ["eggroll"]\n[[tasks]]\nenv = "probe/policy_reward"\n'
        "threshold = 8\nenv_steps = 100\nseconds = 1\n"
    )
    return path


def kept(trials, run):
    path = run_folder(trials.root, trials.task.name, "eggroll", 0) / "run.json"
    path.write_text(json.dumps(run))
    return trials.kept(0)


def honest_run(trials):
    from agents.registry import preset

    source = preset("eggroll", "probe/policy_reward").source
    return {**KEPT, "settings": json.loads(json.dumps(trials.settings)), "source": source}


def test_the_kept_run_that_is_spoilt_is_a_good_one(trials):
    run = kept(trials, honest_run(trials))
    assert run.return_mean == 8.0
    assert run.curve[0] == (32, 0.5, 4.0)
    assert np.isnan(run.curve[1].return_mean)


def test_a_setting_that_is_newer_than_a_run_had_its_default(trials):
    run = honest_run(trials)
    del run["settings"]["action_mask"]
    assert kept(trials, run).return_mean == 8.0
    del run["settings"]["hidden"]
    with pytest.raises(UserError, match=r"trained with other settings \(hidden\): must be another"):
        kept(trials, run)


@many
@given(data=st.data(), other=ODD)
def test_whatever_stands_in_a_kept_run(trials, data, other):
    honest = honest_run(trials)
    path = data.draw(st.sampled_from(list(paths_of(honest))))
    with suppress(UserError):
        run = kept(trials, replaced(honest, path, other))
        assert (run.task, run.agent, run.seed, run.policy) == tuple(
            honest[name] for name in ("task", "agent", "seed", "policy")
        )
        assert np.isfinite(run.returns).all()
        assert run.first_reaching(4.0) is None or run.curve


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "../outside"),
        ("task", 3),
        ("agent", ".."),
        ("agent", "a/b"),
        ("agent", None),
        ("seed", -1),
        ("seed", "0"),
        ("seed", True),
    ],
)
def test_results_put_no_run_outside_of_its_place(place, capsys, field, value):
    inside, outside = place
    suite = suite_in(outside)
    (task,) = [entry.task for entry in load(str(suite)).entries]
    run = run_from_json({**KEPT, field: value})
    save(Results("x", "x", ("eggroll",), (task,), (run,), {}, {}), inside / "results.json")
    before = contents(inside), contents(outside)
    assert f"{inside}: " in error_of(capsys, "compare", str(suite), "--out", str(inside))
    assert (contents(inside), contents(outside)) == before


def test_a_field_that_is_newer_than_a_folder_has_its_default(place):
    inside, outside = place
    suite = load(str(suite_in(outside)))
    (entry,) = suite.entries
    described = asdict(entry.task)
    del described["final_episodes"]
    (inside / "tasks.json").write_text(json.dumps([described]))
    assert check_folder(inside, suite) is None
    for other in ([{**described, "threshold": 9.0}], [{**described, "nothing": 1}], [3], 3):
        (inside / "tasks.json").write_text(json.dumps(other))
        with pytest.raises(UserError, match=r"tasks|a folder of a comparison"):
            check_folder(inside, suite)


@pytest.mark.parametrize(
    "text",
    ["3", "null", "[" * 100_000, '{"tasks": [], "runs": []}'],
)
def test_results_that_are_no_results(place, capsys, text):
    inside, outside = place
    (inside / "results.json").write_text(text)
    said = error_of(capsys, "compare", str(suite_in(outside)), "--out", str(inside))
    assert "holds no results of a comparison" in said


@pytest.mark.parametrize("change", [{"seconds": np.nan}, {"curve": [[1, 1.0, "x"]]}])
def test_results_with_a_run_that_cannot_be_written(place, capsys, change):
    inside, outside = place
    suite = suite_in(outside)
    (task,) = [entry.task for entry in load(str(suite)).entries]
    run = {**KEPT, **change}
    found = asdict(Results("x", "x", ("eggroll",), (task,), (), {}, {}))
    (inside / "results.json").write_text(json.dumps({**found, "runs": [run]}))
    said = error_of(capsys, "compare", str(suite), "--out", str(inside))
    assert "results.json: a run cannot be written" in said


@pytest.mark.parametrize(
    "change", [{"name": "../outside"}, {"random_return": "1"}, {"random_return": [1]}]
)
def test_results_put_no_random_return_outside_of_its_place(place, capsys, change):
    inside, outside = place
    suite = suite_in(outside)
    (entry,) = load(str(suite)).entries
    task = replace(entry.task, **{"random_return": 1.0, **change})
    (inside / "tasks.json").write_text(json.dumps([asdict(entry.task)]))
    save(Results("x", "x", ("eggroll",), (task,), (), {}, {}), inside / "results.json")
    before = contents(inside), contents(outside)
    assert f"{inside}: " in error_of(capsys, "compare", str(suite), "--out", str(inside))
    assert (contents(inside), contents(outside)) == before


@pytest.mark.parametrize(
    "name",
    ["tasks.json", "results.json", "report.html", "table.tex", "figures", "imported", "runs"],
)
@pytest.mark.parametrize("how", ["file", "folder", "nothing", "pipe"])
def test_a_comparison_follows_no_link(place, capsys, name, how):
    inside, outside = place
    suite = suite_in(outside)
    before = contents(outside)
    spoil(inside / name, outside, how)
    says = error_of(capsys, "compare", str(suite), "--out", str(inside))
    assert f"must be a folder of a comparison: {name} is a" in says
    assert contents(outside) == before


def test_files_of_a_comparison_are_replaced(place):
    from experiments.comparison import figures, report, results, tables

    inside, outside = place
    found = results.Results("x", "x", (), (), (), {}, {})
    writers = {
        "results.json": lambda path: results.save(found, path),
        "results.csv": lambda path: tables.write_csv(found, path),
        "report.html": lambda path: report.write_report(found, path.parent, {}),
        "a.png": lambda path: figures.save(figures.Figure(), path),
    }
    for name, write in writers.items():
        for how in ("file", "hard"):
            spoil(inside / name, outside, how)
            write(inside / name)
            assert not (inside / name).is_symlink()
            assert (inside / name).read_bytes() != SECRET
            assert (outside / "file").read_bytes() == SECRET


def test_a_suite_of_a_users_own_environments(tmp_path, monkeypatch, capsys):
    from experiments.commands import compare
    from experiments.comparison import suites

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gymnasium_suite, "_IMPORTED", [])  # or later workers look for it
    (tmp_path / "hostile_runs_envs.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('HostileRuns-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    (tmp_path / "small.toml").write_text(
        'agents = ["random"]\n[[tasks]]\nenv = "gymnasium/hostile_runs_envs:HostileRuns-v0"\n'
        "threshold = 1\nenv_steps = 10\nseconds = 1\n"
    )
    says = error_of(capsys, "compare", "small.toml")
    assert "needs modules = ['hostile_runs_envs'], or --import" in says
    assert "hostile_runs_envs" not in sys.modules
    assert list(tmp_path.glob("runs")) == []
    reached = []
    monkeypatch.setattr(compare, "claim", lambda out, suite, _: reached.append(suite) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare.main(["small.toml", "--import", "hostile_runs_envs"])
    assert [entry.task.env for entry in reached[0].entries] == ["gymnasium/HostileRuns-v0"]
    assert suites.load("small.toml", ["hostile_runs_envs"]).entries == reached[0].entries
