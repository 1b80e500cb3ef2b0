"""A strategy of one's own: EGGROLL whose sigma follows the success of its steps."""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from flax import struct

import agents
import envs
import es_rl


@struct.dataclass
class State:
    es: Any
    sigma: Any
    last: Any
    params = property(lambda self: self.es.params)
    generation = property(lambda self: self.es.generation)


@dataclass(frozen=True)
class Adaptive:
    inner: Any
    population_size = property(lambda self: self.inner.population_size)
    episode_sharing = property(lambda self: self.inner.episode_sharing)
    num_draws = property(lambda self: self.inner.num_draws)

    def init(self, key, params):
        return State(self.inner.init(key, params), jnp.float32(0.2), jnp.float32(-jnp.inf))

    def ask(self, state):
        return replace(self.inner.ask(state.es), sigma=state.sigma)

    def tell(self, state, noise, fitness):
        es, metrics = self.inner.tell(state.es, noise, fitness)
        mean = jnp.mean(fitness)
        sigma = state.sigma * jnp.where(mean > state.last, 1.1, 1 / 1.1)
        return State(es, sigma, mean), metrics


def make_agent():
    strategy = Adaptive(es_rl.eggroll(population_size=32))
    return agents.make("eggroll", envs.make("probe/policy_reward"), strategy=strategy, hidden=(8,))
