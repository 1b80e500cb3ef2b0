"""PPO: its parts by hand, and that it learns what can be learned."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces

import agents
import envs
from agents.policies import distributions
from agents.ppo.agent import PPOAgent
from agents.ppo.config import PPOConfig
from agents.ppo.update import Transitions, generalized_advantages, without_nonfinite
from tests.envs import image_envs  # noqa: F401 - registers them

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
MULTI = spaces.MultiDiscrete([3, 2], start=[5, 0])
SMALL = {
    "num_envs": 16,
    "num_steps": 16,
    "minibatch_size": 64,
    "num_epochs": 4,
    "hidden": (8,),
    "learning_rate": 0.02,
}


@functools.cache
def env(name, **kwargs):
    return envs.make(name, **kwargs)


def test_advantages_by_hand():
    gamma, trust = 0.9, 0.8
    values, next_values = np.array([1.0, 2.0, 3.0]), np.array([2.0, 7.0, 4.0])

    def advantages(terminated, truncated):
        batch = Transitions(
            *[None] * 3,
            reward=jnp.array([[1.0], [1.0], [1.0]]),
            terminated=jnp.array([[False], [terminated], [False]]),
            ended=jnp.array([[False], [terminated or truncated], [False]]),
            next_vector=None,
        )
        args = jnp.asarray(values)[:, None], jnp.asarray(next_values)[:, None], gamma, trust
        return generalized_advantages(batch, *args)[:, 0]

    deltas = 1 + gamma * next_values - values
    running = deltas[1] + gamma * trust * deltas[2]
    wanted = [deltas[0] + gamma * trust * running, running, deltas[2]]
    np.testing.assert_allclose(advantages(False, False), wanted, rtol=1e-6)
    # A truncated step is worth what is expected to follow (7), but takes nothing of the next
    # episode; after a terminated one nothing follows.
    truncated = [deltas[0] + gamma * trust * deltas[1], deltas[1], deltas[2]]
    np.testing.assert_allclose(advantages(False, True), truncated, rtol=1e-6)
    last = 1 - values[1]
    terminated = [deltas[0] + gamma * trust * last, last, deltas[2]]
    np.testing.assert_allclose(advantages(True, False), terminated, rtol=1e-6)


def test_probabilities_of_box_actions():
    head, log_std = jnp.array([[0.5, -1.0]] * 4000), jnp.array([0.0, -1.0])
    raw = distributions.sample(BOX, head, log_std, jax.random.key(0))
    normal = scipy.stats.norm(np.array([0.5, -1.0]), np.exp([0.0, -1.0]))
    np.testing.assert_allclose(
        distributions.log_prob(BOX, head, log_std, raw), normal.logpdf(raw).sum(axis=1), rtol=1e-4
    )
    np.testing.assert_allclose(raw.mean(axis=0), normal.mean(), atol=0.06)
    np.testing.assert_allclose(raw.std(axis=0), normal.std(), rtol=0.05)
    found = distributions.entropy(BOX, head, log_std)
    np.testing.assert_allclose(found, np.full(4000, normal.entropy().sum()), rtol=1e-5)


def test_probabilities_of_categories():
    head = jnp.array([[0.0, 1.0, 2.0, 0.0, 3.0]] * 4000)
    raw = distributions.sample(MULTI, head, jnp.zeros(5), jax.random.key(0))
    first, second = scipy.special.softmax([0.0, 1.0, 2.0]), scipy.special.softmax([0.0, 3.0])
    np.testing.assert_allclose(np.bincount(raw[:, 0]) / 4000, first, atol=0.03)
    np.testing.assert_allclose(np.bincount(raw[:, 1]) / 4000, second, atol=0.03)
    log_prob = distributions.log_prob(MULTI, head, jnp.zeros(5), raw)
    np.testing.assert_allclose(log_prob, np.log(first[raw[:, 0]] * second[raw[:, 1]]), rtol=1e-5)
    entropy = scipy.stats.entropy(first) + scipy.stats.entropy(second)
    found = distributions.entropy(MULTI, head, jnp.zeros(5))
    np.testing.assert_allclose(found, np.full(4000, entropy), rtol=1e-5)


@pytest.mark.parametrize(
    ("probe", "budget"), [("policy_reward", 30_000), ("delayed_reward", 60_000)]
)
def test_solves_the_probes(probe, budget):
    agent = agents.make("ppo", env(f"probe/{probe}"), **SMALL)
    best = agent.env.spec.reward_threshold
    result = agents.train(agent, env_steps=budget, target_return=best, eval_every=5)
    assert result.evaluation.mean == best
    assert result.env_steps < budget


@pytest.mark.slow
def test_a_single_environment_learns_the_pendulum():
    """Only from starts all over its circle: from a few it ends below -360."""
    agent = agents.make("ppo", env("gymnasium/phys2d/Pendulum-v0"), num_envs=1)
    result = agents.train(agent, env_steps=100_000, seed=0, eval_every=1000)
    assert result.evaluation.mean > -300


@pytest.mark.slow
def test_devices_share_the_environments():
    settings = {**SMALL, "num_envs": 64, "normalize_rewards": True, "anneal_steps": 4 * 64 * 16}
    agent = agents.make("ppo", env("probe/policy_reward"), **settings)
    assert agent.stage.mesh.size == 2
    state = agent.init(jax.random.key(0))
    rates = []
    for _ in range(4):
        state, metrics = agent.step(state)
        rates.append(float(metrics["learning_rate"]))
        assert metrics["env_steps"] == 64 * 16
    np.testing.assert_allclose(rates, 0.02 * np.array([1.0, 0.75, 0.5, 0.25]), rtol=1e-5)
    assert metrics["return_mean"] > 4
    assert state.moments.count == 4 * 64 * 16
    assert agent.stage.mesh.size == len(state.discounted.sharding.device_set)


def test_rewards_are_scaled_by_discounted_returns():
    agent = agents.make("ppo", env("probe/policy_reward"), **SMALL, normalize_rewards=True)
    rng = np.random.default_rng(0)
    reward, ended = rng.normal(3.0, 2.0, (16, 16)), rng.random((16, 16)) < 0.2
    total, seen = np.zeros(16), []
    for now, end in zip(reward, ended, strict=True):
        total = total * agent.config.gamma + now
        seen.append(total)
        total = np.where(end, 0.0, total)
    state = agent.init(jax.random.key(0))
    batch = Transitions(*[None] * 3, jnp.asarray(reward), None, jnp.asarray(ended), None)
    # One device by the name of the axis that moments are summed over.
    discounted, _, scaled = jax.vmap(
        agent._scale_rewards, in_axes=None, axis_name="devices", axis_size=1
    )(state, batch)
    np.testing.assert_allclose(discounted[0], total, rtol=1e-4)
    np.testing.assert_allclose(scaled[0], reward / np.std(seen), rtol=1e-3)


def test_on_the_host_it_learns_and_repeats_itself():
    settings = {**SMALL, "num_envs": 8, "num_steps": 32, "gamma": 0.98, "gae_lambda": 0.8}
    agent = agents.make("ppo", env("gymnasium/CartPole-v1", workers=2), **settings)

    def run():
        state = agent.init(jax.random.key(0))
        agent.compile(state)
        earned = []
        for _ in range(30):
            state, metrics = agent.step(state)
            earned.append(float(metrics["return_mean"]))
        return earned

    first, again = run(), run()
    assert first == again
    assert np.mean(first[-3:]) > 2 * np.mean(first[:3])


@pytest.mark.slow
def test_failing_environments_are_counted_and_replaced():
    envs.import_module("tests.envs.faulty")
    broken = envs.make("gymnasium/Faulty-v0", kind="exit", every=2, workers=2)
    agent = agents.make("ppo", broken, num_envs=4, num_steps=64, minibatch_size=64, hidden=(4,))
    _, metrics = agent.step(agent.init(jax.random.key(0)))
    assert metrics["failed_episodes"] > 0
    assert metrics["return_mean"] == 20, "of the episodes that ended"
    assert all(np.isfinite(metrics[name]) for name in ("policy_loss", "value_loss"))
    hopeless = envs.make("gymnasium/Faulty-v0", kind="raise", every=1, workers=2)
    agent = agents.make("ppo", hopeless, num_envs=2, num_steps=192, minibatch_size=64, hidden=(4,))
    with pytest.raises(RuntimeError, match="episodes failed and none ended: ArithmeticError"):
        agent.step(agent.init(jax.random.key(0)))


@pytest.mark.slow
def test_resets_that_fail_are_tried_again_but_not_for_ever():
    envs.import_module("tests.envs.faulty")
    settings = {"num_envs": 2, "num_steps": 32, "minibatch_size": 64, "hidden": (4,)}
    now_and_then = envs.make("gymnasium/Faulty-v0", kind="reset", every=2, workers=2)
    agent = agents.make("ppo", now_and_then, **settings)
    _, metrics = agent.step(agent.init(jax.random.key(0)))
    assert metrics["return_mean"] == 20
    never = envs.make("gymnasium/Faulty-v0", kind="reset", every=1, workers=2)
    agent = agents.make("ppo", never, **settings)
    with pytest.raises(RuntimeError, match="resets failed: ArithmeticError: nothing to start"):
        agent.step(agent.init(jax.random.key(0)))


def test_its_policies_are_saved_and_loaded(tmp_path):
    agent = agents.make("ppo", env("brax/fast"), **SMALL)
    policy = agent.snapshot(agent.init(jax.random.key(0)))
    policy.save(tmp_path)
    obs = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(agents.load_policy(tmp_path)(obs), policy(obs))
    assert agents.load_policy(tmp_path).agent == "ppo"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"network": "gru"}, "network=gru: must be mlp or cnn"),
        ({"num_steps": 0}, "num_steps=0: must be at least 1"),
        ({"minibatch_size": 100}, "minibatch_size=100: must divide num_envs x num_steps, 2048"),
        ({"gamma": 1.5}, "gamma=1.5: must be from 0 to 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be greater than 0"),
        ({"entropy_coefficient": -1.0}, "entropy_coefficient=-1.0: must be at least 0"),
        ({"devices": 3}, "devices=3: must divide num_envs, 8, and minibatch_size, 64"),
        ({"minibatch_size": 1}, "minibatch_size=1: must be at least 2, as advantages are standard"),
        ({"minibatch_size": 8, "devices": 8}, "devices=8: .* each device needs at least 2"),
        ({"num_envs": 1, "num_steps": 1}, "num_steps=1: must be at least 2 with num_envs=1"),
        ({"anneal_steps": 0}, "anneal_steps=0: must be at least 1"),
    ],
)
def test_settings_out_of_range_are_named(settings, says):
    with pytest.raises(ValueError, match=says):
        PPOConfig(**settings)


def test_few_environments_stay_on_one_device():
    assert PPOConfig(num_envs=8).most_devices(4) == 1
    assert PPOConfig(num_envs=96, num_steps=2, minibatch_size=96).most_devices(4) == 3
    two_on_each = PPOConfig(num_envs=256, num_steps=2, minibatch_size=4)
    assert two_on_each.most_devices(4) == 2
    assert isinstance(agents.make("ppo", env("probe/recall"), **SMALL), PPOAgent)


@pytest.mark.parametrize("name", ["image/spot", "gymnasium/Spot-v0"])
def test_a_batch_keeps_images_as_they_came(name):
    small = {"num_envs": 2, "num_steps": 4, "minibatch_size": 8, "hidden": (4,)}
    where = {"workers": 1} if name.startswith("gymnasium/") else {}
    with agents.make("ppo", env(name, **where), **small) as agent:
        state = agent.init(jax.random.key(0))
        shared, keys = agent._shared_and_keys(state)
        _, collected, _ = agent.collector.collect(shared, state.episodes, keys)
        batch, usable = without_nonfinite(agent._transitions(state, collected))
    assert usable.all()
    for images in (batch.vector, batch.next_vector):
        assert images.dtype == jnp.uint8
        assert images.shape == (4, 2, 6, 6, 1)
        np.testing.assert_array_equal(images.max(axis=(2, 3, 4)), np.full((4, 2), 255))
    # The policy reads them as numbers from 0 to 1.
    image, network = np.asarray(batch.vector[0, 0]), agent.network
    _, outputs = network.apply(state.params["actor"], (), jnp.float32(image) / 255)
    head = agent.learner.head(state.params, batch.vector)
    np.testing.assert_allclose(head[0, 0], outputs, atol=1e-6)


def test_a_batch_keeps_numbers_standardised():
    network = agents.make("ppo", env("probe/policy_reward"), **SMALL).network
    stored = network.stored(jnp.array([3.0]), np.array([1.0]), np.array([4.0]))
    assert stored.dtype == jnp.float32
    assert stored == network.scaled(stored) == 0.5
