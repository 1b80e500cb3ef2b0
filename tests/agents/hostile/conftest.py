"""An honest run and an honest policy, of which the tests spoil copies."""

import gc
import shutil
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import agents
import envs
from agents.policies.network import Network, NetworkConfig, Weights
from agents.training.evaluation import Evaluator
from tests.agents.hostile.spoiling import inside_and_outside

SMALL = {"population_size": 8, "hidden": ()}


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of four generations, with checkpoints after the second and the fourth."""
    agent = agents.make("eggroll", envs.make("probe/policy_reward"), **SMALL)
    actor = agent.snapshot(agent.init(jax.random.key(0))).actor
    budget = {
        "env_steps": 4 * 64,
        "eval_episodes": 4,
        "eval_every": 2,
        "checkpoint_every": 2,
        "evaluator": Evaluator(agent.env, actor, agent.stage),
    }
    folder = tmp_path_factory.mktemp("honest") / "run"
    agents.train(agent, out=folder, **budget)
    state = agent.init(jax.random.key(0))
    like = (state, agent.snapshot(state).weights)
    return SimpleNamespace(folder=folder, agent=agent, budget=budget, like=like)


@pytest.fixture(scope="module")
def errors_reported():
    """Errors that Orbax left are reported at the end of a module, not in the tests of the next."""
    yield
    time.sleep(1.0)
    gc.collect()


@pytest.fixture
def place(tmp_path):
    """(a place for copies of the run, a folder outside of it with a file)."""
    return inside_and_outside(tmp_path)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    env = envs.make("probe/policy_reward")
    config = NetworkConfig(hidden=(2,))
    network = Network(env.spec.observation_space, env.spec.action_space, config)
    shapes = jax.eval_shape(network.init, jax.eval_shape(jax.random.key, 0))
    params = jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), shapes)
    weights = Weights(params, np.float32([0.25]), np.float32([2.0]))
    folder = tmp_path_factory.mktemp("saved")
    agents.Policy(env.spec, network, weights, agent="eggroll", training={"seed": 3}).save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of an honest policy, to be spoilt."""
    return shutil.copytree(saved, tmp_path / "policy")
