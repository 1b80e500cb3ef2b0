"""The agent over sbx's PPO learns, and its policies are ours to the last decision."""

import re
import subprocess
import sys

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

import agents
import envs
from agents.ppo.agent import PPOConfig
from agents.presets import ppo, ppo_gymnasium
from agents.sbx_ppo import SbxPPOConfig
from envs.errors import UserError
from envs.installing import pip_install

SMALL = {"num_envs": 2, "num_steps": 64, "num_epochs": 1, "minibatch_size": 128, "hidden": (16, 8)}
MINIBATCHES = {**SMALL, "num_epochs": 2, "minibatch_size": 32}


class Levers(gymnasium.Env):
    """Rewards the first of two levers; for spaces that Gymnasium's own environments lack."""

    observation_space = spaces.Box(-1, 1, (2, 2), np.float64)
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, (2, 2)), {}

    def step(self, action):
        return self.np_random.uniform(-1, 1, (2, 2)), float(action[0]), False, False, {}


class FromOne(Levers):
    """As Levers, but its actions count from 1."""

    action_space = spaces.Discrete(2, start=1)


for entry_point in (Levers, FromOne):
    gymnasium.register(f"{entry_point.__name__}-v0", entry_point, max_episode_steps=20)


@pytest.fixture
def make():
    """`agents.make` for sbx_ppo on an id of Gymnasium, where sbx is installed."""
    pytest.importorskip("sbx")

    def make(name, **settings):
        return agents.make("sbx_ppo", envs.make(f"gymnasium/{name}", workers=2), **settings)

    return make


def test_learns_cart_pole_with_the_settings_of_the_zoo(make, tmp_path):
    preset = ppo.PRESETS.preset("gymnasium/CartPole-v1")
    agent, budget = make("CartPole-v1", **preset.settings), preset.run["env_steps"]
    result = agents.train(
        agent, env_steps=budget, target_return=475, eval_every=20, eval_episodes=20, out=tmp_path
    )
    assert result.evaluation.mean >= 475
    assert result.env_steps <= budget + 256
    policy = agents.load_policy(tmp_path)
    assert policy.agent == "sbx_ppo"
    replayed = agents.evaluate(policy, agent.env, episodes=20)
    np.testing.assert_array_equal(replayed.returns, policy.evaluation["returns"])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("CartPole-v1", {}),
        ("CartPole-v1", {"normalize_observations": True}),
        ("HalfCheetah-v5", {"normalize_observations": True, "normalize_rewards": True}),
        ("Pendulum-v1", {"normalize_rewards": True, "activation": "relu"}),
        ("Levers-v0", {"normalize_observations": True, "hidden": ()}),
    ],
)
def test_our_policy_decides_as_the_model_predicts(make, name, settings):
    agent = make(name, **{**SMALL, "learning_rate": 0.01, **settings})
    state, _ = agent.step(agent.init(jax.random.key(0)))
    policy = agent.snapshot(state)
    rng = np.random.default_rng(0)
    shape = agent.env.spec.observation_space.shape
    # Far enough out for some to be clipped at 10 standard deviations.
    obs = (rng.standard_normal((500, *shape)) * 4).astype(agent.env.spec.observation_space.dtype)
    normalizer = state.model.get_vec_normalize_env()
    theirs = obs if normalizer is None else normalizer.normalize_obs(obs)
    expected, _ = state.model.predict(theirs, deterministic=True)
    assert len(np.unique(expected, axis=0)) > 1
    if isinstance(agent.env.spec.action_space, spaces.Box):
        np.testing.assert_allclose(policy(obs), expected, rtol=1e-4, atol=1e-4)
    else:
        np.testing.assert_array_equal(policy(obs), expected)


def test_statistics_of_observations_are_theirs(make):
    agent = make("Pendulum-v1", **SMALL, normalize_observations=True)
    state, _ = agent.step(agent.init(jax.random.key(0)))
    weights, theirs = agent.snapshot(state).weights, state.model.get_vec_normalize_env()
    np.testing.assert_allclose(weights.mean, theirs.obs_rms.mean, rtol=1e-6)
    np.testing.assert_allclose(weights.std, np.sqrt(theirs.obs_rms.var + 1e-8), rtol=1e-6)


def test_states_are_reproducible_and_apart(make, capfd):
    agent = make("CartPole-v1", **MINIBATCHES, normalize_rewards=True)

    def steps(state):
        return [agent.step(state)[1]["return_mean"] for _ in range(2)], agent.snapshot(state)

    first, second = agent.init(jax.random.key(0)), agent.init(jax.random.key(1))
    again = agent.init(jax.random.key(0))
    agent.compile(again)  # changes nothing
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    _, other = agent.step(second)
    means, policy = steps(first)
    agent.step(second)
    repeated, same = steps(again)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert means == repeated
    assert other["return_mean"] != means[0]
    jax.tree.map(np.testing.assert_array_equal, policy.weights, same.weights)
    assert capfd.readouterr() == ("", "")


