"""Recorded episodes are those of the evaluation."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import agents
import envs
from agents.training.filming import film, record
from es_rl.play import films

pytestmark = pytest.mark.slow


def make_policy(name, env):
    """Random actions, or a network whose head, zero at first, has weights too."""
    agent = agents.make(name, env, **({} if name == "random" else {"hidden": (8,)}))
    policy = agent.snapshot(agent.init(jax.random.key(0)))
    params = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape), policy.weights.params
    )
    return replace(policy, weights=policy.weights._replace(params=params))


@pytest.mark.parametrize(
    ("agent", "name", "options"),
    [
        ("eggroll", "gymnasium/HalfCheetah-v5", {"workers": 1, "max_episode_steps": 200}),
        ("random", "gymnasium/Hopper-v5", {"workers": 1}),
        ("eggroll", "brax/inverted_double_pendulum", {"backend": "spring"}),
    ],
)
def test_recordings_are_the_episodes_of_the_evaluation(agent, name, options):
    env = envs.make(name, **{"max_episode_steps": 50, **options})
    policy = make_policy(agent, env)
    evaluation = agents.evaluate(policy, env, episodes=4, seed=5)
    recordings = record(policy, env, episodes=4, seed=5)
    earned = [recording.returns[-1] for recording in recordings]
    returns = np.array(earned, evaluation.returns.dtype)
    np.testing.assert_array_equal(returns, evaluation.returns)
    assert len(set(returns.tolist())) == 4
    assert [recording.steps for recording in recordings] == evaluation.lengths.tolist()
    for recording in recordings:
        assert recording.returns[0] == 0
        frames, seconds = len(recording.returns), recording.steps / env.spec.frames_per_second
        assert recording.scene.positions.shape[0] == frames
        assert recording.frames_per_second <= 40
        # The last frame may follow sooner than the others.
        assert 0 <= (frames - 1) / recording.frames_per_second - seconds < 1 / 20


def test_a_film_too_is_an_episode_of_the_evaluation():
    env = envs.make("gymnasium/Pendulum-v1", workers=1, max_episode_steps=30)
    policy = make_policy("random", env)
    (earned,) = agents.evaluate(policy, env, episodes=1, seed=2).returns
    assert film(policy, env, seed=2).episode_return == earned


@pytest.mark.parametrize("name", ["gymnasium/phys2d/CartPole-v1", "gymnasium/CartPole-v1"])
def test_a_film_may_be_shorter_than_its_episode(name, monkeypatch):
    monkeypatch.setattr(films, "_PORTION", 7)
    env = envs.make(name, max_episode_steps=30)
    policy = make_policy("random", env)
    evaluation = agents.evaluate(policy, env, episodes=1, seed=2)
    whole, short = film(policy, env, seed=2), film(policy, env, seed=2, max_frames=3)
    assert whole.episode_return == short.episode_return == evaluation.returns[0]
    assert len(short.frames) == 3 < len(whole.frames)
    np.testing.assert_array_equal(short.frames, whole.frames[:3])
    assert evaluation.lengths[0] > 7
