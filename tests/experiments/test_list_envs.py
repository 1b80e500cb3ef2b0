"""`es-rl envs` lists what runs, and says of the rest what it lacks."""

from importlib.util import find_spec

import gymnasium
import pytest

import agents
import envs
from envs.errors import UserError
from envs.suites import available
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
    gone = ("Box2D", "mujoco", "no_such_module")
    monkeypatch.setattr(
        available, "find_spec", lambda name: None if name in gone else find_spec(name)
    )
    monkeypatch.setitem(
        gymnasium.registry,
        "Lost-v0",
        gymnasium.envs.registration.EnvSpec("Lost-v0", "no_such_module.envs:Lost"),
    )
    found = listed(capsys, "--suite", "gymnasium")
    assert found["gymnasium/LunarLander-v3"].endswith('(needs Box2D: pip install "es-rl[box2d]")')
    assert found["gymnasium/Ant-v5"].endswith('(needs mujoco: pip install "es-rl[mujoco]")')
    assert found["gymnasium/Lost-v0"] == "(needs the module no_such_module, which is not found)"
    assert found["gymnasium/CartPole-v1"] == "*"


@pytest.mark.parametrize("name", ["CarRacing-v3", "Blackjack-v1", "Pusher-v4"])
def test_what_cannot_be_played_yet_says_so(name, capsys):
    assert listed(capsys)[f"gymnasium/{name}"].startswith("(")

    def make():
        agents.make("eggroll", envs.make(f"gymnasium/{name}", workers=1))

    with pytest.raises(UserError, match="images|Tuple is not supported|mujoco<3"):
        make()
