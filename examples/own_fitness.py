"""Say what is good: three fitnesses teach three tempers on the same road.

    python examples/own_fitness.py

A driver chooses a speed at every step. Faster earns more, and crashes more often. The mean of a
member's episodes rewards risk; the mean of their worst quarter (cvar) does not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from gymnasium import spaces

import agents
import envs


class Road:
    distance = spaces.Box(0.0, 10.0, (1,), np.float32)
    speed = spaces.Box(0.0, 2.0, (1,), np.float32)
    spec = envs.EnvSpec("mine/road", distance, speed, max_episode_steps=10)

    def reset(self, key):
        return self._state(jnp.float32(0), jnp.array(False), jnp.int32(0))

    def step(self, state, action, key):
        crashed = jax.random.bernoulli(key, 0.03 * action[0] ** 3)
        return self._state(action[0], crashed, state.steps + 1)

    def _state(self, reward, crashed, steps):
        arrived = ~crashed & (steps == 10)
        return envs.State((), 10.0 - jnp.full(1, steps), reward, crashed, arrived, steps)


def careful(returns):
    """Fitness (N,) of the returns (N, K) of K episodes each."""
    return returns.mean(axis=1) - returns.std(axis=1)


def better_half(fitness, group_size):
    """Weights (N,) of fitness (N,): who is above the median counts, and how far does not matter."""
    return jnp.where(fitness > jnp.median(fitness), 1.0, -1.0)


def main(env_steps: int = 300_000, seed: int = 0):
    settings = {"population_size": 64, "episodes_per_member": 16, "hidden": (8,)}
    for name, own in {
        "mean": {"fitness": "mean"},
        "cvar": {"fitness": "cvar"},
        "careful": {"fitness": careful, "shaping": better_half},
    }.items():
        agent = agents.make("eggroll", Road(), **settings, **own)
        result = agents.train(agent, env_steps=env_steps, seed=seed, eval_episodes=1024)
        returns = np.sort(result.evaluation.returns)
        print(f"{name:7}: mean {returns.mean():5.2f}, worst quarter {returns[:256].mean():5.2f}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
