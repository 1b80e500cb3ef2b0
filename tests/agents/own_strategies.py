"""A strategy and shapings as users write them."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

import es_rl


@struct.dataclass
class Adapted:
    """The state of a strategy of ours, and what is adapted."""

    inner: Any
    factor: jax.Array
    """On sigma."""
    mean: jax.Array
    """The mean fitness of the generation before."""

    @property
    def params(self):
        return self.inner.params

    @property
    def generation(self):
        return self.inner.generation


@dataclass(frozen=True)
class AdaptiveSigma:
    """EGGROLL whose sigma grows while the mean fitness rises, and shrinks otherwise."""

    population_size: int = 16
    rank: int = 1

    @property
    def inner(self):
        return es_rl.eggroll(self.population_size, self.rank, 0.2, optax.adam(0.1))

    @property
    def episode_sharing(self):
        return self.inner.episode_sharing

    @property
    def num_draws(self):
        return self.inner.num_draws

    def init(self, key, params):
        return Adapted(self.inner.init(key, params), jnp.float32(1), jnp.float32(-jnp.inf))

    def ask(self, state):
        noise = self.inner.ask(state.inner)
        return replace(noise, sigma=noise.sigma * state.factor)

    def tell(self, state, noise, fitness):
        inner, metrics = self.inner.tell(state.inner, noise, fitness)
        mean = metrics["fitness_mean"]
        factor = state.factor * jnp.where(mean > state.mean, 1.25, 0.8)
        return Adapted(inner, factor, mean), {**metrics, "sigma_factor": factor}


def best_half(fitness, group_size):
    """1 for the better half of each group, 0 for the others."""
    groups = fitness.reshape(-1, group_size or fitness.size)
    return (groups > jnp.median(groups, axis=1, keepdims=True)).astype(float).ravel()
