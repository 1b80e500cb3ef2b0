"""Environments of gymnax play as gymnax plays them, with two kinds of end."""

import gymnax
import jax
import numpy as np
import pytest
from flax import struct
from gymnasium import spaces

import envs
from envs.errors import NoPicture, UserError
from envs.suites import gymnax_suite
from tests.envs.gymnax_reference import plain_episode
from tests.envs.suite_references import shapes_checked

SOME = ("CartPole-v1", "Pendulum-v1", "SpaceInvaders-MinAtar", "Catch-bsuite", "Reacher-misc")


def played(env, key, actions):
    """Rewards, both ends and observations of the steps of one episode."""
    state = jax.jit(env.reset)(key)
    step, seen = jax.jit(env.step), []
    for number, action in enumerate(actions):
        state = step(state, action, jax.random.fold_in(key, number))
        seen.append((state.reward, state.terminated, state.truncated, state.obs))
        if state.terminated | state.truncated:
            break
    return [np.asarray(x) for x in zip(*seen, strict=True)]


@pytest.mark.parametrize("name", SOME)
def test_an_episode_is_that_of_gymnax(name):
    env = envs.make(f"gymnax/{name}", max_episode_steps=40)
    env.spec.action_space.seed(3)
    actions = [env.spec.action_space.sample() for _ in range(40)]
    key = jax.random.key(7)
    reward, terminated, truncated, obs = played(env, key, actions)
    expected, ended, expected_obs = plain_episode(name, key, actions)
    np.testing.assert_allclose(reward, expected, rtol=1e-5, atol=1e-6)
    assert terminated[-1] == ended
    assert truncated[-1] == (not ended)
    assert not terminated[:-1].any()
    assert not truncated[:-1].any()
    scale = 255 if name.endswith("MinAtar") else 1
    np.testing.assert_allclose(obs, scale * expected_obs, rtol=1e-4, atol=1e-5)


def test_the_limit_truncates_and_the_task_terminates():
    env = envs.make("gymnax/CartPole-v1", max_episode_steps=3)
    _, terminated, truncated, _ = played(env, jax.random.key(0), [0, 1, 0, 1])
    assert truncated.tolist() == [False, False, True]
    assert not terminated.any()
    env = envs.make("gymnax/CartPole-v1")
    assert env.spec.max_episode_steps == 500
    _, terminated, truncated, _ = played(env, jax.random.key(0), [0] * 50)
    assert len(terminated) < 20
    assert terminated[-1]
    assert not truncated.any()


@pytest.mark.parametrize("name", gymnax_suite.names())
def test_every_environment_has_spaces_and_steps(name):
    shapes_checked(f"gymnax/{name}")


def test_every_name_is_that_of_gymnax():
    registration = pytest.importorskip("gymnax.registration")
    known = set(registration.registered_envs) - {"MNISTBandit-bsuite", "SimpleBandit-bsuite"}
    assert set(gymnax_suite.names()) == known
    assert {f"gymnax/{name}" for name in known} <= set(envs.list_ids("gymnax"))


def test_minatar_is_seen_as_images():
    env = envs.make("gymnax/Breakout-MinAtar")
    assert env.spec.observation_space == spaces.Box(0, 255, (10, 10, 4), np.uint8)
    state = env.reset(jax.random.key(0))
    assert set(np.unique(state.obs)) == {0, 255}
    for _ in range(3):  # until the ball has left the bricks
        state = env.step(state, 0, jax.random.key(1))
    (picture,) = env.render([state])
    assert picture.shape == (320, 320, 3)
    # The ground, paddle, ball, trail and bricks.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 5
    with pytest.raises(NoPicture):
        envs.make("gymnax/CartPole-v1").render([state])


def test_arguments_are_those_of_the_class_and_of_its_parameters():
    full = envs.make("gymnax/Breakout-MinAtar", use_minimal_action_set=False)
    assert full.spec.action_space == spaces.Discrete(6)
    assert full.spec.kwargs == {"use_minimal_action_set": False}
    heavy = envs.make("gymnax/CartPole-v1", gravity=30.0)
    key, actions = jax.random.key(1), [0] * 30
    assert len(played(heavy, key, actions)[0]) != len(
        played(envs.make("gymnax/CartPole-v1"), key, actions)[0]
    )
    with pytest.raises(UserError, match="unexpected keyword argument 'gravty'"):
        envs.make("gymnax/CartPole-v1", gravty=3.0)
    with pytest.raises(UserError, match="did you mean gymnax/Breakout-MinAtar"):
        envs.make("gymnax/Breakut-MinAtar")


def test_scalars_of_the_info_are_reported_where_asked_for():
    env = envs.make("gymnax/CartPole-v1", info_keys=["discount"])
    start = env.reset(jax.random.key(0))
    after = env.step(start, 1, jax.random.key(1))
    assert jax.tree.structure(start) == jax.tree.structure(after)
    assert (float(start.info["discount"]), float(after.info["discount"])) == (0, 1)


def test_params_without_a_limit_need_one():
    @struct.dataclass
    class Endless:
        gravity: float = 9.8

    cart, _ = gymnax.make("CartPole-v1")
    with pytest.raises(UserError, match="mine/cart: its params have no max_steps_in_episode"):
        envs.from_gymnax(cart, Endless(), id="mine/cart")
