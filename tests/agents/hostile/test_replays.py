"""Replays of policies from strangers: no code runs, and one line says what is wrong."""

import json
import pickle
import sys

import pytest

from experiments import cli
from tests.agents.hostile.spoiling import Bomb, edit, error_of, fresh, write


def replay(folder, capsys):
    """What the command says, which must be all that it does."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["replay", str(folder), "--episodes", "1"])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("es-rl replay: error: ")
    assert sorted(folder.parent.rglob("*")) == before
    return printed.err


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, which the command searches for modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("name", ["gymnasium/bomb:Env-v0", "bomb:Env-v0", "bomb"])
def test_replay_imports_no_module_that_a_policy_names(folder, here, capsys, name):
    (here / "bomb.py").write_text(f"open({str(here / 'marker')!r}, 'w')")
    edit(folder, "env.id", name)
    assert name in replay(folder, capsys)
    assert "bomb" not in sys.modules


@pytest.mark.parametrize(
    ("name", "kwargs", "says"),
    [
        ("probe/recall", {"id": "ant"}, "unexpected keyword argument 'id'"),
        ("probe/recall", {"name": "x"}, "multiple values for argument 'name'"),
        ("probe/recall", {"max_episode_steps": "x"}, "must be an integer from 1"),
        ("probe/recall", {"max_episode_steps": 10**12}, "must be an integer from 1"),
        ("gymnasium/CartPole-v1", {"workers": "x"}, "must be at least 1"),
        ("gymnasium/CartPole-v1", {"step_timeout": "x"}, "must be a number of seconds"),
        ("gymnasium/CartPole-v1", {"disable_env_checker": False}, "must be left to es-rl"),
        ("gymnasium/CartPole-v1", {"entry_point": "os"}, "'entry_point'"),
    ],
)
def test_replay_of_arguments_that_the_environment_does_not_take(
    folder, here, capsys, name, kwargs, says
):
    edit(folder, "env.id", name)
    edit(folder, "env.kwargs", kwargs)
    assert says in replay(folder, capsys)


def test_replay_of_damaged_weights(folder, here, capsys):
    write(folder, "weights.safetensors", pickle.dumps(Bomb(here / "marker")))
    assert "weights.safetensors is damaged" in replay(folder, capsys)


@pytest.mark.parametrize("name", ["gymnasium/phys2d/Pendulum-v0", "gymnasium/CartPole-v1"])
def test_replay_in_another_environment_than_it_was_trained_in(folder, here, capsys, name):
    edit(folder, "env.id", name)
    assert "must be Box" in replay(folder, capsys)


def test_replay_imports_nothing_from_the_working_folder(folder, here, capsys):
    edit(folder, "agent", "<b>")
    replay(folder, capsys)
    assert str(here) not in sys.path


def test_replay_names_trust_and_no_damage(run, place, capsys):
    folder = fresh(run, place)
    path = folder / "policy" / "policy.json"
    description = json.loads(path.read_text())
    description["env"]["kwargs"] = {"xml_file": "/x.xml"}
    path.write_text(json.dumps(description))
    says = error_of(capsys, "replay", str(folder))
    assert "xml_file='/x.xml' must not be a path" in says
    assert "--trust" in says
    assert "damaged" not in says
