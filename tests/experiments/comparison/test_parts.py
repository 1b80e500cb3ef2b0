"""Comparisons that are made in parts: on several machines, by several commands, side by side."""

from dataclasses import replace

import pytest

from envs.errors import UserError
from es_rl.files import locked
from experiments import progress
from experiments.commands import compare
from experiments.comparison import findings, results, trials


def test_results_alone_are_enough_to_go_on(tmp_path, monkeypatch):
    suite = tmp_path / "small.toml"
    text = '[[tasks]]\nenv = "probe/recall"\nthreshold = 1\nenv_steps = 10\nseconds = {}\n'
    suite.write_text('agents = ["random"]\n' + text.format(1))
    first, second = tmp_path / "first", tmp_path / "second"
    assert compare.main([str(suite), "--seeds", "1", "--out", str(first)]) == 0
    begun = results.load(first / "results.json")
    (kept,), (task,) = begun.runs, begun.tasks
    changed = replace(begun, tasks=(replace(task, random_return=-3.5),))

    second.mkdir()
    results.save(changed, second / "results.json")
    monkeypatch.setattr(trials, "machine", lambda: {"processor": "an abacus"})
    command = [str(suite), "--seeds", "2", "--out", str(second)]
    assert compare.main(command) == 0
    found = results.load(second / "results.json")
    assert found.runs[0] == kept
    assert found.tasks[0].random_return == -3.5, "taken over, not measured again"
    assert [(run.seed, run.machine) for run in found.runs[1:]] == [(1, "an abacus")]
    assert "an abacus: 1 run" in findings.protocol(found)[-1]
    assert "an abacus" in (second / "report.html").read_text()

    suite.write_text('agents = ["random"]\n' + text.format(2))
    (second / "tasks.json").unlink()
    with pytest.raises(ValueError, match="out=.*holds other tasks or budgets"):
        compare.main(command)


def test_a_comparison_is_made_in_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.001)
    suite, out = tmp_path / "small.toml", tmp_path / "out"
    task = '[[tasks]]\nenv = "probe/{}"\nthreshold = 1\nenv_steps = 10\nseconds = 1\n'
    suite.write_text(
        'agents = ["random", "zero"]\n' + task.format("recall") + task.format("action_reward")
    )

    def played(*flags):
        assert compare.main([str(suite), "--out", str(out), *flags]) == 0
        found = results.load(out / "results.json")
        told = [(r.task.removeprefix("probe/"), r.agent, r.seed) for r in found.runs]
        return found.agents, [t.env.removeprefix("probe/") for t in found.tasks], told

    one = [("recall", "zero", 0)]
    part = played("--agents", "zero", "--tasks", "probe/recall", "--seeds", "1")
    assert part == (("zero",), ["recall"], one)
    kept = {path: path.read_bytes() for path in out.rglob("run.json")}

    two = [(task, "random", seed) for task in ("recall", "action_reward") for seed in (0, 1)]
    agents, tasks, runs = played("--agents", "random", "--seeds", "2")
    assert (agents, tasks) == (("random", "zero"), ["recall", "action_reward"])
    assert runs == two[:2] + one + two[2:]

    agents, tasks, runs = played("--seeds", "1")
    assert agents == ("random", "zero")
    assert runs == two[:2] + one + two[2:] + [("action_reward", "zero", 0)]
    assert all(path.read_bytes() == before for path, before in kept.items())

    shown = capsys.readouterr().err
    assert "probe/recall, random, seed 0: compiling" in shown
    assert "filming zero on probe/recall" in shown

    assert "random" in (out / "table.md").read_text()
    with pytest.raises(ValueError, match="tasks=probe/recal: must be of .*mean probe/recall"):
        compare.main([str(suite), "--out", str(out), "--tasks", "probe/recal"])


@pytest.mark.slow
def test_a_failed_run_stays_in_the_report_of_later_parts(tmp_path, monkeypatch):
    suite, out = tmp_path / "small.toml", tmp_path / "out"
    suite.write_text(
        'agents = ["random", "zero"]\n'
        '[[tasks]]\nenv = "probe/recall"\nthreshold = 1\nenv_steps = 10\nseconds = 1\n'
    )
    command = [str(suite), "--out", str(out), "--seeds", "1"]

    def failing(trials, seed):
        raise ValueError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(compare.Trials, "_train", failing)
        assert compare.main([*command, "--agents", "zero"]) == 0
    assert compare.main([*command, "--agents", "random"]) == 0
    told = [(r.agent, bool(r.error)) for r in results.load(out / "results.json").runs]
    assert told == [("random", False), ("zero", True)]
    assert compare.main(command) == 0, "it is tried again"
    assert not results.load(out / "results.json").failed()


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_parts_of_a_comparison_may_be_made_side_by_side(fails, tmp_path, monkeypatch):
    suite, out = tmp_path / "small.toml", tmp_path / "out"
    task = '[[tasks]]\nenv = "probe/{}"\nthreshold = 1\nenv_steps = 10\nseconds = 1\n'
    suite.write_text('agents = ["zero"]\n' + task.format("recall") + task.format("action_reward"))
    command = [str(suite), "--out", str(out), "--seeds", "1"]
    play, begun = compare._play, []

    def beside_another(trials, seeds):
        begun.append([each.task.name for each in trials])
        if len(begun) == 1:
            with monkeypatch.context() as patch:
                if fails:
                    patch.setattr(compare.Trials, "_train", failing)
                other = [*command, "--agents", "random", "--tasks", "probe/recall"]
                assert compare.main(other) == 0
        return play(trials, seeds)

    def failing(trials, seed):
        raise ValueError("broken")

    monkeypatch.setattr(compare, "_play", beside_another)
    assert compare.main([*command, "--tasks", "probe/action_reward"]) == 0
    assert begun == [["probe/action_reward"], ["probe/recall"]]
    found = results.load(out / "results.json")
    assert found.agents == ("zero", "random")
    told = [(r.task, r.agent) for r in found.runs]
    assert told == [("probe/recall", "random"), ("probe/action_reward", "zero")]
    assert [run.agent for run in found.failed()] == ["random"] * fails
    assert all(t.random_return is not None for t in found.tasks)


def test_two_commands_never_train_the_same_run(tmp_path):
    suite, out = tmp_path / "small.toml", tmp_path / "out"
    suite.write_text(
        'agents = ["zero"]\n'
        '[[tasks]]\nenv = "probe/recall"\nthreshold = 1\nenv_steps = 10\nseconds = 1\n'
    )
    command = [str(suite), "--out", str(out), "--seeds"]
    assert compare.main([*command, "1"]) == 0
    with (
        locked(out / "runs" / "probe" / "recall" / "zero" / ".seed-1.lock"),
        pytest.raises(UserError, match="another command trains zero on probe/recall from seed 1"),
    ):
        compare.main([*command, "2"])
    assert compare.main([*command, "2"]) == 0
