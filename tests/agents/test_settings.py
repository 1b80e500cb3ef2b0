"""Settings as Python's own users give them: NumPy's numbers, and lists."""

import json
from dataclasses import asdict

import numpy as np
import pytest

import agents
import envs
from agents.evolution.config import EggrollConfig
from agents.ppo.agent import PPOConfig
from agents.training.run_config import RunConfig


def test_numpys_numbers_and_lists_are_settings():
    given = EggrollConfig(
        population_size=np.int64(8),
        hidden=[np.int32(32), 16],
        sigma=np.float32(0.5),
        lanes=np.uint8(4),
        learning_rate=np.array(0.25)[()],
        sample_actions=np.bool_(True),
    )
    meant = EggrollConfig(
        population_size=8,
        hidden=(32, 16),
        sigma=0.5,
        lanes=4,
        learning_rate=0.25,
        sample_actions=True,
    )
    assert given == meant
    assert json.loads(json.dumps(asdict(given))) == json.loads(json.dumps(asdict(meant)))
    assert PPOConfig(hidden=np.array([8, 8]), num_envs=np.int64(4)).hidden == (8, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"population_size": np.float64(8)},
        {"hidden": [8.0]},
        {"hidden": [[8]]},
        {"sigma": np.array([0.5])},
        {"sample_actions": np.int64(1)},
        {"population_size": np.bool_(True)},
    ],
)
def test_others_are_refused_as_pythons_own_are(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*: must be"):
        EggrollConfig(**wrong)


def test_a_run_takes_numpys_numbers_and_saves_them(tmp_path):
    agent = agents.make("eggroll", envs.make("probe/policy_reward"), population_size=4, hidden=[])
    result = agents.train(
        agent,
        env_steps=np.int64(1),
        seed=np.int64(3),
        target_return=np.float32(8),
        eval_episodes=np.int32(2),
        out=tmp_path / "run",
    )
    assert agents.load_policy(tmp_path / "run").training == result.policy.training
    assert type(RunConfig(keep=np.int64(1), target_return=np.float32(2)).keep) is int
    policy, env = result.policy, agent.env
    assert type(agents.evaluate(policy, env, episodes=np.int64(2), seed=np.int64(0)).seed) is int
