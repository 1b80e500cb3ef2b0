"""Films of MuJoCo models: the body is in the picture, is seen well, and the camera is calm."""

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs.pictures import camera, looks, studio
from envs.pictures.headless import _has_library
from envs.pictures.scene import outline, scene_of

pytestmark = pytest.mark.skipif(
    not _has_library("libEGL.so.1"), reason="MuJoCo has nothing to draw with"
)
MODELS = ("Hopper-v5", "InvertedPendulum-v5")
DARK = """
<mujoco>
  <worldbody>
    <geom type="plane" size="0 0 1" rgba="0 0 0 1"/>
    <light pos="0 0 3"/>
    <body pos="0 0 1">
      <camera name="track" mode="trackcom" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/>
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/>
      <geom type="capsule" size=".1 .3" rgba=".4 .33 .26 1"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def models():
    made = {name: gymnasium.make(name).unwrapped for name in MODELS}
    yield {name: env.model for name, env in made.items()}
    for env in made.values():
        env.close()


@pytest.fixture(scope="module")
def dark():
    return mujoco.MjModel.from_xml_string(DARK)


def hopping(frames=60):
    """Joint positions of a body that hops along x: (60, 2), 6 metres in two seconds."""
    time = np.arange(frames) / 30
    return np.stack([3 * time + 0.1 * np.sin(9 * time), 0.5 * np.abs(np.sin(6 * time))], axis=-1)


def projected(scene, points, focus):
    """Where points (..., 3) are in the picture: (..., 2) from -1 to 1, to the right and upwards."""
    right, up, ahead = np.moveaxis(
        (points - focus) @ camera.axes(*camera.direction(scene)).T, -1, 0
    )
    aspect = studio.WIDTH / studio.HEIGHT
    depth = (camera.distance(scene, aspect) + ahead) * np.tan(camera.FIELD_OF_VIEW / 2)
    return np.stack([right / depth / aspect, up / depth], axis=-1)


def test_a_travelling_body_stays_in_the_middle_of_the_picture(dark):
    scene = scene_of(dark, hopping(), 30.0)
    assert np.ptp(scene.positions[:, 1, 0]) > 5
    body = projected(scene, scene.positions[:, 1], scene.focus)
    assert np.abs(body[:, 0]).max() < 0.1
    assert np.abs(body[:, 1]).max() < 0.5
    assert np.ptp(body[:, 1]) > 0.2, "its hops are seen"
    whole = projected(scene, outline(scene), scene.focus[:, None])
    assert 0.6 < np.abs(whole).max() < 1, "all of it is seen, and it fills the picture"


def test_the_projection_is_the_pictures(dark):
    poses = [{"qpos": qpos} for qpos in hopping(7)[::3]]
    scene = scene_of(dark, [pose["qpos"] for pose in poses], 30.0)
    frames = studio.draw(dark, poses)
    middles = projected(scene, scene.positions[:, 1], scene.focus)
    for frame, (right, up) in zip(frames, middles, strict=True):
        rows, columns = np.nonzero(np.ptp(frame.astype(int), axis=-1) > 60)  # orange
        assert abs(columns.mean() / studio.WIDTH * 2 - 1 - right) < 0.05
        assert abs(1 - rows.mean() / studio.HEIGHT * 2 - up) < 0.05


def body_of(model, qpos):
    """(height, width) bool, the pixels of what moves in the picture of a pose."""
    scene = scene_of(model, [qpos], 30.0)
    view = studio.camera_of(scene)
    view.lookat[:] = scene.focus[0]
    data, painted = mujoco.MjData(model), studio._painted(model, scene, view.distance)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(painted, studio.HEIGHT, studio.WIDTH) as renderer:
        renderer.enable_segmentation_rendering()
        renderer.update_scene(data, view)
        numbers, kinds = np.moveaxis(renderer.render(), -1, 0)
    geoms = np.flatnonzero(model.body_weldid[model.geom_bodyid] != 0)
    return (kinds == int(mujoco.mjtObj.mjOBJ_GEOM)) & np.isin(numbers, geoms)


@pytest.mark.parametrize("name", MODELS)
def test_the_body_stands_out_from_what_is_behind_it(models, name):
    model = models[name]
    (frame,) = studio.draw(model, [{"qpos": model.qpos0}])
    body = body_of(model, model.qpos0)
    assert 0.01 < body.mean() < 0.5
    around = frame[~body].astype(float)
    apart = np.linalg.norm(frame[body].astype(float).mean(0) - around.mean(0))
    assert apart > 90
    assert around.mean() > 170, "bright, and no chequerboard of black and white:"
    assert around.mean(-1).std() < 30
    assert np.ptp(frame[body].astype(float).mean(-1)) > 20, "light and shade on the body"
    np.testing.assert_allclose(frame[0, 0], np.array(looks.SKY) * 255, atol=2)


def test_equal_states_give_equal_pixels_and_the_model_is_left_alone(models):
    model = models["Hopper-v5"]
    before = model.tex_data.copy(), model.geom_rgba.copy(), float(model.stat.extent)
    first, again = (studio.draw(model, [{"qpos": model.qpos0}])[0] for _ in range(2))
    assert first.shape == (480, 640, 3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(model.tex_data, before[0])
    np.testing.assert_array_equal(model.geom_rgba, before[1])
    assert float(model.stat.extent) == before[2]


def test_diverged_physics_stands_still(dark):
    def draw(*places):
        return studio.draw(dark, [{"qpos": np.array([x, 0.0])} for x in places])

    np.testing.assert_array_equal(draw(np.nan, 1.0, np.inf), draw(0.0, 1.0, 1.0))


def test_a_camera_of_the_models_own_does_not_hop(dark):
    poses = [{"qpos": np.array([x, z])} for x, z in ((0, 0), (2, 0.4), (4, 0.8))]
    # The horizon, above which all is black in this model, and the body in front of it.
    frames = studio.draw_with_own_camera(dark, poses)
    rows = [np.nonzero(frame.max(-1) > 40)[0].mean() for frame in frames]
    columns = [np.nonzero(frame.max(-1) > 40)[1].mean() for frame in frames]
    assert rows[0] - rows[1] > 40
    assert rows[1] - rows[2] > 40
    np.testing.assert_allclose(columns, studio.WIDTH / 2, atol=5)


@pytest.mark.parametrize(
    ("given", "shape"), [({}, (480, 640, 3)), ({"width": 120, "height": 100}, (100, 120, 3))]
)
def test_gymnasiums_tasks_are_drawn_by_us_unless_their_pictures_are_chosen(given, shape):
    env = envs.make("gymnasium/InvertedPendulum-v5", max_episode_steps=2, **given)
    frames = env.film(lambda obs: np.zeros(1, np.float32), 0)[1]
    assert [frame.shape for frame in frames] == [shape] * 3


def test_only_the_frames_of_a_film_are_drawn(monkeypatch):
    envs.import_module("tests.envs.odd_envs")
    drawn = []
    own = envs.pictures.rendering.host_frame
    monkeypatch.setattr(
        envs.pictures.rendering, "host_frame", lambda env: drawn.append(1) or own(env)
    )
    env = envs.make("gymnasium/FloatFrames-v0", max_episode_steps=7)
    assert len(env.film(lambda obs: 0, 0, every=3, most=2)[1]) == len(drawn) == 2
    drawn.clear()
    assert len(env.film(lambda obs: 0, 0, every=3)[1]) == len(drawn) == 3


@pytest.mark.parametrize("rgb", [(0.4, 0.33, 0.26), (0.0, 0.3, 0.3), (1.0, 1.0, 0.0)])
def test_what_moves_is_bright_and_what_does_not_is_dull(rgb):
    moving, fixed = (looks.painted((*rgb, 0.5), fixed) for fixed in (False, True))
    assert max(moving[:3]) == pytest.approx(0.85)
    assert min(moving[:3]) < 0.35 * max(moving[:3]) + 1e-6
    assert np.ptp(fixed[:3]) < 0.15
    assert np.argmax(moving[:3]) == np.argmax(rgb)
    assert moving[3] == fixed[3] == 0.5
