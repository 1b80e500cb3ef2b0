"""Training starts from a saved policy, of another agent too, and refuses those that do not fit."""

import functools
import json

import jax
import numpy as np
import pytest

import agents
import envs
from agents.policies.starting import network_settings
from envs.errors import UserError
from experiments import cli
from tests.agents import own_networks
from tests.envs import image_envs  # noqa: F401 - registers them

PPO = {"num_envs": 4, "num_steps": 16, "minibatch_size": 32, "num_epochs": 2}
PENDULUM = "gymnasium/phys2d/Pendulum-v0"
ACTING = {"hidden": (8,), "activation": "tanh", "normalize_observations": True, "squash": "clip"}


@functools.cache
def of_ppo():
    agent = agents.make("ppo", envs.make(PENDULUM), **PPO, **ACTING)
    state = agent.init(jax.random.key(0))
    for _ in range(2):
        state, _ = agent.step(state)
    return agent.snapshot(state)


@pytest.mark.slow
def test_evolution_starts_from_a_policy_of_ppo(tmp_path):
    of_ppo().save(tmp_path)
    policy = agents.load_policy(tmp_path)
    settings = {**network_settings(policy), "population_size": 16}
    assert (settings["squash"], settings["hidden"]) == ("clip", (8,))
    agent = agents.make("eggroll", envs.make(PENDULUM), **settings)
    state = agent.with_policy(agent.init(jax.random.key(1)), policy)
    obs = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    assert len(np.unique(policy(obs))) > 50
    np.testing.assert_array_equal(agent.snapshot(state).weights.mean, policy.weights.mean)
    np.testing.assert_array_equal(agent.snapshot(state)(obs), policy(obs))
    assert float(state.moments.count) == 2 * 4 * 16
    state, _ = agent.step(state)
    # The network was trained with these statistics, so they stay as they are.
    after = agent.snapshot(state).weights
    assert float(after.num_observations) == 2 * 4 * 16
    np.testing.assert_array_equal(after.mean, policy.weights.mean)
    np.testing.assert_array_equal(after.std, policy.weights.std)
    assert not np.array_equal(agent.snapshot(state)(obs), policy(obs))


