"""Rewards that training alone sees: `reward_offset`."""

import jax
import numpy as np
import pytest

import agents
import envs
from envs.errors import UserError

ENV = "gymnasium/phys2d/CartPole-v1"
SMALL = {
    "eggroll": {
        "population_size": 8,
        "hidden": (),
        "optimizer": "sgd",
        "normalize_observations": False,
    },
    "ppo": {"num_envs": 2, "num_steps": 32, "minibatch_size": 32, "num_epochs": 1, "hidden": (4,)},
}


def one_step(name, **settings):
    agent = agents.make(name, envs.make(ENV), **SMALL[name], **settings)
    first = agent.snapshot(agent.init(jax.random.key(0))).weights.params
    state, metrics = agent.step(agent.init(jax.random.key(0)))
    return first, agent.snapshot(state).weights.params, metrics


def same(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def test_without_the_reward_for_being_alive_evolution_has_nothing_to_learn_from():
    first, after, metrics = one_step("eggroll", reward_offset=-1.0)
    assert same(first, after)
    assert metrics["return_mean"] > 5  # the returns that are logged are those of the task
    _, moved, plain = one_step("eggroll")
    assert not same(first, moved)
    assert metrics["return_mean"] == plain["return_mean"]


def test_ppo_learns_from_shifted_rewards_and_logs_the_real_returns():
    _, shifted, metrics = one_step("ppo", reward_offset=-1.0)
    _, plain, as_it_is = one_step("ppo")
    assert not same(shifted, plain)
    assert metrics["return_mean"] == as_it_is["return_mean"] > 5


@pytest.mark.parametrize("name", ["eggroll", "ppo"])
def test_an_offset_that_is_not_finite_is_refused(name):
    with pytest.raises(UserError, match="reward_offset=nan"):
        agents.make(name, envs.make(ENV), reward_offset=float("nan"))
