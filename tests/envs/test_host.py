"""Gymnasium environments on the host."""

import contextlib
import os
import re
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs
from envs.base import IDLE, RESET, STEP
from envs.errors import UserError
from envs.installing import pip_install


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


class Whereabouts(Counter):
    """Shows the process that it is in, and what it has counted."""

    def __init__(self, nap):
        self.nap = nap

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.array([os.getpid(), 0.0]), {}

    def step(self, action):
        time.sleep(self.nap)
        self.steps += 1
        return np.array([os.getpid(), self.steps]), 0.0, False, False, {}


gymnasium.register("Whereabouts-v0", Whereabouts, max_episode_steps=1000)


def exchange(pool, command, *, seed=0, action=None):
    """One lane's exchange: (obs, reward, terminated, truncated)."""
    span = slice(0, 1)
    pool.send(span, np.array([command]), np.array([seed]), action)
    received = pool.receive(span)
    assert not received.lost[0]
    return tuple(x[0] for x in received[:4])


@contextlib.contextmanager
def one_lane(name, **kwargs):
    pool = envs.make(f"gymnasium/{name}", workers=1, **kwargs).open_lanes(1)
    yield pool
    pool.close()


def test_lanes_follow_a_plain_loop():
    env = envs.make("gymnasium/CartPole-v1", workers=2)
    assert isinstance(env, envs.HostEnv)
    pool = env.open_lanes(3)
    single = gymnasium.make("CartPole-v1")
    span, seeds = slice(1, 3), np.array([16, 17])
    pool.send(span, np.array([IDLE, RESET]), seeds, None)
    want, _ = single.reset(seed=17)
    np.testing.assert_array_equal(pool.receive(span).obs[1], want)
    for action in (0, 1, 1):
        pool.send(span, np.array([IDLE, STEP]), seeds, np.array([1, action]))
        received = pool.receive(span)
        want, want_reward, *_ = single.step(action)
        np.testing.assert_array_equal(received.obs[1], want)
        assert received.reward[1] == want_reward
        assert not received.terminated[1]
        assert not received.truncated[1]
    pool.close()
    single.close()


@pytest.mark.parametrize(("nap", "used"), [(0.0, 1), (0.005, 2)])
def test_a_worker_with_little_to_do_hands_its_lanes_over_when_their_episodes_end(
    nap, used, monkeypatch
):
    monkeypatch.setattr("envs.suites.gymnasium_suite._cores", lambda: 2)
    pool = envs.make("gymnasium/Whereabouts-v0", nap=nap).open_lanes(6)
    span, seeds, actions = slice(1, 5), np.zeros(4, int), np.zeros((4, 2), int)

    def processes(*commands):
        pool.send(span, np.array(commands), seeds, actions)
        obs = pool.receive(span).obs.copy()
        time.sleep(0.002)  # what the caller does
        return obs[:, 0].tolist(), obs[:, 1].tolist()

    first, _ = processes(*4 * [RESET])
    assert len(set(first)) == 2
    for step in range(1, 70):
        assert processes(*4 * [STEP]) == (first, 4 * [step])  # nobody moves amid an episode
    second, counts = processes(RESET, RESET, IDLE, STEP)
    assert counts[:2] == [0, 0]
    assert len(set(second[:2])) == used
    after_a_pause, counts = processes(IDLE, IDLE, STEP, STEP)
    assert (after_a_pause[2:], counts[2:]) == (first[2:], [70, 71])
    third, _ = processes(*4 * [RESET])
    assert len(set(third)) == used
    assert set(third) <= set(first)
    assert processes(*4 * [STEP]) == (third, 4 * [1])
    pool.close()


