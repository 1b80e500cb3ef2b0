"""Gymnasium environments on the host."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs


class Counter(gymnasium.Env):
    """Terminates at the time limit itself, and shows what it was given."""

    observation_space = spaces.Box(-1, 1, (2,), np.float64)
    action_space = spaces.MultiDiscrete([3, 4])

    def __init__(self, length=5):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return np.zeros(2), float(action.sum()), self.steps == self.length, False, {}


gymnasium.register("Counter-v0", Counter, max_episode_steps=5)


def test_lanes_follow_a_plain_loop():
    env = envs.make("gymnasium/CartPole-v1")
    assert isinstance(env, envs.HostEnv)
    lanes = env.lanes(3)
    single = gymnasium.make("CartPole-v1")
    obs = lanes.reset([2], [17])
    want, _ = single.reset(seed=17)
    np.testing.assert_array_equal(obs[0], want)
    for action in (0, 1, 1):
        obs, reward, terminated, truncated = lanes.step([2], np.array([action]))
        want, want_reward, *_ = single.step(action)
        np.testing.assert_array_equal(obs[0], want)
        assert reward[0] == want_reward
        assert not terminated[0]
        assert not truncated[0]
    lanes.close()
    single.close()


def test_limits_keyword_arguments_and_both_ends_at_once():
    env = envs.make("gymnasium/Counter-v0", length=3)
    assert env.spec.kwargs == {"length": 3}
    lanes = env.lanes(1)
    lanes.reset([0], [0])
    ends = [lanes.step([0], np.array([[2, 3]]))[1:] for _ in range(3)]
    assert [bool(e[1][0]) for e in ends] == [False, False, True]
    assert ends[0][0][0] == 5
    both = envs.make("gymnasium/Counter-v0").lanes(1)
    both.reset([0], [0])
    for _ in range(5):
        *_, terminated, truncated = both.step([0], np.array([[0, 0]]))
    assert terminated[0]
    assert not truncated[0]
    short = envs.make("gymnasium/Counter-v0", max_episode_steps=2).lanes(1)
    short.reset([0], [0])
    short.step([0], np.array([[0, 0]]))
    *_, terminated, truncated = short.step([0], np.array([[0, 0]]))
    assert truncated[0]
    assert not terminated[0]


def test_wrong_arguments_and_missing_packages_are_one_line():
    with pytest.raises(ValueError, match="unexpected keyword argument 'colour'") as error:
        envs.make("gymnasium/CartPole-v1", colour=1)
    assert "\n" not in str(error.value)


def test_film_shows_one_episode():
    env = envs.make("gymnasium/CartPole-v1")
    total, frames = env.film(lambda obs: 1, seed=3)
    assert len(frames) == total + 1
    assert frames[0].std() > 5
