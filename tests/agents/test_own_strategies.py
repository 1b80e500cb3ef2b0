"""Strategies and shapings of the user's: trained, saved, resumed, and refused where they are wrong.

What is wrong must be found when the agent is made.
"""

import functools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import agents
import envs
from agents.evolution.config import STRATEGY_SETTINGS
from envs.errors import UserError
from experiments.commands.train import main
from tests.agents.own_strategies import AdaptiveSigma, best_half
from tests.agents.resuming import Crash, crash_in


@functools.cache
def env(name="probe/policy_reward", **kwargs):
    return envs.make(name, **kwargs)


def make(**settings):
    return agents.make("eggroll", env(), hidden=(4,), **settings)


@pytest.fixture(scope="module")
def agent():
    return make(strategy=AdaptiveSigma())


def test_a_strategy_of_ones_own_trains_and_resumes_to_the_same_bits(agent, tmp_path):
    assert agent.strategy.population_size == 16
    budget = {"env_steps": 6 * 128, "eval_every": 3, "eval_episodes": 4, "checkpoint_every": 2}
    whole = agents.train(agent, out=tmp_path / "whole", **budget)
    with pytest.raises(Crash):
        agents.train(agent, out=tmp_path / "cut", on_generation=crash_in(3), **budget)
    again = agents.train(agent, out=tmp_path / "cut", resume=True, **budget)
    assert whole.generations == again.generations > 4
    policies = [
        (tmp_path / run / "policy/weights.safetensors").read_bytes() for run in ("whole", "cut")
    ]
    assert policies[0] == policies[1]
    lines = (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
    sigmas = [json.loads(line)["sigma"] for line in lines]
    ratios = np.array(sigmas[1:]) / sigmas[:-1]
    assert ((abs(ratios - 1.25) < 1e-5) | (abs(ratios - 0.8) < 1e-5)).all()
    settings = json.loads((tmp_path / "whole/config.json").read_text())["settings"]
    assert settings["strategy"] == "tests.agents.own_strategies.AdaptiveSigma"
    # What it makes void is left out.
    assert not settings.keys() & {*STRATEGY_SETTINGS}
    assert settings["hidden"] == [4]
    assert settings["episodes_per_member"] == agent.config.episodes_per_member
    with pytest.raises(UserError, match="AdaptiveSigma is an object, .*: go on in Python with"):
        main(["--resume", str(tmp_path / "cut")])


def test_its_policy_is_saved_loaded_and_started_from(agent, tmp_path):
    state, metrics = agent.step(agent.init(jax.random.key(0)))
    assert metrics["env_steps"] == 128
    assert metrics["sigma_factor"] == 1.25
    policy = agent.snapshot(state)
    policy.save(tmp_path)
    loaded = agents.load_policy(tmp_path)
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(loaded.weights.params, policy.weights.params)
    started = agent.with_policy(agent.init(jax.random.key(1)), loaded)
    same(agent.snapshot(started).weights.params, policy.weights.params)
    assert int(started.es.generation) == 0
    assert started.es.factor == 1


def test_a_strategy_of_ours_as_an_object_is_the_one_of_the_settings():
    """The fitness is of float32 here, so that no constant is taken from it."""
    settings = {"population_size": 16, "rank": 2, "shaping": "centered_rank"}
    built_in = make(**settings)
    states = []
    for one in (built_in, make(strategy=built_in.strategy)):
        state = one.init(jax.random.key(0))
        for _ in range(2):
            state, metrics = one.step(state)
        learned = (state.es.params, state.es.opt_state, state.moments)
        states.append((learned, {k: float(v) for k, v in metrics.items()}))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_shaping_of_ones_own_shapes():
    seen = []

    def shaping(fitness, group_size):
        seen.append((fitness.shape, group_size))
        return best_half(fitness, group_size)

    with make(population_size=16, group_size=4, shaping=shaping) as agent:
        state = agent.init(jax.random.key(0))
        before = agent.snapshot(state).weights.params
        after = agent.snapshot(agent.step(state)[0]).weights.params
        assert set(seen) == {((16,), 4)}
        moved = jax.tree.map(lambda a, b: (a != b).any(), before, after)
        assert all(jax.tree.leaves(moved))


class Wrong(AdaptiveSigma):
    def tell(self, state, noise, fitness):
        following, metrics = super().tell(state, noise, fitness)
        return replace(following, factor=following.factor.astype(jnp.float16)), metrics


class Talkative(AdaptiveSigma):
    def tell(self, state, noise, fitness):
        return super().tell(state, noise, fitness)[0], {"fitness": fitness}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": 3}, "strategy=builtins.int: must be an object with population_size, "),
        ({"strategy": AdaptiveSigma}, "AdaptiveSigma: must be an object with population_size"),
        ({"strategy": Wrong()}, "state.factor is float16.* after tell: must be float32"),
        ({"strategy": Talkative()}, r"metric fitness has shape \(16,\): must be a scalar"),
        ({"strategy": AdaptiveSigma(), "sigma": 0.5}, "sigma=0.5: must not be given with a strat"),
        ({"strategy": AdaptiveSigma(), "shaping": best_half}, "best_half: must not be given with"),
        ({"strategy": AdaptiveSigma(), "shard_update": True}, "shard_update=True: must not be"),
        ({"shaping": 3}, "shaping=builtins.int: must be a text or a function"),
        ({"shaping": lambda f, g: f[:2]}, r"returns shape \(2,\) for fitness of shape \(512,\)"),
    ],
)
def test_what_is_wrong_is_said_when_the_agent_is_made(settings, says):
    with pytest.raises(UserError, match=says):
        make(**settings)


def test_ppo_takes_neither():
    with pytest.raises(UserError, match="ppo takes an object for network or critic"):
        agents.make("ppo", env(), strategy=AdaptiveSigma())
