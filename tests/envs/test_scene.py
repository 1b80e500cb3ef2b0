"""Solids in motion: where MuJoCo puts them, whichever suite and backend moves them."""

import jax
import mujoco
import numpy as np
import pytest

import envs
from envs.errors import UserError
from envs.pictures.scene import scene_of

pytestmark = pytest.mark.slow

SHARP = 1e-3
"""So few frames per second that the way of the camera is not smoothed."""
ALL_SHAPES = """
<mujoco>
  <asset>
    <material name="red" rgba="1 0 0 1"/>
    <mesh name="wedge" vertex="0 0 0  4 0 0  0 2 0  0 0 1"/>
  </asset>
  <worldbody>
    <geom name="floor" type="plane" size="0 5 .1"/>
    <geom name="hidden" type="sphere" size="1" group="3"/>
    <geom name="glass" type="sphere" size="1" rgba="1 1 1 0"/>
    <body name="fixed" pos="1 2 3"><geom name="wall" type="box" size=".1 .2 .3"/></body>
    <body name="free" pos="0 0 1">
      <freejoint/>
      <geom name="ball" type="sphere" size=".1" pos="0 0 .5" material="red"/>
      <geom name="egg" type="ellipsoid" size=".1 .2 .3" rgba="0 1 0 .5"/>
      <geom name="can" type="cylinder" size=".1 .4"/>
      <geom name="pill" type="capsule" fromto="0 0 0 1 0 0" size=".1"/>
      <geom name="wedge" type="mesh" mesh="wedge"/>
    </body>
  </worldbody>
</mujoco>
"""
SHOWN = ["floor", "wall", "ball", "egg", "can", "pill", "wedge"]
ARM = """
<mujoco><worldbody>
  <geom type="box" size="1 1 .1" pos="0 0 -1"/>
  <body><joint type="hinge" axis="0 1 0"/><geom type="sphere" size=".1" pos="0 0 1"/></body>
</worldbody></mujoco>
"""
NOTHING = '<mujoco><worldbody><geom type="sphere" size="1" group="4"/></worldbody></mujoco>'


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(ALL_SHAPES)


def tumbling(model, frames=4):
    rng = np.random.default_rng(0)
    qpos = rng.normal(size=(frames, model.nq))
    for row in qpos:
        mujoco.mj_normalizeQuat(model, row)
    return qpos


def forward(model, qpos):
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    return data


def rotation(quaternion):
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion.astype(float))
    return matrix.reshape(3, 3)


def test_shapes_sizes_and_colours_are_the_models(model):
    scene = scene_of(model, tumbling(model), SHARP)
    described = dict(zip(SHOWN, scene.geoms, strict=True))
    assert [geom.shape for geom in scene.geoms] == [
        *("plane", "box", "sphere", "ellipsoid", "cylinder", "capsule", "box")
    ]
    assert [geom.fixed for geom in scene.geoms] == [True, True, *[False] * 5]
    assert described["floor"].size == (0, 5, 0)
    assert described["ball"].size == (0.1, 0, 0)
    assert described["ball"].rgba == (1, 0, 0, 1), "the material's"
    np.testing.assert_allclose(described["egg"].rgba, (0, 1, 0, 0.5))
    assert described["egg"].size == (0.1, 0.2, 0.3)
    assert described["can"].size == (0.1, 0.4, 0)
    assert described["pill"].size == (0.1, 0.5, 0)


def test_poses_are_mujocos(model):
    qpos = tumbling(model)
    scene = scene_of(model, qpos, SHARP)
    assert scene.positions.dtype == scene.quaternions.dtype == scene.focus.dtype == np.float32
    for frame, position in enumerate(qpos):
        data = forward(model, position)
        for i, name in enumerate(SHOWN[:-1]):
            np.testing.assert_allclose(scene.positions[frame, i], data.geom(name).xpos, atol=1e-6)
            turned = rotation(scene.quaternions[frame, i])
            np.testing.assert_allclose(turned, data.geom(name).xmat.reshape(3, 3), atol=1e-6)


def test_a_mesh_is_its_bounding_box(model):
    (position,) = tumbling(model, 1)
    scene, data = scene_of(model, [position], SHARP), forward(model, position)
    vertices = model.mesh_vert @ data.geom("wedge").xmat.reshape(3, 3).T + data.geom("wedge").xpos
    own = (vertices - scene.positions[0, -1]) @ rotation(scene.quaternions[0, -1])
    np.testing.assert_allclose(own.max(0), scene.geoms[-1].size, atol=1e-5)
    np.testing.assert_allclose(own.min(0), -np.array(scene.geoms[-1].size), atol=1e-5)


def test_the_camera_follows_what_floats_at_one_height(model):
    qpos = tumbling(model)
    scene = scene_of(model, qpos, SHARP)
    np.testing.assert_allclose(scene.focus[:, :2], qpos[:, :2], rtol=1e-6)
    heights = scene.positions[:, 2:, 2]
    middle = (heights.min() + heights.max()) / 2
    np.testing.assert_allclose(scene.focus[:, 2], middle, rtol=1e-5)
    assert scene.follows
    moving = scene.positions[:, 2:] - scene.focus[:, None]
    assert scene.reach >= np.linalg.norm(moving, axis=-1).max()


def test_the_camera_stands_still_before_what_is_mounted():
    arm = mujoco.MjModel.from_xml_string(ARM)
    scene = scene_of(arm, [np.array([angle]) for angle in (0.0, np.pi)], SHARP)
    np.testing.assert_allclose(scene.focus, [[0, 0, 0]] * 2, atol=1e-6)
    assert 1.1 <= scene.reach < 2.5
    assert not scene.follows