def test_compiling_leaves_nothing_for_the_first_step(make):
    agent = make("CartPole-v1", **MINIBATCHES)
    state = agent.init(jax.random.key(0))
    agent.compile(state)
    programs = type(state.model)._one_update._cache_size()
    agent.step(state)
    assert type(state.model)._one_update._cache_size() == programs


def test_metrics(make):
    agent = make("CartPole-v1", **SMALL, learning_rate=0.01, anneal_steps=256)
    state = agent.init(jax.random.key(0))
    seen = []
    for _ in range(3):
        state, metrics = agent.step(state)
        seen.append(metrics)
    assert [m["env_steps"] for m in seen] == [128] * 3
    assert [m["learning_rate"] for m in seen] == [0.005, 0, 0]
    assert seen[0]["return_min"] < seen[0]["return_mean"] < seen[0]["return_max"]
    assert seen[0]["return_std"] > 0


def test_returns_are_the_last_known_ones_when_no_episode_ends(make):
    agent = make("Pendulum-v1", **SMALL)  # episodes of 200 steps, iterations of 64
    state = agent.init(jax.random.key(0))
    means = [agent.step(state)[1]["return_mean"] for _ in range(5)]
    assert np.isnan(means[:3]).all()
    assert means[3] == means[4] < 0


def test_environments_are_made_as_told(make):
    env = envs.make("gymnasium/CartPole-v1", max_episode_steps=7, sutton_barto_reward=True)
    agent = agents.make("sbx_ppo", env, **SMALL)
    _, metrics = agent.step(agent.init(jax.random.key(0)))
    assert metrics["return_max"] == 0  # the other reward pays -1 for falling, 0 for standing


def test_training_plays_an_environment_of_its_own(make):
    """Otherwise its comparison with other agents on such a task would not be fair."""
    env = envs.make("gymnasium/CartPole-v1", max_episode_steps=7)
    train_env = envs.make("gymnasium/CartPole-v1", max_episode_steps=7, sutton_barto_reward=True)
    shown = []
    with agents.make("sbx_ppo", env, train_env=train_env, **SMALL) as agent:
        result = agents.train(
            agent,
            env_steps=1,
            eval_episodes=2,
            on_generation=lambda metrics, snapshot: shown.append(metrics),
        )
    assert shown[0]["train_env_return_max"] == 0
    assert "return_max" not in shown[0]
    assert result.evaluation.mean == 7


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("probe/policy_reward", "probe/policy_reward does not step on the host"),
        ("gymnasium/phys2d/CartPole-v1", "phys2d/CartPole-v1 does not step on the host"),
        ("gymnasium/FrozenLake-v1", "FrozenLake-v1 has Discrete observations; must be a Box"),
        ("gymnasium/FromOne-v0", "FromOne-v0 has actions Discrete.*; must be a finite Box"),
    ],
)
def test_refuses_what_it_cannot_train(name, says):
    with pytest.raises(ValueError, match=f"^agent='sbx_ppo': .*{says}"):
        agents.make("sbx_ppo", envs.make(name))


def test_nothing_of_theirs_is_imported_before_an_agent_is_made():
    pytest.importorskip("sbx")
    code = (
        "import agents.registry, sys; agents.registry.config_type('sbx_ppo')(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sbx", "stable_baselines3", "torch"} & set(done.stdout.split())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sbx", None)
    with pytest.raises(
        UserError, match=rf"agent=.sbx_ppo.: .* \({re.escape(pip_install('sbx'))}\)$"
    ):
        agents.make("sbx_ppo", envs.make("gymnasium/CartPole-v1"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_envs": 0}, "num_envs=0: must be at least 1"),
        ({"anneal_steps": 0}, "anneal_steps=0: must be at least 1"),
        ({"minibatch_size": 60}, "minibatch_size=60: must divide num_envs x num_steps, 2048"),
        ({"minibatch_size": 1}, "minibatch_size=1: must be at least 2"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be greater than 0"),
        ({"value_coefficient": -1.0}, "value_coefficient=-1.0: must be at least 0"),
        ({"gamma": 1.1}, "gamma=1.1: must be from 0 to 1"),
        ({"log_std_init": np.inf}, "log_std_init=inf: must be finite"),
        ({"activation": "swish"}, "activation='swish': must be one of tanh, relu"),
        ({"hidden": (0,)}, r"hidden=\(0,\): must be widths"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(ValueError, match=says):
        SbxPPOConfig(**settings)


@pytest.mark.parametrize("env_id", sorted(ppo.PRESETS))
def test_presets_fit_the_agents(env_id):
    assert env_id in envs.list_ids()
    preset = ppo.PRESETS.preset(env_id)
    assert preset.run["env_steps"] > 0
    assert preset.source
    PPOConfig(**preset.settings)
    if env_id in ppo_gymnasium.PRESETS:
        SbxPPOConfig(**preset.settings)
