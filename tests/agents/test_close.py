"""What an agent opens it closes: no worker process outlives it."""

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import jax
import pytest

import agents
import envs

pytestmark = pytest.mark.slow

ONE_STEP = {
    "eggroll": {"population_size": 4, "hidden": (2,)},
    "ppo": {"num_envs": 2, "num_steps": 4, "minibatch_size": 8, "num_epochs": 1, "hidden": (2,)},
    "random": {"episodes": 2},
    "sbx_ppo": {},
}


def workers():
    """The processes that this one has started and not waited for."""
    pids = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            pids.update((task / "children").read_text().split())
    return pids


@pytest.fixture(scope="module")
def env():
    return envs.make("gymnasium/CartPole-v1", max_episode_steps=5, workers=2)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for its processes")
@pytest.mark.parametrize("name", ONE_STEP)
def test_no_worker_outlives_its_agent(name, env):
    if name == "sbx_ppo" and find_spec("sbx") is None:
        pytest.skip("sbx-rl is not installed")
    before = workers()
    agent = agents.make(name, env, **ONE_STEP[name])
    with agent:
        state = agent.init(jax.random.key(0))
        if name != "sbx_ppo":
            state, _ = agent.step(state)
        policy = agent.snapshot(state)
        agents.Evaluator(env, policy.actor, agent.stage)(policy.weights, episodes=2)
        assert len(workers() - before) >= 2
    assert workers() <= before
    agent.close()  # once more does no harm


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for its processes")
@pytest.mark.parametrize("name", ["eggroll", "ppo"])
def test_no_worker_of_an_environment_of_training_outlives_its_agent(name, env):
    """Otherwise `close` would leave those of one of the two environments."""
    train_env = envs.make("gymnasium/CartPole-v1", sutton_barto_reward=True, workers=2)
    before = workers()
    with agents.make(name, env, train_env=train_env, **ONE_STEP[name]) as agent:
        state, _ = agent.step(agent.init(jax.random.key(0)))
        policy = agent.snapshot(state)
        agents.Evaluator(env, policy.actor, agent.stage)(policy.weights, episodes=2)
        assert len(workers() - before) >= 4
    assert workers() <= before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for its processes")
def test_no_worker_outlives_an_evaluation_not_even_one_that_fails(env, monkeypatch):
    with agents.make("random", env) as agent:
        policy = agent.snapshot(agent.init(jax.random.key(0)))

    def fails(self, weights, **options):
        raise ArithmeticError

    monkeypatch.setattr(agents.Evaluator, "__call__", fails)
    before = workers()
    with pytest.raises(ArithmeticError) as caught:
        agents.evaluate(policy, env, episodes=2)
    assert workers() <= before
    assert caught.tb is not None  # whose frames still hold what was opened
