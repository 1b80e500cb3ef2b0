"""A fitness of one's own: the mean return, less what episodes differ."""

import agents
import envs


def careful(returns):
    """Fitness (N,) of returns (N, K)."""
    return returns.mean(axis=1) - 0.5 * returns.std(axis=1)


def make_agent():
    env = envs.make("probe/policy_reward")
    options = {"population_size": 32, "episodes_per_member": 4, "hidden": (8,)}
    return agents.make("eggroll", env, fitness=careful, **options)