def test_what_has_no_ground_gets_one_below_all_that_is_seen(model):
    arm = mujoco.MjModel.from_xml_string(ARM)
    scene = scene_of(arm, [np.array([angle]) for angle in (0.0, np.pi)], SHARP)
    assert [geom.shape for geom in scene.geoms] == ["box", "sphere", "plane"]
    assert scene.geoms[-1].fixed
    lowest = -1.1  # the sphere's lower end when it hangs, and that of the box
    assert lowest - 0.5 < scene.positions[0, -1, 2] < lowest
    assert len(scene_of(model, tumbling(model), SHARP).geoms) == len(SHOWN), "it has one"


def moving_along(x, rate=30.0):
    """The scene of a ball that is at these places at a height of 1, and then 2, and so on."""
    ball = """<mujoco><worldbody><geom type="plane" size="0 0 1"/>
      <body><freejoint/><geom size=".1"/></body></worldbody></mujoco>"""
    height = 1 + np.arange(len(x)) % 2
    qpos = np.stack([x, 0 * x, height, 1 + 0 * x, *[0 * x] * 3], axis=-1)
    return scene_of(mujoco.MjModel.from_xml_string(ball), qpos, rate)


def test_the_camera_keeps_up_with_a_steady_body_from_the_first_frame_to_the_last():
    x = 10 * np.arange(40) / 30
    np.testing.assert_allclose(moving_along(x).focus[:, 0], x, atol=1e-5)
    for frames in (1, 2, 3):
        np.testing.assert_allclose(moving_along(x[:frames]).focus[:, 0], x[:frames], atol=1e-5)


@pytest.mark.parametrize("rate", [30.0, 120.0])
def test_the_camera_does_not_jerk_with_the_body(rate):
    time = np.arange(0, 3, 1 / rate)
    hops = 0.2 * np.sin(2 * np.pi * 3 * time)  # three times a second
    focus = moving_along(2 * time + hops, rate).focus[:, 0]
    away = (focus - 2 * time)[int(rate) // 2 : -int(rate) // 2]
    assert np.abs(away).max() < 0.02


def test_some_of_the_frames(model):
    scene = scene_of(model, tumbling(model), SHARP)
    some = scene.at(np.array([0, 3]))
    np.testing.assert_array_equal(some.positions, scene.positions[[0, 3]])
    np.testing.assert_array_equal(some.quaternions, scene.quaternions[[0, 3]])
    np.testing.assert_array_equal(some.focus, scene.focus[[0, 3]])
    assert some.geoms == scene.geoms


def test_what_cannot_be_drawn_is_one_line(model):
    qpos = tumbling(model)
    qpos[2, 0] = np.nan
    with pytest.raises(UserError, match="joint positions are not finite in step 2") as error:
        scene_of(model, qpos, SHARP)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="nothing of the model can be seen"):
        scene_of(mujoco.MjModel.from_xml_string(NOTHING), [np.zeros(0)], SHARP)


# How far the joints give way that the physics itself has.
@pytest.mark.parametrize(
    ("backend", "gives"), [("generalized", 1e-5), ("spring", 0.05), ("positional", 0.02)]
)
def test_brax_solids_are_where_the_physics_has_them(backend, gives):
    env = envs.make("brax/inverted_double_pendulum", backend=backend)
    state = jax.jit(env.reset)(jax.random.key(0))
    step, states = jax.jit(env.step), [state]
    for i in range(4):
        states.append(step(states[-1], np.float32([1 - 2 * (i % 2)]), jax.random.key(i)))
    scene = env.scene(states)
    assert [geom.shape for geom in scene.geoms] == ["plane", *["capsule"] * 4]
    for frame, state in enumerate(states):
        joints = state.inner.pipeline_state
        drawn = forward(env._inner.sys.mj_model, joints.q)  # as brax.io.image does it
        np.testing.assert_allclose(scene.positions[frame], drawn.geom_xpos, atol=1e-5)
        np.testing.assert_allclose(drawn.xpos[1:], joints.x.pos, atol=gives)
    assert np.ptp(scene.positions[:, 2, 0]) > 1e-3, "the cart moves"


def test_a_gymnasium_episode():
    env = envs.make("gymnasium/Hopper-v5", max_episode_steps=20)
    rewards, scene = env.scene(lambda obs: np.ones(3, np.float32), seed=3)
    assert scene.positions.shape == (len(rewards) + 1, 5, 3)
    single = env.single()
    single.reset(seed=3)
    for reward, positions in zip(rewards, scene.positions[1:], strict=True):
        assert single.step(np.ones(3, np.float32))[1] == reward
        drawn = forward(single.unwrapped.model, single.unwrapped.data.qpos)
        np.testing.assert_allclose(positions, drawn.geom_xpos, atol=1e-6)
    single.close()


@pytest.mark.parametrize(
    "name", ["brax/fast", "gymnasium/phys2d/CartPole-v1", "probe/recall", "gymnasium/CartPole-v1"]
)
def test_an_environment_without_a_model_says_what_has_one(name):
    env = envs.make(name)
    on_host = isinstance(env, envs.HostEnv)
    arguments = (lambda obs: 0, 0) if on_host else ([env.reset(jax.random.key(0))],)
    with pytest.raises(UserError, match=f"^{name} has no 3D page: .*as brax/ant") as error:
        env.scene(*arguments)
    assert "--video" in str(error.value)
    assert "\n" not in str(error.value)
