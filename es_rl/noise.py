"""Perturbations: one draw of noise per leaf of a parameter tree.

A matrix leaf W (in, out) gets the factors (A, B) of a low-rank perturbation
E = A B^T / sqrt(r) (EGGROLL, arXiv 2511.16652, section 3); every other leaf, and every leaf of
OpenES, gets full Gaussian noise. Noise is a pure function of (key, generation, parameter path,
draw): any process can regenerate any member, and two layers of equal shape differ.
"""

import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

PyTree: TypeAlias = Any


class LowRank(NamedTuple):
    """Factors of D low-rank draws for a matrix of shape (in, out): E = A B^T / sqrt(r).

    Stored as A^T and B^T, so that draws and ranks are neighbours in memory: the update is then a
    matrix product of the arrays as they lie, and the forward reads each factor row by row.
    """

    a: jax.Array
    """A^T of each draw, (D, r, in)."""
    b: jax.Array
    """B^T of each draw, (D, r, out)."""


class Full(NamedTuple):
    """D full Gaussian draws for a leaf of any shape."""

    e: jax.Array
    """(D, *shape)."""


class Frozen(NamedTuple):
    """A leaf that is neither perturbed nor updated."""


LeafNoise: TypeAlias = LowRank | Full | Frozen


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Noise:
    """One generation's perturbations.

    Member i evaluates params + sign(i) * sigma * E of draw(i), see `draw_and_sign`.
    """

    leaves: tuple[LeafNoise, ...]
    """One entry per parameter leaf, in `jax.tree.leaves` order."""
    sigma: jax.Array
    """Scalar, the standard deviation of the perturbations."""
    noise_reuse: int = field(metadata={"static": True})
    """How many members share a draw; 0 and 1 both mean a draw of its own for each."""


def num_draws(population_size: int, noise_reuse: int) -> int:
    """How many draws serve a population."""
    return population_size // max(noise_reuse, 1)


def draw_and_sign(member: jax.Array, noise_reuse: int) -> tuple[jax.Array, jax.Array]:
    """The draw of a member (any integer shape) and its sign: + - + - along members that share."""
    if noise_reuse <= 1:
        return member, jnp.ones_like(member, jnp.float32)
    return member // noise_reuse, 1.0 - 2.0 * (member % 2).astype(jnp.float32)


def is_matrix(leaf: jax.Array) -> bool:
    """Whether a leaf gets low-rank noise (when the strategy has a rank)."""
    return jnp.ndim(leaf) == 2


def sample(
    key: jax.Array,
    params: PyTree,
    *,
    draws: int,
    rank: int | None,
    freeze_vectors: bool = False,
) -> tuple[LeafNoise, ...]:
    """Draw the noise of one generation.

    Args:
      key: the generation's key (typed).
      params: parameter tree of float arrays.
      draws: D, the number of draws.
      rank: r of the low-rank factors, or None for full noise in every leaf.
      freeze_vectors: leave every leaf that is not a matrix as it is.
    """

    def leaf_noise(path: tuple[Any, ...], leaf: jax.Array) -> LeafNoise:
        if freeze_vectors and not is_matrix(leaf):
            return Frozen()
        # A stable hash of the path, so that adding a layer does not renumber the others.
        path_key = jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode()))
        keys = jax.vmap(lambda d: jax.random.fold_in(path_key, d))(jnp.arange(draws))
        if rank is None or not is_matrix(leaf):
            normal = jax.vmap(lambda k: jax.random.normal(k, leaf.shape, leaf.dtype))
            return Full(normal(keys))
        rows, columns = leaf.shape
        # One stream for both factors: A^T and B^T lie side by side in it.
        block = jax.vmap(lambda k: jax.random.normal(k, (rank, rows + columns), leaf.dtype))(keys)
        return LowRank(block[:, :, :rows], block[:, :, rows:])

    leaves_with_path = jax.tree_util.tree_leaves_with_path(params)
    return tuple(leaf_noise(path, leaf) for path, leaf in leaves_with_path)
