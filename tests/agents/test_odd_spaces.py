"""Environments as people write them: what can be trained can be saved, loaded and replayed."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from gymnasium import spaces

import agents
import envs
from agents.policies.policy import check_savable
from envs.base import EnvSpec
from envs.errors import UserError
from experiments.commands import replay

envs.import_module("tests.envs.odd_envs")

TINY = {"population_size": 4, "hidden": ()}


def trained(env, name="eggroll", **settings):
    agent = agents.make(name, env, **settings)
    return agents.train(agent, env_steps=1, eval_episodes=2, checkpoint_seconds=None).policy


@pytest.mark.parametrize(
    "name",
    [
        "MD32",
        pytest.param("DiscObs32", marks=pytest.mark.slow),
        pytest.param("MBAct", marks=pytest.mark.slow),
        pytest.param("MBObs", marks=pytest.mark.slow),
    ],
)
def test_what_was_trained_replays(name, tmp_path, capsys):
    policy = trained(envs.make(f"gymnasium/{name}-v0", workers=1), **TINY)
    policy.save(tmp_path)
    assert replay.main([str(tmp_path), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == policy.evaluation["returns"]
    action = policy(policy.spec.observation_space.sample())
    assert policy.spec.action_space.contains(action)


@pytest.mark.parametrize(
    "name", ["FpsNp", "FpsNone", "NpThreshold", "NpLimit", "FloatLimit", "Disc5", "ScalarBox"]
)
def test_what_can_be_made_can_be_loaded(name, tmp_path):
    agent = agents.make("zero", envs.make(f"gymnasium/{name}-v0", workers=1))
    policy = agent.snapshot(agent.init(None))
    policy.save(tmp_path)
    assert agents.load_policy(tmp_path).spec == policy.spec == agent.env.spec


@pytest.mark.parametrize("name", ["MD32", "MBAct", "MBObs"])
def test_ppo_knows_these_spaces_too(name, tmp_path):
    env = envs.make(f"gymnasium/{name}-v0", workers=1)
    policy = trained(env, "ppo", num_envs=2, num_steps=8, minibatch_size=8, hidden=())
    policy.save(tmp_path)
    assert agents.load_policy(tmp_path).spec == policy.spec


def test_metadata_are_numbers_that_can_be_saved():
    spec = envs.make("gymnasium/FpsNp-v0").spec
    assert type(spec.frames_per_second) is float
    assert spec.frames_per_second == 50
    assert envs.make("gymnasium/FpsNone-v0").spec.frames_per_second == 30
    assert envs.make("gymnasium/NpThreshold-v0").spec.reward_threshold == 9
    for name in ("NpLimit", "FloatLimit"):
        assert type(envs.make(f"gymnasium/{name}-v0").spec.max_episode_steps) is int
    spec = envs.make("probe/policy_reward", max_episode_steps=np.int64(7)).spec
    assert type(spec.max_episode_steps) is int
    assert type(spec.kwargs["max_episode_steps"]) is int


def test_arguments_are_what_a_file_gives_back():
    env = envs.make("brax/ant", healthy_z_range=(np.float32(0.25), 1.0))
    assert env.spec.kwargs == {"healthy_z_range": [0.25, 1.0]}
    for value in (object(), float("nan"), {1: 2}, Path("x")):
        with pytest.raises(UserError, match="healthy_z_range=.*: must be a JSON value"):
            envs.make("brax/ant", healthy_z_range=value)


class Own:
    """An environment of a user's own."""

    def __init__(self, **spec):
        self._probe = envs.make("probe/policy_reward")
        self.spec = replace(self._probe.spec, **{"id": "own/x", **spec})

    def __getattr__(self, name):
        return getattr(self._probe, name)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"observation_space": spaces.Discrete(2**21)}, "categories must be at least 1, and at"),
        ({"action_space": spaces.Box(-1, 1, (2**20 + 1,))}, "space Box: the shape"),
        ({"observation_space": spaces.Box(-1, 1, (2,), np.longdouble)}, "longdouble"),
        ({"id": "own:x"}, "id 'own:x' must be as"),
        ({"max_episode_steps": 8.5}, "max_episode_steps must be an integer from 1 to"),
        ({"reward_threshold": float("inf")}, "Infinity is not finite"),
        ({"frames_per_second": None}, "NoneType"),
        ({"kwargs": {"file": object()}}, "not JSON serializable"),
        ({"kwargs": {"file": {1: 2}}}, "its kwargs .* would become"),
    ],
)
@pytest.mark.parametrize("name", ["eggroll", "ppo", "random"])
def test_what_could_not_be_loaded_is_refused_before_training(name, spec, says):
    with pytest.raises(UserError, match=says):
        agents.make(name, Own(**spec))


def test_a_policy_of_ones_own_agent_is_checked_before_training():
    class Agent:
        def __init__(self, agent):
            self._agent = agent

        def __getattr__(self, name):
            return getattr(self._agent, name)

        def snapshot(self, state):
            policy = self._agent.snapshot(state)
            return replace(policy, spec=replace(policy.spec, id="a:b"))

        def step(self, state):
            raise AssertionError("nothing may be trained")

    agent = Agent(agents.make("eggroll", envs.make("probe/policy_reward"), **TINY))
    with pytest.raises(UserError, match="env=a:b: a policy for it could not be loaded once saved"):
        agents.train(agent, env_steps=1)


def test_an_evaluation_that_would_not_fit_is_refused_before_training():
    agent = agents.make("eggroll", envs.make("probe/policy_reward"), **TINY)
    policy = agent.snapshot(agent.init(jax.random.key(0)))
    with pytest.raises(UserError, match="eval_episodes=200000: must be at most 1") as error:
        check_savable(policy, episodes=200_000)
    most = int(str(error.value).split("at most ")[1].split(",")[0])
    returns = [float(np.float32(-1.1754944e-38))] * most
    full = {"seed": 2**31, "returns": returns, "lengths": [2**31 - 1] * most}
    check_savable(replace(policy, evaluation=full))


def test_spaces_whose_weights_are_too_many_are_refused(tmp_path):
    spec = EnvSpec("own/x", spaces.Discrete(2**20), spaces.Discrete(2**20), 10)
    config = agents.policies.network.NetworkConfig(hidden=())
    with pytest.raises(UserError, match="of weights: must be at most 4 GiB"):
        agents.policies.network.Network(spec.observation_space, spec.action_space, config)
