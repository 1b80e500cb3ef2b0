"""PGPE's learned standard deviation, one for every leaf of the parameters."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from envs.errors import UserError
from es_rl.noise import Frozen, Full, LeafNoise, LowRank, Noise, PyTree
from es_rl.strategies.adapted_sigma import AdaptedSigma, AdaptedState, within_bounds

MAX_CHANGE = 0.2
"""The largest relative change of a sigma in a generation (arXiv 2008.02387, section 2)."""


@struct.dataclass
class LearnedSigmaState(AdaptedState):
    """The state of `LearnedSigma`."""

    ratios: jax.Array
    """(leaves,), the sigma of each leaf, in `jax.tree.leaves` order, over the sigma of the first
    generation. Those of frozen leaves stay 1."""


@dataclass(frozen=True)
class LearnedSigma(AdaptedSigma):
    """A strategy that follows the fitness gradient with respect to sigma as well, one per leaf.

    This is PGPE (Sehnke et al. 2010, "Parameter-exploring policy gradients"; Toklu et al. 2020,
    arXiv 2008.02387, section 2) with a sigma per leaf in place of one per parameter, and for
    low-rank noise as well. With the mean w_d of the shaped fitness of the members that share draw
    d, and the score S_d / sigma_l of the draw, the derivative of the expected fitness with respect
    to the sigma of leaf l is estimated by mean_d(w_d S_d) / sigma_l.

    For full noise e of n numbers, S = |e|^2 - n. Low-rank noise A B^T / sqrt(r) with the sigma of
    the leaf is that of Gaussian factors sigma_l A and B, or A and sigma_l B. Hence |A|^2 - n_A and
    |B|^2 - n_B, where n_A and n_B are the numbers of entries of the factors, are both exact scores,
    and so is w (|A|^2 - n_A) + (1 - w) (|B|^2 - n_B). Its variance, 2 w^2 n_A + 2 (1 - w)^2 n_B, is
    least for w = n_B / (n_A + n_B), which gives S = n (|A|^2 / n_A + |B|^2 / n_B - 2) with
    n = n_A n_B / (n_A + n_B) and, as for full noise, the variance 2 n.

    The step is sigma_l += learning_rate sigma_l mean_d(w_d S_d) / n, at most `MAX_CHANGE` of
    sigma_l. For full noise this is the mean of the steps that PGPE makes for the n parameters of
    the leaf. It is twice the natural gradient, as the Fisher information of sigma_l is
    2 n / sigma_l^2. Shaped fitness is taken to have a mean of 0 and to be of order 1, as after
    "zscore" or "centered_rank". The paper's learning rate is 0.1.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.top_draws is not None:
            raise UserError(
                f"top_draws={self.inner.top_draws}: must not be given where sigma is learned, as "
                "the best draws are no fair sample of the distances from the mean"
            )

    def init(self, key: jax.Array, params: PyTree) -> LearnedSigmaState:
        """Make the first state; arguments and errors as in `EvolutionStrategy.init`."""
        es = self.inner.init(key, params)
        return LearnedSigmaState(es, jnp.ones(len(jax.tree.leaves(es.params)), jnp.float32))

    def ask(self, state: LearnedSigmaState) -> Noise:
        """Draw this generation's noise, with the noise of each leaf scaled by its ratio."""
        return _scaled(self.inner.ask(state.es), state.ratios)

    def tell(
        self, state: LearnedSigmaState, noise: Noise, fitness: jax.Array
    ) -> tuple[LearnedSigmaState, dict[str, jax.Array]]:
        """Make one update; arguments, skipped updates and errors as in `EvolutionStrategy.tell`.

        Returns:
          The next state, and the metrics of `EvolutionStrategy.tell`. Here sigma is the geometric
          mean over all parameters that are not frozen, and sigma_min and sigma_max are the smallest
          and the largest of their leaves, all of this generation.
        """
        shaped, _, _ = self.inner.shape(fitness)
        # The strategy divides by sigma alone and gets noise with the ratio in it. The gradient with
        # respect to a leaf has the noise without the ratio, divided by sigma times the ratio.
        es, metrics = self.inner.tell(state.es, _scaled(noise, state.ratios**-2), fitness)
        sizes = jnp.array([_degrees(eps) for eps in noise.leaves], jnp.float32)
        slopes = noise.sigma * state.ratios * self.sigma_gradient(state, noise, shaped)
        change = jnp.clip(self.learning_rate * slopes / sizes, -MAX_CHANGE, MAX_CHANGE)
        ratios = within_bounds(state.ratios * (1 + change))
        ratios = jnp.where(metrics["update_skipped"] == 1, state.ratios, ratios)
        return LearnedSigmaState(es, ratios), {**metrics, **_sigmas(state, noise)}

    def sigma_gradient(
        self, state: LearnedSigmaState, noise: Noise, shaped: jax.Array
    ) -> jax.Array:
        """Estimate the derivative of the expected fitness with respect to the sigma of each leaf.

        Args:
          state: the state that `ask` was called with.
          noise: the noise from `ask`.
          shaped: (N,), the shaped fitness.

        Returns:
          (leaves,) float32; 0 for frozen leaves.
        """
        of_draws = shaped.reshape(self.num_draws, -1).mean(axis=1)
        scores = [_score(eps, ratio) for eps, ratio in zip(noise.leaves, state.ratios, strict=True)]
        slopes = jnp.stack([jnp.mean(of_draws * score) for score in scores])
        return slopes / (noise.sigma * state.ratios)


