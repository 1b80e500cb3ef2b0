"""Names of environments, and what is said of wrong ones."""

import pytest

import envs


def test_lists_every_suite():
    ids = envs.list_ids()
    for known in (
        "brax/ant",
        "gymnasium/CartPole-v1",
        "gymnasium/phys2d/CartPole-v1",
        "gymnasium/tabular/CliffWalking-v0",
        "probe/constant_reward",
    ):
        assert known in ids
    assert all(i.startswith("brax/") for i in envs.list_ids("brax"))
    with pytest.raises(ValueError, match="suite='atari': must be one of brax, gymnasium, probe"):
        envs.list_ids("atari")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("brax/antt", "did you mean brax/ant"),
        ("cartpole", "did you mean gymnasium/CartPole-v1"),
        ("gymnasium/CartPole", "did you mean gymnasium/CartPole-v1"),
        ("zzz/qqq", "`es-rl envs` lists them all"),
        ("", "unknown environment"),
    ],
)
def test_an_unknown_name_gets_close_matches(name, hint):
    with pytest.raises(ValueError, match=f"unknown environment.*{hint}|{hint}"):
        envs.make(name)


def test_own_environments_can_be_registered_once():
    envs.register("own/probe", lambda **kwargs: envs.make("probe/constant_reward", **kwargs))
    assert "own/probe" in envs.list_ids()
    assert envs.make("own/probe", max_episode_steps=3).spec.max_episode_steps == 3
    with pytest.raises(ValueError, match="registered already"):
        envs.register("own/probe", lambda: None)
