"""What the strategies that adapt sigma share: they are wrappers of an `EvolutionStrategy`."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from envs.errors import UserError
from es_rl.noise import PyTree
from es_rl.strategies.evolution import ESState, EvolutionStrategy

FURTHEST = 1000.0
"""No sigma is adapted by more than this factor in either direction. Without a bound, the sigma of a
fitness without noise shrinks for ever, until 1 / sigma overflows in the gradient."""


@struct.dataclass
class AdaptedState:
    """The state of a strategy that adapts sigma."""

    es: ESState
    """The state of the strategy that is wrapped."""

    @property
    def params(self) -> PyTree:
        """The unperturbed parameters, which are the parameters of the mean policy."""
        return self.es.params

    @property
    def generation(self) -> jax.Array:
        """int32 scalar, the number of generations so far."""
        return self.es.generation


@dataclass(frozen=True)
class AdaptedSigma:
    """The part of the protocol `Strategy` that does not depend on how sigma is adapted."""

    inner: EvolutionStrategy
    """The strategy that makes the noise and the update of the parameters; its sigma, a number, is
    the one of the first generation."""
    learning_rate: float = 0.1
    """How fast sigma is adapted."""

    def __post_init__(self) -> None:
        if callable(self.inner.sigma):
            raise UserError("sigma=a schedule: must be a number where sigma is adapted")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate={self.learning_rate}: must be greater than 0")

    @property
    def population_size(self) -> int:
        """N, the number of members."""
        return self.inner.population_size

    @property
    def episode_sharing(self) -> int:
        """The number of neighbouring members that play the same episodes."""
        return self.inner.episode_sharing

    @property
    def num_draws(self) -> int:
        """D, the number of draws of noise in a generation."""
        return self.inner.num_draws


def within_bounds(ratio: jax.Array) -> jax.Array:
    """Bound sigmas that are given as multiples of the first generation's sigma."""
    return jnp.clip(ratio, 1 / FURTHEST, FURTHEST)
