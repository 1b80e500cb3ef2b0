"""`es-rl tune`: a whole study of tiny trials, and what is refused."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envs.errors import UserError
from envs.installing import pip_install
from experiments import cli
from experiments.commands import tune
from experiments.flags.settings_files import read_settings

ENV = "gymnasium/phys2d/CartPole-v1"
SPACE = """
def space(trial, base):
    sigma = trial.suggest_float("sigma", 0.1, 1.0)
    return {"sigma": sigma, "learning_rate": sigma**2 * trial.suggest_float("rate", 0.5, 2.0)}
def of_rank(trial, base):
    return {"rank": trial.suggest_categorical("rank", [1, 2])}
"""
TINY = ("--env-steps", "3000", "--evaluations", "2", "--eval-episodes", "8", "--seeds", "2")


def rows(out):
    return list(csv.DictReader((out / "trials.csv").read_text().splitlines()))


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_and_its_best_is_trained(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_space.py").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    out = Path("study")
    fixed = ("--population-size", "16", "--reward-offset", "-0.5", "--no-normalize-observations")
    command = [ENV, "--space", "my_space:space", *TINY, *fixed, "--out", str(out), "--trials", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.cli", "tune", *command],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        line = process.stdout.readline()
        time.sleep(1)  # the next trial compiles for longer
        process.send_signal(signal.SIGKILL)
    assert line.startswith("trial 0: ")
    assert "sigma=0.8" in line, "the preset's"

    assert tune.main(command) == 0
    table = rows(out)
    assert [row["state"] for row in table] == ["complete", "failed", "complete", "complete"]
    assert table[1]["message"] == "the process was stopped"
    assert table[1]["sigma"] == table[2]["sigma"] != table[0]["sigma"]
    assert "best: trial " in capsys.readouterr().out
    best = read_settings(out / "best.toml", "eggroll")
    assert best["population_size"] == 16
    assert best["reward_offset"] == -0.5
    assert best["normalize_observations"] is False
    assert best["optimizer"] == "sgd", "from the preset"
    assert not Path("runs").exists(), "trials leave no runs"

    assert cli_code("tune", *command[:-1], "3", "--seeds", "1") == 2
    assert "--seeds 1: must be 2, as the study" in capsys.readouterr().err

    train = ("train", ENV, "--settings", str(out / "best.toml"), "--env-steps", "2000")
    assert cli_code(*train, "--rank", "2", "--out", "run") == 0
    settings = json.loads(Path("run", "config.json").read_text())["settings"]
    assert settings["rank"] == 2, "a flag wins over the file"
    for name, value in best.items():
        if name != "rank":
            assert settings[name] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.slow
def test_ctrl_c_ends_a_study_that_goes_on_later(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my_space.py").write_text(SPACE)
    command = [ENV, "--space", "my_space:space", *TINY, "--population-size", "16", "--trials", "1"]
    train = tune.train_seeds

    def interrupted(env, train_env, protocol, settings, report, ended):
        def stop(step, value):
            signal.raise_signal(signal.SIGINT)

        return train(env, train_env, protocol, settings, stop, ended)

    monkeypatch.setattr(tune, "train_seeds", interrupted)
    assert tune.main(command) == 130
    assert "the same command goes on from here" in capsys.readouterr().out
    monkeypatch.setattr(tune, "train_seeds", train)
    assert tune.main(command) == 0
    out = Path("runs", "tune", ENV, "eggroll")
    assert [row["state"] for row in rows(out)] == ["failed", "complete"]


def test_training_alone_has_its_own_arguments(tmp_path, monkeypatch):
    seen = []

    def train_seeds(env, train_env, protocol, settings, report, ended):
        seen.append((env.spec.kwargs, train_env.spec.kwargs, protocol))
        return 1.0

    monkeypatch.setattr(tune, "train_seeds", train_seeds)
    flags = ("--train-env-kwargs", "max_episode_steps=9", "--trials", "1")
    assert tune.main([ENV, *flags, "--out", str(tmp_path / "study")]) == 0
    ((own, other, protocol),) = seen
    assert own == protocol.env_kwargs == {}
    assert other == protocol.train_env_kwargs == {"max_episode_steps": 9}
    assert protocol.space == "evolution"


def test_jax_has_its_devices_before_a_space_is_imported(monkeypatch):
    # A module that asks for them would otherwise leave one in place of one per core.
    def load(name, agent):
        assert started == [3]
        raise UserError("enough")

    started = []
    monkeypatch.setattr(tune, "start_jax", started.append)
    monkeypatch.setattr(tune, "load", load)
    with pytest.raises(UserError, match="enough"):
        tune.main([ENV, "--devices", "3"])


def cli_code(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return ended.value.code


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--first-seed", "99"), "--first-seed 99: must be at least 100"),
        (("--space", "none"), "--space none: must be MODULE:FUNCTION"),
        (("--train-env-kwargs", "bonus"), "--train-env-kwargs bonus: must be name=value"),
        (("--train-env-kwargs", "no_such=1"), "--train-env-kwargs no_such=1: "),
        (("--trials", "0"), "--trials 0: must be at least 1"),
        (("--env-steps", "0"), "--env-steps 0: must be at least 1"),
        (("--agent", "random"), "--agent random: has no space to search"),
        (("--sigma", "-1"), "--sigma -1.0: must be greater than 0"),
        (("--space", "ranks:of_rank", "--rank", "2"), "nothing is left to search"),
        (("--out", "full"), "--out full: must be an empty or a new folder, or one of a study"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_written(flags, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("ranks.py").write_text(SPACE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("full").mkdir()
    Path("full", "mine.txt").write_text("precious")
    assert cli_code("tune", ENV, *flags) == 2
    assert says in capsys.readouterr().err
    assert sorted(path.name for path in Path().rglob("*")) == ["full", "mine.txt", "ranks.py"]


def test_a_missing_optuna_is_named(monkeypatch, capsys):
    monkeypatch.setattr(tune, "find_spec", lambda name: None)
    assert cli_code("tune", ENV) == 2
    assert f"Optuna must be installed to tune ({pip_install('tune')})" in capsys.readouterr().err


def test_a_second_command_in_the_same_folder_is_refused(tmp_path, capsys):
    with tune.locked(tmp_path / ".lock"):
        assert cli_code("tune", ENV, "--out", str(tmp_path)) == 2
    assert "another command tunes there" in capsys.readouterr().err


def test_other_commands_need_no_optuna():
    code = (
        "import sys, es_rl, experiments.commands.train, experiments.commands.tune; "
        "assert 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
