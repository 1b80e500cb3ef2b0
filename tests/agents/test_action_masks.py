"""Actions that an observation forbids are never taken."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import agents
import envs
from agents.policies import distributions, masks
from agents.policies.network import NetworkConfig, network_for
from envs.errors import UserError
from envs.host.nested import flat_space

STEPS = 8
ALLOWED = spaces.Dict(
    {"action_mask": spaces.MultiBinary(7), "where": spaces.Box(-5.0, 5.0, (2,), np.float32)}
)
ACTIONS = {"one": spaces.Discrete(7), "two": spaces.MultiDiscrete([3, 4])}
"""Two action spaces of seven categories."""


class Allowed:
    """Pays 1 for a legal action; which of them are legal is drawn anew in each step."""

    def __init__(self, action_space="one"):
        space = ACTIONS[action_space]
        self.first = np.array([0]) if action_space == "one" else np.array([0, 3])
        self.spec = envs.EnvSpec(
            f"masked/{action_space}",
            flat_space(ALLOWED),
            space,
            STEPS,
            raw_observation_space=ALLOWED,
        )

    def _state(self, key, reward, steps):
        mask = jax.random.bernoulli(key, 0.4, (7,))
        mask = mask.at[jnp.asarray(self.first + 2)].set(True)  # at least one in each dimension
        where = 3 + jax.random.normal(key, (2,))
        obs = jnp.concatenate([mask.astype(jnp.float32), where])
        no = jnp.zeros((), bool)
        return envs.State(mask, obs, reward, no, steps >= STEPS, steps)

    def reset(self, key):
        return self._state(key, jnp.float32(0), jnp.int32(0))

    def step(self, state, action, key):
        reward = state.inner[jnp.atleast_1d(action) + self.first].all()
        return self._state(key, reward.astype(jnp.float32), state.steps + 1)


class AllowedOnHost(gymnasium.Env):
    """The same on the host, as Gymnasium's users write it."""

    observation_space = spaces.Dict(
        {"observation": spaces.Box(-1, 1, (1,)), "action_mask": spaces.Box(0, 1, (4,), np.int8)}
    )
    action_space = spaces.Discrete(4, start=3)

    def _observation(self):
        self.mask = self.np_random.integers(0, 2, 4).astype(np.int8)
        self.mask[self.np_random.integers(4)] = 1
        return {"observation": np.zeros(1, np.float32), "action_mask": self.mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        reward, self.steps = float(self.mask[action - 3]), self.steps + 1
        return self._observation(), reward, False, self.steps >= STEPS, {}


def test_members_take_legal_actions():
    settings = {"population_size": 16, "hidden": (), "sigma": 1.0, "sample_actions": True}
    with agents.make("eggroll", Allowed("two"), **settings) as agent:
        state, metrics = agent.step(agent.init(jax.random.key(0)))
        assert metrics["return_min"] == STEPS
        assert len(state.moments.mean) == 2


def test_ppo_takes_legal_actions():
    settings = {"num_envs": 8, "num_steps": 8, "minibatch_size": 64, "num_epochs": 1}
    with agents.make("ppo", Allowed("one"), **settings) as agent:
        state = agent.init(jax.random.key(0))
        for _ in range(2):
            state, metrics = agent.step(state)
            assert metrics["return_min"] == STEPS
            assert metrics["update_skipped"] == 0
        played = agents.evaluate(agent.snapshot(state), agent.env, episodes=8)
        assert set(played.returns) == {STEPS}


@pytest.mark.parametrize("masked", [True, False])
def test_random_actions_are_legal_unless_told_otherwise(masked):
    with agents.make("random", Allowed("two"), episodes=32, action_mask=masked) as agent:
        _, metrics = agent.step(agent.init(jax.random.key(0)))
    assert (metrics["return_min"] == STEPS) == masked


def test_a_gymnasium_environment_may_give_a_mask(tmp_path):
    env = envs.from_gymnasium(AllowedOnHost, id="mine/allowed").placed(workers=1)
    with agents.make("eggroll", env, population_size=8, hidden=(), sigma=1.0) as agent:
        state, metrics = agent.step(agent.init(jax.random.key(0)))
        assert metrics["return_min"] == STEPS
        agent.snapshot(state).save(tmp_path)
    policy = agents.load_policy(tmp_path)
    for category in range(4):
        mask = (np.arange(4) == category).astype(np.int8)
        assert policy({"observation": np.zeros(1), "action_mask": mask}) == 3 + category


@pytest.mark.parametrize("name", ["random", "zero"])
def test_a_saved_policy_keeps_to_the_mask(name, tmp_path):
    for masked in (True, False):
        with agents.make(name, Allowed(), action_mask=masked) as agent:
            agent.snapshot(agent.init(jax.random.key(0))).save(tmp_path)
        policy = agents.load_policy(tmp_path)
        obs = np.tile(np.array([0, 0, 0, 0, 0, 1, 0, 0, 0], np.float32), (64, 1))
        assert (policy(obs) == 5).all() == masked


def test_a_policy_with_a_mask_starts_no_agent_without():
    small = {"population_size": 8, "hidden": ()}
    with agents.make("eggroll", Allowed(), action_mask=False, **small) as free:
        policy = free.snapshot(free.init(jax.random.key(0)))
    with agents.make("eggroll", Allowed(), **small) as masked:
        state = masked.init(jax.random.key(0))
        with pytest.raises(UserError, match="its policy has action_mask=False, and the agent True"):
            masked.with_policy(state, policy)


def test_a_mask_is_not_standardised():
    spec = Allowed().spec
    network = network_for(spec, NetworkConfig(hidden=()))
    assert network.statistics_size == 2
    obs = jnp.array([0, 1, 1, 0, 0, 0, 1, 5.0, 9.0])
    seen = network.observe(obs, jnp.array([1.0, 3.0]), jnp.array([2.0, 3.0]))
    np.testing.assert_array_equal(seen, [0, 1, 1, 0, 0, 0, 1, 2, 2])
    np.testing.assert_array_equal(network.statistics(seen), [2, 2])


def test_a_mask_that_forbids_everything_leaves_numbers():
    logits = masks.legal(jnp.arange(3.0), jnp.zeros(5), slice(1, 4))
    space = spaces.Discrete(3)
    assert np.isclose(distributions.entropy(space, logits, None), np.log(3))
    one = masks.legal(jnp.arange(3.0), jnp.array([0, 0, 1.0, 0, 0]), slice(1, 4))
    assert distributions.entropy(space, one, None) == 0
    assert distributions.log_prob(space, one, None, jnp.array([1])) == 0
    slope = jax.grad(
        lambda x: distributions.entropy(
            space, masks.legal(x, jnp.array([1.0, 1, 0]), slice(0, 3)), None
        )
    )(jnp.array([1.0, 2.0, 3.0]))
    assert np.isfinite(slope).all()
    assert slope[2] == 0
    assert (slope[:2] != 0).all()


def test_a_mask_of_another_size_is_refused():
    env = Allowed()
    env.spec = envs.EnvSpec(
        "masked/odd", flat_space(ALLOWED), spaces.Discrete(5), STEPS, raw_observation_space=ALLOWED
    )
    with pytest.raises(envs.UserError, match="must be MultiBinary or Box of 5 numbers"):
        agents.make("ppo", env)
    agents.make("ppo", env, action_mask=False).close()
