"""`es-rl envs` lists what runs, and says of the rest what it lacks."""

import re
import sys
from importlib.util import find_spec

import gymnasium
import pytest

import envs
from envs import available
from envs.errors import UserError
from envs.installing import pip_install
from experiments.commands import list_envs


def listed(capsys, *arguments):
    assert list_envs.main(list(arguments)) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line.partition(" ")[2].strip() for line in lines}


def test_tuned_ones_have_a_star_and_stubs_are_left_out(capsys):
    found = listed(capsys)
    assert found["gymnasium/phys2d/CartPole-v1"] == "*"
    assert found["brax/swimmer"] in ("", "*")
    assert found["gymnasium/LunarLander-v3"] in ("", "*")
    assert "gymnasium/HalfCheetah-v2" not in found
    assert "gymnasium/GymV21Environment-v0" not in found
    with pytest.raises(UserError):
        envs.make("gymnasium/HalfCheetah-v2")


def test_what_is_missing_is_named(capsys, monkeypatch):
    gone = ("Box2D", "no_such_module")
    monkeypatch.setattr(
        available, "find_spec", lambda name: None if name in gone else find_spec(name)
    )
    monkeypatch.setitem(
        gymnasium.registry,
        "Lost-v0",
        gymnasium.envs.registration.EnvSpec("Lost-v0", "no_such_module.envs:Lost"),
    )
    found = listed(capsys, "--suite", "gymnasium")
    assert found["gymnasium/LunarLander-v3"].endswith(f"(needs Box2D: {pip_install('box2d')})")
    assert found["gymnasium/Lost-v0"] == "(needs the module no_such_module, which is not found)"
    assert found["gymnasium/CartPole-v1"] == "*"


def test_what_cannot_be_played_says_so(capsys):
    found = listed(capsys)
    assert found["gymnasium/Pusher-v4"].startswith("(needs mujoco before 3")
    with pytest.raises(UserError, match="mujoco<3"):
        envs.make("gymnasium/Pusher-v4", workers=1)
    for name in ("CarRacing-v3", "Blackjack-v1"):
        assert found[f"gymnasium/{name}"] in ("", "*")


def test_environments_of_extras_are_listed(capsys):
    found = listed(capsys, "--suite", "gymnasium")
    assert found["gymnasium/ALE/Pong-v5"] == ""
    assert found["gymnasium/MiniGrid-Empty-5x5-v0"] == ""


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("ALE/Pong-v5", "ale_py", "atari"), ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid")],
)
def test_an_extra_that_is_missing_is_named(name, package, extra, monkeypatch):
    monkeypatch.setattr(
        available, "find_spec", lambda asked: None if asked == package else find_spec(asked)
    )
    others = {k: v for k, v in gymnasium.registry.items() if k != name}
    monkeypatch.setattr(gymnasium.envs.registration, "registry", others)
    monkeypatch.setattr(gymnasium, "registry", others)
    says = f"{name}.: needs {package}: {re.escape(pip_install(extra))}"
    with pytest.raises(UserError, match=says):
        envs.make(f"gymnasium/{name}")


def test_a_suite_whose_package_is_missing_is_listed_with_what_it_needs(capsys, monkeypatch):
    assert set(listed(capsys, "--suite", "gymnax").values()) == {"", "*"}
    without = {"gymnax": None}
    monkeypatch.setattr(available, "find_spec", lambda asked: without.get(asked, find_spec(asked)))
    monkeypatch.setitem(sys.modules, "gymnax", None)  # as if it were not installed
    lacks = f"(needs gymnax: {pip_install('gymnax')})"
    assert all(x.endswith(lacks) for x in listed(capsys, "--suite", "gymnax").values())
    with pytest.raises(UserError, match=re.escape(pip_install("gymnax"))):
        envs.make("gymnax/CartPole-v1")
