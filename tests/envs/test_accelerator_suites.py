"""Environments of Jumanji, NAVIX, Craftax, Pgx and MuJoCo Playground play as in their suites."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from matplotlib import pyplot

import envs
from envs.available import obstacle
from envs.errors import NoPicture, UserError
from envs.installing import pip_install
from envs.suites import jumanji_suite, navix_suite, pgx_suite, playground_suite
from tests.envs.suite_references import plain_episode, shapes_checked

SLOW = pytest.mark.slow
BY_HAND = pytest.mark.skipif(find_spec("kinetix") is None, reason="kinetix is installed by hand")
PLAYED = (
    "jumanji/Snake-v1",
    "jumanji/Game2048-v1",
    "jumanji/Knapsack-v1",
    pytest.param("jumanji/Tetris-v0", marks=SLOW),
    "navix/Navix-Dynamic-Obstacles-6x6-v0",
    pytest.param("navix/Navix-DoorKey-8x8-v0", marks=SLOW),
    pytest.param("navix/Navix-FourRooms-v0", marks=SLOW),
    "pgx/2048",
    pytest.param("pgx/minatar-breakout", marks=SLOW),
    pytest.param("craftax/Craftax-Classic-Symbolic", marks=SLOW),
    pytest.param("playground/CartpoleBalance", marks=SLOW),
    pytest.param("kinetix/s/h1_thrust_over_ball", marks=[SLOW, BY_HAND]),
)
STEPS = 24


@pytest.mark.parametrize("id", PLAYED)
def test_an_episode_is_that_of_the_suite(id):
    env = envs.make(id, max_episode_steps=STEPS)
    env.spec.action_space.seed(3)
    actions = [env.spec.action_space.sample() for _ in range(STEPS)]
    key = jax.random.key(7)
    expected, ended, last = plain_episode(id, key, actions)
    state, step = jax.jit(env.reset)(key), jax.jit(env.step)
    rewards, over = [], []
    for number, action in enumerate(actions[: len(expected)]):
        assert state.obs.shape == env.spec.observation_space.shape
        assert not state.truncated
        state = step(state, jnp.asarray(action), jax.random.fold_in(key, number))
        rewards.append(float(state.reward))
        over.append(bool(state.terminated))
    np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-6)
    assert over == ended
    assert state.truncated == (not ended[-1])
    assert state.steps == len(expected)
    # Rewards of a few random steps are often 0, but the states that they lead to are not.
    pairs = list(zip(jax.tree.leaves(state.inner), jax.tree.leaves(last), strict=True))
    alike = [(ours, theirs) for ours, theirs in pairs if np.shape(ours) == np.shape(theirs)]
    assert len(alike) >= len(pairs) - 1  # NAVIX's pictures of the cells are left out of ours
    for ours, theirs in alike:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", jumanji_suite.names())
def test_every_environment_of_jumanji_has_spaces_and_steps(name):
    spec = shapes_checked(f"jumanji/{name}")
    assert isinstance(spec.raw_observation_space, spaces.Dict)


@pytest.mark.slow
@pytest.mark.parametrize("name", navix_suite.names())
def test_every_environment_of_navix_has_spaces_and_steps(name):
    assert shapes_checked(f"navix/{name}").max_episode_steps == 100


@pytest.mark.slow
@pytest.mark.parametrize("name", pgx_suite.names())
def test_every_game_of_pgx_has_spaces_and_steps(name):
    shapes_checked(f"pgx/{name}")


def test_every_name_is_that_of_its_suite():
    import jumanji
    import navix
    from mujoco_playground import registry

    left_out = {"Sokoban-v0", "MultiCVRP-v0"}
    assert set(jumanji_suite.names()) == set(jumanji.registered_environments()) - left_out
    assert set(navix_suite.names()) == set(navix.registry())
    left_out = {"AlohaSinglePegInsertion", "PandaRobotiqPushCube"}
    assert set(playground_suite.names()) == set(registry.ALL_ENVS) - left_out


def test_an_observation_is_flat_as_gymnasium_makes_it():
    env = envs.make("jumanji/Maze-v0")  # has parts within parts
    key = jax.random.key(3)
    _, timestep = env._env.reset(jax.random.key_data(key))
    parts = timestep.observation._asdict()
    for name in ("agent_position", "target_position"):
        parts[name] = parts[name]._asdict()
    expected = spaces.flatten(env.spec.raw_observation_space, jax.device_get(parts))
    np.testing.assert_array_equal(env.reset(key).obs, expected)


def test_a_mask_of_joint_actions_makes_one_space():
    spec = shapes_checked("jumanji/Tetris-v0")
    assert spec.action_space == spaces.Discrete(40)
    assert spec.max_episode_steps == 400
    assert spec.raw_observation_space["action_mask"] == spaces.MultiBinary((4, 10))
    spec = shapes_checked("jumanji/Connector-v3")
    assert spec.action_space == spaces.MultiDiscrete([5] * 10)


def test_grids_of_navix_are_no_images_unless_asked_for():
    assert shapes_checked("navix/Navix-DoorKey-5x5-v0").observation_space.dtype == np.float32
    seen = shapes_checked("navix/Navix-DoorKey-5x5-v0", observation_fn="rgb").observation_space
    assert (seen.dtype, seen.shape) == (np.uint8, (40, 40, 3))


@pytest.mark.parametrize("id", ["navix/Navix-DoorKey-5x5-v0", "jumanji/Snake-v1"])
def test_pictures(id):
    env = envs.make(id)
    state = jax.jit(env.reset)(jax.random.key(0))
    (picture,) = env.render([state])
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3


def test_a_picture_needs_no_backend_of_matplotlib_that_has_pixels():
    before = pyplot.get_backend()
    pyplot.switch_backend("svg")
    try:
        test_pictures("jumanji/Snake-v1")
    finally:
        pyplot.switch_backend(before)


def test_a_game_without_a_picture_says_so():
    with pytest.raises(NoPicture, match="pgx/2048 has no picture"):
        envs.make("pgx/2048").render([])


@pytest.mark.parametrize(
    ("id", "kwargs", "says"),
    [
        ("jumanji/Snake-v1", {"num_rows": "two"}, "env='jumanji/Snake-v1'"),
        ("jumanji/Snake-v1", {"colour": 2}, "unexpected keyword argument 'colour'"),
        ("navix/Navix-DoorKey-5x5-v0", {"heigt": 2}, "heigt"),
        ("navix/Navix-DoorKey-5x5-v0", {"observation_fn": "os"}, "must be one of symbolic"),
        ("pgx/minatar-breakout", {"sticky": 2}, "unexpected keyword argument 'sticky'"),
        ("playground/CartpoleBalance", {"ctrl": 2}, "ctrl"),
        ("playground/Go1Getup", {}, "needs the robots of MuJoCo Menagerie"),
        ("craftax/Craftax-Classic-Symbolic", {"god": True}, "god must be one of max_timesteps"),
        ("jumanji/Snak-v1", {}, "did you mean jumanji/Snake-v1"),
    ],
)
def test_what_is_wrong_is_said(id, kwargs, says):
    with pytest.raises(UserError, match=says):
        envs.make(id, **kwargs)


@pytest.mark.parametrize("suite", ["craftax", "jumanji", "navix", "pgx", "playground"])
def test_a_missing_package_is_named(suite, monkeypatch):
    id = envs.list_ids(suite)[0]
    assert obstacle(id) is None
    monkeypatch.setattr("envs.available.find_spec", lambda name: None)
    assert obstacle(id).endswith(f": {pip_install(suite)}")


def _heavier(model, keys):
    """Domain randomisation in the form of MuJoCo Playground: the mass of the ball."""
    scale = jax.vmap(lambda key: jax.random.uniform(key, minval=1, maxval=50))(keys)
    masses = model.body_mass * scale[:, None]
    axes = jax.tree.map(lambda leaf: None, model).tree_replace({"body_mass": 0})
    return model.tree_replace({"body_mass": masses}), axes


@pytest.mark.slow
def test_each_episode_may_draw_its_own_model():
    from tests.extend.own_playground_env import Push

    plain = envs.from_playground(Push(), id="mine/push")
    drawn = envs.from_playground(Push(), id="mine/push", randomizer=_heavier)
    keys = jnp.stack([jax.random.key(1), jax.random.key(2), jax.random.key(1)])
    state = jax.jit(jax.vmap(drawn.reset))(keys)
    (mass,) = state.inner.info["es_rl_model"]
    assert mass[0, 1] != mass[1, 1]
    step = jax.jit(jax.vmap(drawn.step))
    state = step(step(state, jnp.ones((3, 1)), keys), jnp.ones((3, 1)), keys)
    speed = state.inner.data.qvel[:, 0]
    assert speed[0] == speed[2] != speed[1]
    start = jax.jit(plain.reset)(keys[0])
    one = jax.jit(plain.step)(start, jnp.ones(1), keys[0])
    ratio = plain._inner.mjx_model.body_mass[1] / mass[:, 1]
    # Twice the steps at a constant force.
    np.testing.assert_allclose(speed, 2 * one.inner.data.qvel[0] * ratio, rtol=1e-3)


def test_what_has_no_randomisation_says_so():
    with pytest.raises(UserError, match="CartpoleBalance.*has no domain randomisation"):
        envs.make("playground/CartpoleBalance", randomize=True)
