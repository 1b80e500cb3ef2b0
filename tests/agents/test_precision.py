"""With 64 bits switched on by the user, all is as it is without: float32 inside."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import agents
import envs

pytestmark = pytest.mark.slow

SCRIPT = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
{setting}
assert jax.numpy.zeros(1).dtype == "float64"
import agents, envs
from experiments.commands import replay

env = envs.make("{name}", max_episode_steps=10)
agent = agents.make("{agent}", env, **{settings})
agents.train(agent, env_steps=40, eval_episodes=3, eval_every=1, out="{out}")
replay.main(["{out}", "--episodes", "3", "--json"])
assert jax.numpy.zeros(1).dtype == "float64", "the user's setting holds outside"
"""
SMALL = {"population_size": 4, "hidden": (4,), "network": "gru", "memory": 2}
PPO = {"num_envs": 2, "num_steps": 16, "minibatch_size": 16, "hidden": (4,)}
CONFIG = 'jax.config.update("jax_enable_x64", True)'


@pytest.mark.parametrize(
    ("name", "agent", "settings", "setting"),
    [
        ("gymnasium/phys2d/CartPole-v1", "eggroll", SMALL, ""),
        ("gymnasium/CartPole-v1", "eggroll", SMALL, CONFIG),
        ("gymnasium/phys2d/CartPole-v1", "ppo", PPO, CONFIG),
    ],
)
def test_a_policy_is_the_same_bit_by_bit(name, agent, settings, setting, tmp_path):
    out = tmp_path / "run"
    script = SCRIPT.format(name=name, agent=agent, settings=settings, setting=setting, out=out)

    with_64 = {} if setting else {"JAX_ENABLE_X64": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **with_64},
    )
    assert done.returncode == 0, done.stderr
    found = agents.load_policy(out)
    trained = agents.train(
        agents.make(agent, envs.make(name, max_episode_steps=10), **settings),
        env_steps=40,
        eval_episodes=3,
        eval_every=1,
    )
    jax.tree.map(np.testing.assert_array_equal, found.weights, trained.policy.weights)
    assert found.evaluation == trained.policy.evaluation
    assert f'"returns": {found.evaluation["returns"]}' in done.stdout