def test_a_run_starts_from_a_policy_and_ppo_does_too():
    agent = agents.make("ppo", envs.make(PENDULUM), **PPO, **ACTING)
    fresh = agent.init(jax.random.key(0))
    state = agent.with_policy(fresh, of_ppo())
    obs = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    np.testing.assert_array_equal(agent.snapshot(state)(obs), of_ppo()(obs))
    jax.tree.map(np.testing.assert_array_equal, state.params["critic"], fresh.params["critic"])
    after = agent.snapshot(agent.step(state)[0]).weights
    np.testing.assert_array_equal(after.std, of_ppo().weights.std)
    one, two = (
        agents.train(agent, env_steps=1, eval_episodes=4, initial=initial)
        for initial in (None, of_ppo())
    )
    assert one.evaluation.mean != two.evaluation.mean


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden": (9,)}, r"has hidden=\(8,\), and the agent \(9,\): must be an agent with"),
        ({"squash": "tanh"}, "initial: its policy has squash=clip, and the agent tanh"),
        ({"activation": "relu"}, "activation=tanh, and the agent relu"),
        ({"normalize_observations": False}, "normalize_observations=True, and the agent False"),
        ({"stochastic_evaluation": True}, "stochastic_evaluation=False, and the agent True"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(settings, says):
    settings = {**ACTING, **settings}
    agent = agents.make("eggroll", envs.make(PENDULUM), population_size=16, **settings)
    with pytest.raises(UserError, match=says):
        agents.train(agent, env_steps=1, initial=of_ppo())


@functools.cache
def on_images(name="eggroll", **settings):
    if name == "eggroll":
        settings = {"population_size": 4, **settings}
    return agents.make(name, envs.make("image/spot"), **settings)


@functools.cache
def start_of(agent):
    return agent.init(jax.random.key(0))


def test_networks_of_ones_own_are_compared_by_their_parameters():
    own = on_images(network=own_networks.Linen())
    policy = own.snapshot(start_of(own))
    same = on_images(network=own_networks.Linen())
    obs = np.random.default_rng(0).integers(256, size=(20, 6, 6, 1), dtype=np.uint8)
    started = same.snapshot(same.with_policy(same.init(jax.random.key(1)), policy))
    np.testing.assert_array_equal(started(obs), policy(obs))
    other = on_images(network=own_networks.Linen(width=5))
    with pytest.raises(UserError, match=r"parameter params/Conv_0/bias of its policy is \[4\]"):
        other.with_policy(start_of(other), policy)
    built_in = on_images()
    with pytest.raises(UserError, match="policy has network=.*Linen, and the agent cnn"):
        built_in.with_policy(start_of(built_in), policy)


def test_what_is_no_policy_to_start_from_is_refused():
    agent, random = on_images(), on_images("random")
    state = start_of(agent)
    with pytest.raises(UserError, match="initial: its policy has observation_space Box.*must be"):
        agent.with_policy(state, of_ppo())
    with pytest.raises(UserError, match="initial: its policy, of agent random, has no network"):
        agent.with_policy(state, random.snapshot(start_of(random)))
    with pytest.raises(UserError, match="agent=random: must be another agent"):
        random.with_policy(0, agent.snapshot(state))


@pytest.mark.slow
def test_a_run_that_started_from_a_policy_goes_on_from_its_checkpoint_or_needs_it(tmp_path):
    def agent():
        return agents.make("eggroll", envs.make(PENDULUM), population_size=16, **ACTING)

    def run(name, **options):
        options = {"eval_episodes": 4, "checkpoint_every": 1, **options}
        return agents.train(agent(), out=tmp_path / name, **options)

    run("kept", env_steps=1, initial=of_ppo())
    assert run("kept", env_steps=10_000, resume=True).new_generations > 0
    config = json.loads((tmp_path / "kept" / "config.json").read_text())
    assert config["initial"] == of_ppo().digest
    run("lost", env_steps=1, checkpoint_every=None, checkpoint_seconds=None, initial=of_ppo())
    with pytest.raises(UserError, match="started from a policy and has no checkpoint yet: that"):
        run("lost", env_steps=10_000, resume=True)
    other = agents.make("ppo", envs.make(PENDULUM), **PPO, **ACTING)
    other = other.snapshot(other.init(jax.random.key(5)))
    for name in ("lost", "kept"):
        with pytest.raises(UserError, match="initial must be the policy that the run there"):
            run(name, resume=True, initial=other)
    assert run("lost", resume=True, env_steps=10_000, initial=of_ppo()).new_generations > 0


def train(*arguments):
    """The command's exit code."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", PENDULUM, *map(str, arguments)])
    return stopped.value.code


@pytest.mark.slow
def test_the_command_starts_from_a_policy(tmp_path, capsys):
    of_ppo().save(tmp_path / "p")
    flags = ("--init-from", tmp_path / "p", "--population-size", 16, "--env-steps", 1)
    assert train(*flags, "--eval-episodes", 4, "--out", tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["hidden"] == [8]
    assert (config["settings"]["squash"], config["initial"]) == ("clip", of_ppo().digest)
    capsys.readouterr()
    assert train(*flags, "--squash", "tanh", "--out", tmp_path / "none") == 2
    assert "initial: its policy has squash=clip, and the agent tanh" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_command_refuses_what_is_no_policy(tmp_path, capsys):
    agent = on_images("random")
    agent.snapshot(start_of(agent)).save(tmp_path / "random")
    for name, says in (
        ("random", "its actor is of the kind random: must be a built-in network"),
        ("nowhere", "there is no policy.json in it"),
    ):
        assert train("--init-from", tmp_path / name, "--out", tmp_path / "none") == 2
        assert says in capsys.readouterr().err


def test_the_command_does_not_go_on_with_objects_of_the_users(tmp_path, capsys):
    with on_images(network=own_networks.Linen()) as agent:
        agents.train(agent, out=tmp_path, env_steps=1, eval_episodes=2)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--resume", str(tmp_path), "--import", "tests.envs.image_envs"])
    assert stopped.value.code == 2
    assert "network=tests.agents.own_networks.Linen is an object" in capsys.readouterr().err
