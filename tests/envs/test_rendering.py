"""Where nothing can be drawn, environments run all the same, and messages say what is missing."""

import os
import subprocess
import sys

import numpy as np
import pytest

import envs
from envs.errors import NoPicture, UserError
from envs.pictures import headless, rendering


@pytest.mark.parametrize(("there", "chosen"), [(True, "egl"), (False, "disable")])
def test_mujoco_is_to_draw_with_egl_where_it_is_installed(monkeypatch, there, chosen):
    for name in ("DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(headless, "_has_library", lambda name: there)
    headless.go_headless()
    assert os.environ["MUJOCO_GL"] == chosen


def test_a_missing_library_is_looked_for_and_named(monkeypatch):
    assert not headless._has_library("libNoSuchThing.so.1")
    env = envs.make("gymnasium/Hopper-v5", max_episode_steps=2)
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(UserError, match="on Debian or Ubuntu install libegl1") as error:
        env.film(lambda obs: [0, 0, 0], seed=0)
    assert "\n" not in str(error.value)


envs.import_module("tests.envs.odd_envs")


def film(name):
    return envs.make(f"gymnasium/{name}-v0", max_episode_steps=2).film(lambda obs: 0, seed=0)[1]


@pytest.mark.parametrize(
    ("name", "shape", "value"),
    [
        ("FloatFrames", (41, 61, 3), 204),
        ("GrayFrames", (41, 61, 3), 200),
        ("RGBA", (41, 61, 3), 200),
        ("FpsNone", (40, 60, 3), 200),
    ],
)
def test_pictures_of_floats_and_of_other_channels_are_shown(name, shape, value):
    for frame in film(name):
        assert (frame.dtype, frame.shape) == (np.uint8, shape)
        assert (frame == value).all()


@pytest.mark.parametrize(
    ("frame", "pixel"),
    [
        (np.full((2, 2, 1), 7, np.int64), (7, 7, 7)),
        (np.full((2, 2), 254.6, np.float64), (255, 255, 255)),
        (np.full((2, 2), 1.0 + 1e-6, np.float32), (255, 255, 255)),
        (np.full((2, 2), True), (255, 255, 255)),
        (np.full((2, 2), 300), (255, 255, 255)),
        (np.full((2, 2), -1), (0, 0, 0)),
        (np.full((2, 2), 1), (1, 1, 1)),
        (np.full((2, 2), np.nan), (0, 0, 0)),
        ([[[1, 2, 3]]], (1, 2, 3)),
    ],
)
def test_numbers_become_pixels(frame, pixel):
    assert tuple(rendering.rgb("x", frame)[0, 0]) == pixel


@pytest.mark.parametrize("frame", [None, "text", [], [[1], [1, 2]], np.zeros((2, 2, 2)), [None]])
def test_what_is_no_picture_is_named(frame):
    with pytest.raises(NoPicture, match="x has no picture: its render returned .*, must be"):
        rendering.rgb("x", frame)


@pytest.mark.parametrize(
    ("name", "says"),
    [("NoRenderArg", "render_mode"), ("RenderRaises", r"RenderRaises has no picture \(NotImpl")],
)
def test_no_picture_is_one_line_that_says_why(name, says):
    with pytest.raises(NoPicture, match=says) as error:
        film(name)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not headless._has_library("libEGL.so.1"), reason="nothing to draw with")
@pytest.mark.parametrize("first", ["import mujoco, envs", "import envs, mujoco"])
def test_drawing_works_whatever_is_imported_first(first):
    kept = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    code = f"""{first}
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
with mujoco.Renderer(model, 24, 32) as renderer:
    renderer.update_scene(mujoco.MjData(model))
    print(renderer.render().shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept)
    assert "(24, 32, 3)" in done.stdout, done.stderr


def test_the_users_choice_is_kept():
    code = "import envs, os; print(os.environ['MUJOCO_GL'])"
    chosen = {**os.environ, "MUJOCO_GL": "osmesa"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=chosen)
    assert done.stdout.strip() == "osmesa"
