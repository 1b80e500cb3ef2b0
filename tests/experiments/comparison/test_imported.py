"""Agents that were not run here: what their files may hold, and where they are marked."""

import csv
import json

import pytest

from envs.errors import UserError
from experiments import cli
from experiments.commands import compare
from experiments.comparison import findings, imported, results
from experiments.comparison.curves import axis_range, learning_curve
from experiments.comparison.figures import draw
from experiments.comparison.imported import COLUMNS
from experiments.comparison.results import Results, Task
from experiments.comparison.statistics import aggregate, improvement, to_threshold
from experiments.comparison.suites import Contestant, Entry, Suite
from experiments.comparison.tables import csv_text, markdown_table
from tests.experiments.comparison.synthetic import run

HEAD = ",".join(COLUMNS)
GOOD = f"""{HEAD}
dqn,a,0,1000,1.5,10
dqn,a,0,2000,3,20.5
dqn,a,1,1000.0,1.25,12
dqn,b,0,100,,-5
"""
SUITE = Suite(
    "s",
    (Contestant("x", "eggroll"),),
    (Entry(Task("a", 20.0, 1500, 60.0)), Entry(Task("b", 10.0, 1000, 60.0, True))),
)


def runs_of(text, agent="dqn"):
    return imported.parse(text, SUITE)[agent]


def test_rows_become_runs():
    first, second, third = runs_of(GOOD)
    assert (first.task, first.agent, first.seed) == ("a", "dqn", 0)
    assert first.curve == ((1000, 1.5, 10.0), (2000, 3.0, 20.5))
    assert (first.returns, first.env_steps, first.seconds) == ((20.5,), 2000, 3.0)
    assert first.imported_from == "imported/dqn.csv"
    assert (second.seed, second.env_steps, second.returns) == (1, 1000, (12.0,))
    assert (third.task, third.seconds, third.curve) == ("b", None, ((100, None, -5.0),))


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(",", ", ") + "\n\n",
        HEAD + "\n" + "".join(f"{line}\n" for line in reversed(GOOD.splitlines()[1:])),
        "".join(f"{','.join(reversed(line.split(',')))}\n" for line in GOOD.splitlines()),
        '"' + GOOD.replace(",", '","').replace("\n", '"\n"')[:-1],
    ],
    ids=["byte order mark", "CRLF", "spaces", "order of rows", "order of columns", "quotes"],
)
def test_the_same_in_another_form(text, tmp_path):
    (tmp_path / "them.csv").write_bytes(text.encode())
    found = imported.gather(tmp_path / "out", SUITE, None, [tmp_path / "them.csv"])
    assert found == {"dqn": runs_of(GOOD)}


def test_what_the_folder_keeps_is_the_same(tmp_path):
    found = imported.parse(GOOD, SUITE)
    imported.keep(tmp_path, found)
    assert imported.gather(tmp_path, SUITE, None, ()) == found
    earlier = Results("s", "", ("x", "dqn"), (), found["dqn"], {}, {})
    assert imported.gather(tmp_path / "empty", SUITE, earlier, ()) == found
    (tmp_path / "new.csv").write_text(f"{HEAD}\ndqn,b,0,7,,8\n")
    (again,) = imported.gather(tmp_path, SUITE, earlier, [tmp_path / "new.csv"])["dqn"]
    assert again.curve == ((7, None, 8.0),)


