"""Images and other numbers from worker processes: trained on, saved, and replayed."""

import json

import numpy as np
import pytest
from gymnasium import spaces

import agents
import envs
from experiments.commands import replay
from tests.envs.image_envs import SAMPLED, AnySpot

pytestmark = pytest.mark.slow

envs.import_module("tests.envs.image_envs")

EGGROLL = {"population_size": 4}
PPO = {"num_envs": 2, "num_steps": 8, "minibatch_size": 8}


def trained(env, name, env_steps, **settings):
    agent = agents.make(name, env, hidden=(4,), **settings)
    with agent:
        return agents.train(agent, env_steps=env_steps, eval_episodes=2, checkpoint_seconds=None)


@pytest.mark.parametrize(
    ("shape", "name", "settings"),
    [
        ((6, 6), "eggroll", EGGROLL),
        ((6, 6, 1), "ppo", PPO),
        ((1, 6, 6, 1), "eggroll", EGGROLL),
    ],
)
def test_images_of_every_rank_train_and_replay(shape, name, settings, tmp_path, capsys):
    env = envs.make("gymnasium/AnySpot-v0", workers=1, shape=list(shape))
    assert env.spec.observation_space == spaces.Box(0, 255, shape, np.uint8)
    policy = trained(env, name, 64, **settings).policy
    assert policy.actor.name == "cnn"
    policy.save(tmp_path)
    assert agents.load_policy(tmp_path).spec == policy.spec
    assert replay.main([str(tmp_path), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == policy.evaluation["returns"]
    obs, _ = AnySpot(shape).reset(seed=1)
    assert policy(obs) in (0, 1)


def test_images_stay_uint8_in_shared_memory_and_are_not_copied():
    pool = envs.make("gymnasium/AnySpot-v0", workers=1).open_lanes(2)
    try:
        span = slice(0, 2)
        pool.begin()
        pool.send(span, np.full(2, envs.base.RESET, np.uint8), np.array([1, 2]), None)
        first = pool.receive(span).obs
        assert first.dtype == np.uint8
        assert first.max() == 255
        expected = AnySpot().reset(seed=5)[0]
        assert (first[0] != expected).any()
        pool.send(span, np.full(2, envs.base.RESET, np.uint8), np.array([5, 5]), None)
        pool.receive(span)
        np.testing.assert_array_equal(first[0], expected)
    finally:
        pool.close()


@pytest.mark.parametrize("number", range(len(SAMPLED)))
def test_integers_scalars_and_booleans_train_and_replay(number, tmp_path, capsys):
    env = envs.make("gymnasium/Sampled-v0", workers=1, number=number)
    assert env.spec.observation_space == SAMPLED[number]
    policy = trained(env, "eggroll", 32, **EGGROLL).policy
    policy.save(tmp_path)
    assert agents.load_policy(tmp_path).spec == policy.spec
    assert replay.main([str(tmp_path), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == policy.evaluation["returns"]
