"""Where nothing can be drawn, environments run all the same, and messages say what is missing."""

import os

import pytest

import envs
from envs import rendering
from envs.errors import UserError


@pytest.mark.parametrize(("there", "chosen"), [(True, "egl"), (False, "disable")])
def test_mujoco_is_to_draw_with_egl_where_it_is_installed(monkeypatch, there, chosen):
    for name in ("DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(rendering, "_has_library", lambda name: there)
    rendering.go_headless()
    assert os.environ["MUJOCO_GL"] == chosen


def test_a_missing_library_is_looked_for_and_named(monkeypatch):
    assert not rendering._has_library("libNoSuchThing.so.1")
    env = envs.make("gymnasium/Hopper-v5", max_episode_steps=2)
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(UserError, match="on Debian or Ubuntu install libegl1") as error:
        env.film(lambda obs: [0, 0, 0], seed=0)
    assert "\n" not in str(error.value)