def row(**changes):
    cells = {"agent": "dqn", "task": "a", "seed": "0", "env_steps": "10", "seconds": "1"}
    return ",".join({**cells, "return": "5", **changes}.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty: must have the columns agent,task,seed"),
        ("\n", "is empty"),
        (HEAD, "has no evaluations"),
        (GOOD.replace("seconds,", "secs,"), "row 1, column seconds: is missing"),
        (GOOD.replace(",", ";"), "row 1: must have the columns .*, separated by commas"),
        (HEAD + ",episodes\n", "row 1, column 'episodes': is unknown"),
        (HEAD + ",seed\n", "row 1, column seed: is twice"),
        (f"{HEAD}\n{row()},1", "row 2: has 7 cells: must have 6"),
        (f'{HEAD}\n"{row()}', "row 2: is no row of a CSV file"),
        (f"{HEAD}\n\n{row(task='c')}", "row 3, column task: must be a task of the suite .a, b."),
        (f"{HEAD}\n{row(agent='x')}", "row 2, column agent: 'x' is the name of an agent that can"),
        (f"{HEAD}\n{row(agent='ppo')}", "row 2, column agent: 'ppo' is the name of an agent"),
        (f"{HEAD}\n{row(agent='../x')}", "row 2, column agent: the name of an agent must be"),
        (f"{HEAD}\n{row(agent='')}", "row 2, column agent: the name of an agent must be"),
        (f"{HEAD}\n{row(seed='-1')}", "row 2, column seed: must be a whole number .* not '-1'"),
        (f"{HEAD}\n{row(seed='')}", "row 2, column seed: must be a whole number .* not ''"),
        (f"{HEAD}\n{row(env_steps='1.5')}", "row 2, column env_steps: must be a whole number"),
        (f"{HEAD}\n{row(env_steps='9' * 30)}", "row 2, column env_steps: must be a whole number"),
        (f"{HEAD}\n{row(env_steps='many')}", "row 2, column env_steps: .* not 'many'"),
        (f"{HEAD}\n{row(seconds='1 s')}", "row 2, column seconds: must be a finite number"),
        (f"{HEAD}\n{row(seconds='-1')}", "row 2, column seconds: must be at least 0 or empty"),
        (f"{HEAD}\n{row(**{'return': 'nan'})}", "row 2, column return: must be a finite number"),
        (f"{HEAD}\n{row(**{'return': 'inf'})}", "row 2, column return: .* not 'inf'"),
        (f"{HEAD}\n{row(**{'return': '1_0'})}", "row 2, column return: .* not '1_0'"),
        (f"{HEAD}\n{row(**{'return': ''})}", "row 2, column return: .* not ''"),
        (f"{HEAD}\n{row()}\n{row(seconds='2')}", "row 3, column env_steps: 10 is there twice .* 2"),
        (
            f"{HEAD}\n{row()}\n{row(env_steps='20', seconds='')}",
            "row 3, column seconds: must be given in all rows of agent dqn on a or in none",
        ),
        (
            f"{HEAD}\n{row(env_steps='20', seconds='1')}\n{row(seconds='2')}",
            "row 2, column seconds: 1 is less than the 2 of row 3",
        ),
    ],
)
def test_what_is_wrong_is_named_by_row_and_column(text, says):
    with pytest.raises(UserError, match=says):
        imported.parse(text, SUITE)


def test_wrong_files_are_one_line_and_write_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfea\0g")
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_text(f"{HEAD}\n{row(task='brax/inverted_pendulum')}\n")
    (tmp_path / "text.csv").write_text(f"{HEAD}\n{row(task='classic')}\n")
    before = sorted(tmp_path.iterdir())
    for files, says in (
        (("none.csv",), "none.csv: must be a CSV file; there is none"),
        ((".",), ".: must be a CSV file; there is none"),
        (("bytes.csv",), "bytes.csv: must be a CSV file in UTF-8"),
        (("text.csv",), "text.csv: row 2, column task: must be a task of the suite"),
        (("1.csv", "2.csv"), "2.csv: 'dqn' is an agent of 1.csv too"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["compare", "classic", "--agents", "eggroll", "--results", *files])
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"es-rl compare: error: --results {says}")
        assert said.count("\n") == 1
        assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def compared():
    """Two agents that were run, and one that was not: with seconds on a, without on b, where runs
    stop when solved."""
    runs = [run(task, agent, seed, 15.0) for task in "ab" for agent in "xy" for seed in (0, 1)]
    others = imported.parse(GOOD, SUITE)["dqn"]
    order = sorted((*runs, *others), key=lambda run: run.task)
    tasks = (Task("a", 20.0, 1500, 60.0, random_return=0.0), Task("b", 10.0, 1000, 60.0, True))
    return Results("s", "es-rl", ("x", "y", "dqn"), tasks, tuple(order), {}, {})


def test_it_is_marked_everywhere(compared, tmp_path):
    label = "dqn (not run here)"
    assert f"| x | y | {label} |" in markdown_table(compared)
    assert findings.head_to_head(compared).head[-1] == f"against {label}"
    assert [row[0] for row in findings.returns_table(compared, compared.tasks[0]).rows][-1] == label
    assert [row[0] for row in findings.times_table(compared, compared.tasks[0]).rows][-1] == label
    assert findings.improvement_table(compared).rows[-1][0] == f"P(y > {label})"
    assert [row[1] for row in findings.runs_table(compared).rows].count(label) == 3
    assert label in findings.summary(compared)[0]
    assert f"x against {label}" in findings.summary(compared)[2]
    assert findings.scores_table(aggregate(compared)).rows[-1][0] == label
    rows = list(csv.DictReader(csv_text(compared).splitlines()))
    of_others = {row["agent"]: row["imported_from"] for row in rows}
    assert of_others == {"x": "", "y": "", "dqn": "imported/dqn.csv"}
    lacking = [row for row in rows if row["agent"] == "dqn"][-1]
    assert lacking["seconds"] == lacking["devices"] == lacking["episodes"] == ""
    assert lacking["return_mean"] == "-5.0"
    for picture in draw(compared, tmp_path):
        # On b it has no seconds.
        shown = picture.path.stem != "b-seconds"
        assert (label in picture.path.with_suffix(".svg").read_text()) == shown
        assert ("dqn (no seconds)" in picture.caption) != shown
    said = findings.protocol(compared)
    assert any(text.startswith("dqn was not run here: its numbers are") for text in said)
    assert "dqn has no seconds on b, and takes no part in what they decide there." in said
    assert "dqn had up to 2 k env steps on a, where the budget is 1.5 k." in said


