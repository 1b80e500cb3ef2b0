"""A shaping of one's own: only the better half of the population counts."""

import jax.numpy as jnp

import agents
import envs


def better_half(fitness, group_size):
    """Weights (N,) for fitness (N,): above the median 1, else -1."""
    return jnp.where(fitness > jnp.median(fitness), 1.0, -1.0)


def make_agent():
    env = envs.make("probe/policy_reward")
    return agents.make("eggroll", env, population_size=32, hidden=(8,), shaping=better_half)
