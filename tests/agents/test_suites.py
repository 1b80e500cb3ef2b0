"""Runs on the suites of the accelerator go on with the same bits, and their policies replay."""

import numpy as np
import pytest

import agents
import envs
from tests.agents.resuming import Crash, crash_in, evaluator_of, metrics_of, weights_of

pytestmark = pytest.mark.slow

IDS = (
    "jumanji/Snake-v1",
    "navix/Navix-Dynamic-Obstacles-6x6-v0",
    "pgx/2048",
    "gymnax/Breakout-MinAtar",
    "craftax/Craftax-Classic-Symbolic",
    "playground/CartpoleBalance",
)


@pytest.mark.parametrize("id", IDS)
def test_a_run_goes_on_with_the_same_bits_and_its_policy_replays(id, tmp_path):
    env = envs.make(id, max_episode_steps=12)
    settings = {"network": "mlp", "hidden": (), "population_size": 16, "episodes_per_member": 1}
    with agents.make("eggroll", env, **settings) as agent:
        evaluator = evaluator_of(agent)
        options = {"seed": 2, "eval_episodes": 4, "evaluator": evaluator, "checkpoint_every": 1}
        options["checkpoint_seconds"] = None
        whole = agents.train(agent, env_steps=500, out=tmp_path / "whole", **options)
        assert whole.generations >= 3
        broken, budget = tmp_path / "broken", {"env_steps": 500, "out": tmp_path / "broken"}
        with pytest.raises(Crash):
            agents.train(agent, **budget, on_generation=crash_in(1), **options)
        agents.train(agent, out=broken, resume=True, evaluator=evaluator)
        assert weights_of(broken) == weights_of(tmp_path / "whole")
        assert metrics_of(broken) == metrics_of(tmp_path / "whole")
        policy = agents.load_policy(broken)
        assert policy.spec == env.spec
        returns = evaluator(policy.weights, episodes=4, seed=0).returns
        np.testing.assert_array_equal(returns, policy.evaluation["returns"])