def test_without_seconds_it_is_left_out_of_what_they_decide(compared):
    a, b = compared.tasks
    assert improvement(compared, "x", "y").tasks == ("a", "b")
    assert improvement(compared, "x", "dqn").tasks == ("a",)
    assert findings.outcome(compared, a, "x", "dqn") is not None
    assert findings.outcome(compared, b, "x", "dqn") is None
    assert to_threshold(compared, b, "dqn", "seconds") is None
    assert to_threshold(compared, b, "dqn", "env_steps").seeds == 1
    assert to_threshold(compared, a, "dqn", "device_seconds") is None
    assert "-5.00 (1 seed, no interval); no seconds; 0 of 1" in markdown_table(compared)
    axis = axis_range(compared, "b", "seconds")
    assert learning_curve(compared.of("b", "dqn"), "seconds", axis) is None
    axis = axis_range(compared, "b", "env_steps")
    assert learning_curve(compared.of("b", "dqn"), "env_steps", axis).value[-1] == -5


def test_it_takes_no_task_from_the_scores_of_those_that_were_run(compared):
    tasks = tuple(results.Task(t.env, 20.0, 1500, 60.0, random_return=0.0) for t in compared.tasks)
    some = [r for r in compared.runs if (r.task, r.agent) != ("b", "dqn")]
    found = aggregate(Results("s", "", compared.agents, tasks, tuple(some), {}, {}))
    assert (found.tasks, list(found.scores)) == (("a", "b"), ["x", "y"])
    assert found.left_out == ("dqn (not run here): no run, or no time, on b.",)


def test_a_comparison_keeps_the_numbers_of_others(tmp_path, monkeypatch):
    suite, out, file = tmp_path / "small.toml", tmp_path / "out", tmp_path / "them.csv"
    task = '[[tasks]]\nenv = "probe/{}"\nthreshold = 1\nenv_steps = 10\nseconds = 1\n'
    suite.write_text('agents = ["zero"]\n' + task.format("recall") + task.format("action_reward"))
    file.write_text(f"{HEAD}\ndqn,probe/recall,0,10,,0.5\ndqn,probe/action_reward,3,10,,0.5\n")
    monkeypatch.setattr(compare.report, "write_report", lambda *of: None)

    def played(out, *flags):
        command = [str(suite), "--seeds", "1", "--out", str(out), *flags]
        assert compare.main(command) == 0
        found = results.load(out / "results.json")
        return found.agents, [(r.task, r.agent, r.seed) for r in found.runs]

    told = played(out, "--tasks", "probe/recall", "--results", str(file))
    assert told == (
        ("zero", "dqn"),
        [
            ("probe/recall", "zero", 0),
            ("probe/recall", "dqn", 0),
            ("probe/action_reward", "dqn", 3),
        ],
    )
    file.unlink()
    (out / "results.csv").unlink()
    assert played(out, "--tasks", "probe/recall") == told
    assert "imported/dqn.csv" in (out / "results.csv").read_text()
    for name in ("table.md", "table.tex"):
        assert "dqn (not run here)" in (out / name).read_text()
        assert "dqn was not run here: its numbers" in (out / name).read_text()
    # What results.json alone has is put back.
    other = tmp_path / "other"
    other.mkdir()
    (other / "results.json").write_bytes((out / "results.json").read_bytes())
    assert played(other, "--tasks", "probe/recall") == told
    kept = other / "imported" / "dqn.csv"
    assert kept.read_bytes() == (out / "imported" / "dqn.csv").read_bytes()
    assert not list(other.rglob("dqn/seed-*"))

    kept.write_text(kept.read_text().replace("0.5", "half"))
    with pytest.raises(UserError, match=r"out=.*: imported/dqn.csv: row 2, column return: must be"):
        played(other)
    kept.unlink()
    spoilt = json.loads((other / "results.json").read_text())
    spoilt["runs"][1]["curve"] = [[10, None, None]]
    (other / "results.json").write_text(json.dumps(spoilt))
    with pytest.raises(UserError, match=r"out=.*: imported/dqn.csv: row 2, column return"):
        played(other)