def test_limits_keyword_arguments_and_both_ends_at_once():
    action = np.array([[2, 3]])
    with one_lane("Counter-v0", length=3) as pool:
        exchange(pool, RESET)
        ends = [exchange(pool, STEP, action=action) for _ in range(3)]
        assert [bool(terminated) for *_, terminated, _ in ends] == [False, False, True]
        assert ends[0][1] == 5
    with one_lane("Counter-v0") as both:
        exchange(both, RESET)
        for _ in range(5):
            *_, terminated, truncated = exchange(both, STEP, action=action)
        assert terminated
        assert not truncated
    with one_lane("Counter-v0", max_episode_steps=2) as short:
        exchange(short, RESET)
        exchange(short, STEP, action=action)
        *_, terminated, truncated = exchange(short, STEP, action=action)
        assert truncated
        assert not terminated


def test_wrappers_modules_and_classes_of_the_script_itself(tmp_path, monkeypatch):
    (tmp_path / "own_envs.py").write_text(
        "import gymnasium, numpy\n"
        "from gymnasium.wrappers import RescaleAction, TransformReward\n"
        "def make(factor):\n"
        "    env = gymnasium.make('Pendulum-v1')\n"
        "    env = RescaleAction(env, numpy.float32(-1), numpy.float32(1))\n"
        "    return TransformReward(env, lambda r: factor * r)\n"
        "gymnasium.register('Own-v0', make, max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "envs.suites.gymnasium_suite._IMPORTED", []
    )  # later workers will not find it
    env = envs.make("gymnasium/own_envs:Own-v0", factor=10.0)
    assert env.spec.id == "gymnasium/Own-v0"
    assert (env.spec.max_episode_steps, float(env.spec.action_space.high[0])) == (7, 1.0)
    plain = gymnasium.make("Pendulum-v1")
    plain.reset(seed=3)
    with one_lane("Own-v0", factor=10.0) as pool:
        exchange(pool, RESET, seed=3)
        obs, reward, *_ = exchange(pool, STEP, action=np.array([[0.5]]))
    want, want_reward, *_ = plain.step(np.array([1.0], np.float32))
    np.testing.assert_array_equal(obs, want)
    assert reward == pytest.approx(10 * want_reward)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("CartPole-v1", {"workers": 0}, "workers=0: must be at least 1"),
        ("CartPole-v1", {"step_timeout": 0}, "step_timeout=0: must be a number of seconds above 0"),
        (
            "phys2d/CartPole-v1",
            {"workers": 2},
            "workers=2: gymnasium/phys2d/CartPole-v1 does not step on the host",
        ),
        ("Counter-v0", {"length": {5}}, "length={5}: must be a JSON value"),
        ("HalfCheetah-v5", {"xml_file": "/no/such.xml"}, "OSError: File /no/such.xml does not"),
        ("no_such_module:Counter-v0", {}, "import=no_such_module: must be a module"),
        ("CartPole-v9", {}, "--import MODULE brings in your own"),
    ],
)
def test_wrong_options_are_one_line(name, kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        envs.make(f"gymnasium/{name}", **kwargs)
    assert "\n" not in str(error.value)


def test_a_missing_package_comes_with_how_to_install_it(monkeypatch):
    def make(spec, **kwargs):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gymnasium, "make", make)
    with pytest.raises(UserError, match=rf"Box2D is not .* \({re.escape(pip_install('box2d'))}\)"):
        envs.make("gymnasium/LunarLander-v3")


def test_an_environment_that_workers_cannot_make_is_named():
    gymnasium.register("Here-v0", lambda pid: Elsewhere(pid))
    pool = envs.make("gymnasium/Here-v0", pid=os.getpid(), workers=1).open_lanes(1)
    with pytest.raises(RuntimeError, match="Here-v0: a worker could not start: OSError: not here"):
        exchange(pool, RESET)


class Elsewhere(Counter):
    def __init__(self, pid):
        super().__init__()
        if os.getpid() != pid:
            raise OSError("not here")


def test_wrong_arguments_and_missing_packages_are_one_line():
    with pytest.raises(ValueError, match="unexpected keyword argument 'colour'") as error:
        envs.make("gymnasium/CartPole-v1", colour=1)
    assert "\n" not in str(error.value)


def test_film_shows_one_episode():
    env = envs.make("gymnasium/CartPole-v1")
    total, frames = env.film(lambda obs: 1, seed=3)
    assert len(frames) == total + 1
    assert frames[0].std() > 5