def _scaled(noise: Noise, factors: jax.Array) -> Noise:
    """Multiply the noise of each leaf by its factor, factors (leaves,)."""

    def scaled(eps: LeafNoise, factor: jax.Array) -> LeafNoise:
        match eps:
            case LowRank(a=a):
                return replace(eps, a=a * factor.astype(a.dtype))
            case Full(e):
                return Full(e * factor.astype(e.dtype))
            case _:
                return eps

    pairs = zip(noise.leaves, factors, strict=True)
    return replace(noise, leaves=tuple(scaled(eps, factor) for eps, factor in pairs))


def _degrees(eps: LeafNoise) -> float:
    """n, half of the variance of the score S of a leaf; 1 for a frozen leaf."""
    match eps:
        case LowRank(a=a, b=b):
            n_a, n_b = a[0].size, b[0].size
            return n_a * n_b / (n_a + n_b)
        case Full(e):
            return float(e[0].size)
        case _:
            return 1.0


def _score(eps: LeafNoise, ratio: jax.Array) -> jax.Array:
    """S (D,) of the draws of a leaf whose noise has been scaled by `ratio`; 0 for a frozen leaf."""

    def mean_square(x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(x), axis=tuple(range(1, x.ndim)), dtype=jnp.float32)

    match eps:
        case LowRank(a=a, b=b):
            return _degrees(eps) * (mean_square(a) / ratio**2 + mean_square(b) - 2)
        case Full(e):
            return _degrees(eps) * (mean_square(e) / ratio**2 - 1)
        case _:
            return jnp.float32(0)


def _sigmas(state: LearnedSigmaState, noise: Noise) -> dict[str, jax.Array]:
    """The metrics sigma, sigma_min and sigma_max; none of them if all leaves are frozen."""
    moving = [i for i, eps in enumerate(noise.leaves) if not isinstance(eps, Frozen)]
    if not moving:
        return {}
    sizes = jnp.array([leaf.size for leaf in jax.tree.leaves(state.params)], jnp.float32)
    where = jnp.array(moving)
    sigmas, sizes = noise.sigma * state.ratios[where], sizes[where]
    mean = jnp.exp(jnp.sum(sizes * jnp.log(sigmas)) / jnp.sum(sizes))
    return {"sigma": mean, "sigma_min": sigmas.min(), "sigma_max": sigmas.max()}
