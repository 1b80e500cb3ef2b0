"""The population success rule: sigma follows whether generations beat those before them."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from envs.errors import UserError
from es_rl import shaping
from es_rl.noise import Noise, PyTree
from es_rl.strategies.adapted_sigma import AdaptedSigma, AdaptedState, within_bounds

MEMORY = 0.3
"""c_s of the paper, the weight of the latest generation in the smoothed success."""


@struct.dataclass
class SuccessSigmaState(AdaptedState):
    """The state of `SuccessSigma`."""

    ratio: jax.Array
    """Scalar, sigma over the sigma of the first generation."""
    success: jax.Array
    """Scalar, s of the paper: the smoothed success minus the target."""
    fitness: jax.Array
    """(N,) float32, the fitness of the last generation whose update was made; NaN before the
    first."""


@dataclass(frozen=True)
class SuccessSigma(AdaptedSigma):
    """A strategy whose sigma grows while generations beat those before and shrinks otherwise.

    This is the population success rule of LM-CMA-ES (Loshchilov 2014, arXiv 1404.5520). Every
    member is compared with every member of the generation before. The success z is the share of
    these comparisons that the new generation wins minus the share that it loses, from -1 to 1,
    which the paper computes from the ranks of both generations together. Then
    s <- 0.7 s + 0.3 (z - target), and sigma <- sigma exp(learning_rate s). The learning rate of the
    paper (1 / d_s) is 1.

    The 1/5 success rule (Rechenberg 1973) counts the offspring that beat their parent. Here the
    parent, the mean policy, plays no episodes, and beating it by luck would count as success. The
    comparison of whole generations averages over the luck of N^2 pairs, and needs neither the
    parent nor any scale of fitness. Fitness must mean the same in every generation.

    The target of the paper, 0.25, is for fitness with little noise. If episodes differ by luck more
    than by parameters, even generations that improve win hardly more comparisons than they lose.
    Sigma then shrinks by exp(-0.25 learning_rate) a generation, which leaves still less to see of
    the parameters, until only luck is left. With the target 0, luck moves sigma in neither
    direction in the mean. In return, sigma stays as it is where generations no longer improve.
    """

    target: float = 0.0
    """The success at which sigma stays as it is, from -1 to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.target <= 1:
            raise UserError(f"target={self.target}: must be from -1 to 1")

    def init(self, key: jax.Array, params: PyTree) -> SuccessSigmaState:
        """Make the first state; arguments and errors as in `EvolutionStrategy.init`."""
        unknown = jnp.full(self.population_size, jnp.nan, jnp.float32)
        es = self.inner.init(key, params)
        return SuccessSigmaState(es, jnp.float32(1), jnp.float32(0), unknown)

    def ask(self, state: SuccessSigmaState) -> Noise:
        """Draw this generation's noise."""
        noise = self.inner.ask(state.es)
        return replace(noise, sigma=noise.sigma * state.ratio)

    def tell(
        self, state: SuccessSigmaState, noise: Noise, fitness: jax.Array
    ) -> tuple[SuccessSigmaState, dict[str, jax.Array]]:
        """Make one update; arguments, skipped updates and errors as in `EvolutionStrategy.tell`.

        Returns:
          The next state, and the metrics of `EvolutionStrategy.tell`, with this generation's sigma.
        """
        es, metrics = self.inner.tell(state.es, noise, fitness)
        fitness, _ = shaping.replace_nonfinite(jnp.asarray(fitness, jnp.float32))
        z = success(fitness, state.fitness) - self.target
        smoothed = (1 - MEMORY) * state.success + MEMORY * z
        smoothed = jnp.where(jnp.isnan(state.fitness).any(), 0.0, smoothed)
        ratio = within_bounds(state.ratio * jnp.exp(self.learning_rate * smoothed))
        kept = (state.ratio, state.success, state.fitness)
        ratio, smoothed, fitness = (
            jnp.where(metrics["update_skipped"] == 1, old, new)
            for old, new in zip(kept, (ratio, smoothed, fitness), strict=True)
        )
        return SuccessSigmaState(es, ratio, smoothed, fitness), metrics


def success(now: jax.Array, before: jax.Array) -> jax.Array:
    """Return the share of pairs in which `now` (N,) is higher, minus that in which it is lower."""
    n = now.size
    # The mean rank of N numbers among 2 N exceeds that of the others by z N / 2 of 2 N - 1 steps.
    ranks = shaping.centered_rank(jnp.concatenate([now, before]))
    return (ranks[:n].mean() - ranks[n:].mean()) * (2 * n - 1) / n
