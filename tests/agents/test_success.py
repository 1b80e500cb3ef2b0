"""Success of episodes, from the environment to the metrics, and as a fitness."""

import json

import jax
import numpy as np
import pytest

import agents
import envs
from envs.errors import UserError
from experiments import cli
from tests.agents.signs import Signs

pytestmark = pytest.mark.slow

SMALL = {"population_size": 16, "hidden": ()}


class Reports(Signs):
    """Pays for every right action, and reports whether the last one was right."""

    def __init__(self, key="is_success"):
        self._key = key

    def step(self, action):
        right = self._is_right(action)
        info = {} if self._key is None else {self._key: right}
        # A constant that would swallow the digits of float32.
        return self._next(), 1e8 + right, self._steps == 4, False, info


def host(key="is_success"):
    return envs.from_gymnasium(lambda: Reports(key), id="mine/reports", max_episode_steps=9)


def paid(returns):
    """How many steps of each episode were paid for."""
    return returns - 4e8


@pytest.mark.parametrize("key", ["is_success", "success"])
def test_an_evaluation_counts_successes_on_the_host(key):
    env = host(key)
    with agents.make("zero", env) as agent:
        policy = agent.snapshot(agent.init(jax.random.key(0)))
        found = agents.evaluate(policy, env, episodes=16)
    assert set(found.info["success"]) == {0.0, 1.0}
    assert found.success_rate == found.info["success"].mean()
    # An episode without any paid step is no success, one in which all were paid is.
    assert not found.info["success"][paid(found.returns) == 0].any()
    assert found.info["success"][paid(found.returns) == 4].all()


def test_an_evaluation_counts_successes_on_devices():
    env = envs.make("probe/delayed_reward")
    with agents.make("zero", env) as agent:
        policy = agent.snapshot(agent.init(jax.random.key(0)))
        found = agents.evaluate(policy, env, episodes=16)
    np.testing.assert_array_equal(found.info["success"], found.returns)
    assert 0 < found.success_rate < 1


@pytest.mark.parametrize("make", [lambda: host(None), lambda: envs.make("probe/policy_reward")])
def test_where_nothing_is_reported_nothing_is_shown(make):
    with agents.make("eggroll", make(), **SMALL) as agent:
        shown = []
        result = agents.train(
            agent,
            env_steps=1,
            eval_episodes=4,
            on_generation=lambda metrics, snapshot: shown.append(metrics),
        )
    assert result.evaluation.success_rate is None
    assert not {"success_rate", "eval_success_rate"} & shown[0].keys()


@pytest.mark.parametrize("make", [host, lambda: envs.make("probe/delayed_reward")])
def test_success_is_learned_as_the_fitness(make):
    shown = []
    settings = {"episodes_per_member": 8, "fitness": "success", "sigma": 0.3, "learning_rate": 0.2}
    with agents.make("eggroll", make(), **SMALL, **settings) as agent:
        result = agents.train(
            agent,
            env_steps=20_000,
            eval_episodes=32,
            on_generation=lambda metrics, snapshot: shown.append(metrics),
        )
    assert shown[0]["success_rate"] == pytest.approx(shown[0]["fitness_mean"], abs=1e-6)
    assert shown[0]["success_rate"] < 0.9
    assert result.evaluation.success_rate == 1.0
    assert shown[-1]["eval_success_rate"] == 1.0


def test_success_as_a_fitness_needs_one_that_is_reported():
    with (
        agents.make("eggroll", host(None), fitness="success", **SMALL) as agent,
        pytest.raises(UserError, match="fitness=success: mine/reports reports no success"),
    ):
        agents.train(agent, env_steps=1, eval_episodes=4)
    with (
        agents.make("eggroll", envs.make("probe/recall"), fitness="success", **SMALL) as agent,
        pytest.raises(UserError, match="fitness='success': the environment does not report"),
    ):
        agents.train(agent, env_steps=1, eval_episodes=4)


def first_generation(env, **settings):
    """The metrics, the parameters before and after."""
    with agents.make("eggroll", env, **SMALL, episodes_per_member=4, **settings) as agent:
        state = agent.init(jax.random.key(1))
        before = agent.snapshot(state).weights.params
        state, metrics = agent.step(state)
        after = agent.snapshot(state).weights.params
    return metrics, before, after


def same(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("make", [host, lambda: envs.make("probe/policy_reward")])
def test_each_fitness_is_another_update_of_the_same_episodes(make):
    found = {f: first_generation(make(), fitness=f) for f in ("mean", "median", "min", "cvar")}
    _, before, mean = found["mean"]
    assert not same(before, mean)
    for fitness in ("median", "min"):
        metrics, _, after = found[fitness]
        assert metrics["return_mean"] == pytest.approx(found["mean"][0]["return_mean"])
        # On the host all returns are near 4e8.
        assert metrics["fitness_mean"] == pytest.approx(metrics["return_mean"], rel=0, abs=100)
        assert not same(mean, after)
    assert found["min"][0]["fitness_mean"] < found["median"][0]["fitness_mean"]
    # The worst quarter of four episodes is the worst one.
    assert same(found["min"][2], found["cvar"][2])


@pytest.mark.parametrize("make", [host, lambda: envs.make("probe/policy_reward")])
def test_a_fitness_of_ones_own_sees_real_returns(make):
    _, _, minimum = first_generation(make(), fitness="min")

    def worst(returns):
        assert returns.shape == (16, 4)
        return returns.min(axis=1)

    metrics, before, after = first_generation(make(), fitness=worst)
    if isinstance(make(), envs.HostEnv):  # whose returns have too many digits for float32
        assert float(metrics["fitness_mean"]) == pytest.approx(4e8)
        assert same(before, after)
    else:
        assert same(minimum, after)


def test_the_commands_show_it(tmp_path, capsys):
    arguments = ["train", "probe/delayed_reward", "--env-steps", "100", "--eval-episodes", "8"]
    arguments += ["--population-size", "8", "--hidden", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert "% successful (8 episodes)" in capsys.readouterr().out
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["eval_success_rate"] <= 1
    with pytest.raises(SystemExit):
        cli.main(["replay", str(tmp_path / "run"), "--episodes", "8", "--json"])
    played = json.loads(capsys.readouterr().out)
    assert played["success_rate"] == last["eval_success_rate"] == played["return_mean"]
