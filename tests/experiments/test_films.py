"""A film that cannot be made ends nothing: no training run, and no report."""

import imageio.v3 as imageio
import numpy as np
import pytest

import agents
import envs
from experiments import cli, train_and_report, videos
from experiments.commands import compare, train
from experiments.comparison import films
from experiments.comparison.results import Results, Run, Task

envs.import_module("tests.envs.odd_envs")


def test_a_film_that_fails_does_not_end_training(tmp_path, monkeypatch, caplog):
    def fails(*arguments, **options):
        calls.append(arguments)
        raise OSError("No space left on device")

    calls = []
    monkeypatch.setattr(train_and_report, "write_video", fails)
    monkeypatch.setattr(train_and_report, "film", lambda policy, env: None)
    command = ["probe/policy_reward", "--population-size", "4", "--hidden", "--env-steps", "200"]
    command += ["--video-every", "2", "--eval-every", "100", "--eval-episodes", "2"]
    assert train.main([*command, "--out", str(tmp_path / "run")]) == 0
    assert len(calls) > 1
    (record,) = [r for r in caplog.records if r.name == "es_rl"]
    assert "OSError: No space left on device; training goes on" in record.getMessage()


def test_what_has_no_picture_is_not_filmed_again(tmp_path, caplog):
    agent = agents.make("random", envs.make("probe/policy_reward"))
    recorder = train_and_report._Films(agent, tmp_path, every=1)
    taken = []

    def snapshot():
        taken.append(agent.snapshot(agent.init(None)))
        return taken[-1]

    for generation in range(3):
        recorder.after(generation, snapshot)
    assert len(taken) == 1
    (record,) = caplog.records
    assert "probe/policy_reward has no picture; training goes on" in record.getMessage()


@pytest.mark.parametrize("name", ["RenderRaises", "NoRenderArg"])
def test_compare_writes_its_report_without_pictures(name, tmp_path, capsys):
    suite = tmp_path / "small.toml"
    suite.write_text(
        f"""agents = ["random"]
[[tasks]]
env = "gymnasium/{name}-v0"
threshold = 8
env_steps = 1
seconds = 20
"""
    )
    out = tmp_path / "out"
    assert compare.main([str(suite), "--seeds", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"no film of random on gymnasium/{name}-v0: " in said
    assert (out / "report.html").exists()
    assert not list(out.rglob("*.mp4"))


def filmed(tmp_path, episode):
    """The films of a comparison of one run, whose episode `episode()` films."""
    (tmp_path / "policy").mkdir(exist_ok=True)
    task = Task("probe/policy_reward", 8.0, 1, 1.0)
    run = Run(task.name, "random", 0, None, (8.0,), policy="policy")
    found = Results("x", "x", ("random",), (task,), (run,), {}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(films, "film", lambda *arguments, **options: episode())
        patch.setattr(films, "_policy", lambda *arguments: None)
        return dict(films.replays(found, tmp_path))


def episode(frames=3):
    pictures = [np.full((16, 16, 3), 80 * i % 256, np.uint8) for i in range(frames)]
    return videos.Film(pictures, 30.0, 7.5)


def test_any_failure_of_a_film_is_a_line(tmp_path, capsys):
    assert filmed(tmp_path, lambda: 1 / 0) == {}
    assert "no film of random on probe/policy_reward: ZeroDivisionError" in capsys.readouterr().out


def test_a_film_is_made_once_with_its_poster_and_its_return(tmp_path):
    (made,) = filmed(tmp_path, episode).values()
    assert made.played == films.Played(7.5, True)
    poster = imageio.imread(made.poster)
    assert poster.shape == (16, 16, 3)
    assert abs(poster.mean() - 80) < 5  # that of the middle
    assert filmed(tmp_path, lambda: 1 / 0) == {("probe/policy_reward", "random"): made}
    for name, text in (
        ("replay.json", None),
        ("replay.jpg", None),
        ("replay.mp4", None),
        ("replay.json", '{"episode_return": "7.5", "whole": true}'),
        ("replay.json", '{"episode_return": 7.5, "whole": 1}'),
        ("replay.json", "[" * 100_000),
    ):
        (tmp_path / name).unlink()
        if text is not None:
            (tmp_path / name).write_text(text)
        assert filmed(tmp_path, lambda: 1 / 0) == {}
        assert [*filmed(tmp_path, episode).values()] == [made]


def test_a_film_that_is_cut_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(films, "_MOST_FRAMES", 3)
    (made,) = filmed(tmp_path, episode).values()
    assert not made.played.whole


def test_no_half_of_a_film_is_left(tmp_path):
    path = tmp_path / "film.mp4"
    broken = videos.Film([None], 30.0, 0.0)
    with pytest.raises(Exception):  # noqa: B017, PT011
        videos.write_video(path, broken)
    assert list(tmp_path.iterdir()) == []


def test_replay_says_in_a_line_why_there_is_no_picture(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["replay", "gymnasium/RenderRaises-v0", "--agent", "zero", "--episodes", "1"]
            + ["--video", "never.mp4"]
        )
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "RenderRaises has no picture (NotImplementedError" in said
