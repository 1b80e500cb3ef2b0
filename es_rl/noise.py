"""Perturbations: one draw of noise per leaf of a parameter tree.

A leaf that the network uses as a matrix W (in, out), or as a stack of matrices, gets the factors
(A, B) of a low-rank perturbation E = A B^T / sqrt(r) for each matrix (EGGROLL, arXiv 2511.16652,
section 3); every other leaf, and every leaf of OpenES, gets full Gaussian noise. Noise is a pure
function of (key, generation, parameter path, draw): any process can regenerate any member, and two
layers of equal shape differ.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

PyTree: TypeAlias = Any


FullRank: TypeAlias = Literal["vectors", "tensors"]
"""The leaves with full noise: those that are no matrices, or also all of three or more axes."""


class View(NamedTuple):
    """How a leaf is a matrix, or a stack of matrices.

    The axes that are neither rows nor columns enumerate the matrices of a stack. A kernel
    (layers, in, heads, features), of which each layer is contracted over `in`, has rows (1,) and
    columns (2, 3).
    """

    rows: tuple[int, ...]
    """The axes that together are the rows of a matrix."""
    columns: tuple[int, ...]
    """The axes that together are the columns of a matrix."""


Layout: TypeAlias = tuple[View | None, ...]
"""One entry per parameter leaf, in `jax.tree.leaves` order; None for a leaf that is no matrix."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """Factors of D low-rank draws for a leaf of matrices: E = A B^T / sqrt(r).

    For a leaf of shape (in, out) they are A^T (D, r, in) and B^T (D, r, out). Draws and ranks are
    neighbours in memory, so that the update is a matrix product of the arrays as they lie, and the
    forward reads each factor row by row.
    """

    a: jax.Array
    """A^T of each draw, (D, r, *shape of the leaf without the axes of columns)."""
    b: jax.Array
    """B^T of each draw, (D, r, *shape of the leaf without the axes of rows)."""
    view: View = field(metadata={"static": True}, default=View((0,), (1,)))
    """Which axes of the leaf are rows and which are columns."""


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


def layout_of_shapes(params: PyTree) -> Layout:
    """How leaves are matrices as far as their shapes tell.

    A leaf of two axes is a matrix. One of more axes is seen as a matrix whose columns are its last
    axis, as for the kernel of a convolution. Where the network uses it in another way, the
    perturbation has a low rank in this view nevertheless; `es_rl.layout` looks at the network.
    """
    return tuple(view_of_axes(range(jnp.ndim(leaf))) for leaf in jax.tree.leaves(params))


def view_of_axes(axes: Sequence[int]) -> View | None:
    """The view whose columns are the last of some axes; None for fewer than two."""
    return View(tuple(axes[:-1]), tuple(axes[-1:])) if len(axes) > 1 else None


def sample(
    key: jax.Array,
    params: PyTree,
    *,
    draws: int,
    rank: int | None,
    layout: Layout | None = None,
    full_rank: FullRank = "vectors",
    freeze_vectors: bool = False,
) -> tuple[LeafNoise, ...]:
    """Draw the noise of one generation.

    Args:
      key: the generation's key (typed).
      params: parameter tree of float arrays.
      draws: D, the number of draws.
      rank: r of the low-rank factors, or None for full noise in every leaf.
      layout: how the network uses the leaves; their shapes decide unless given.
      full_rank: "vectors" gives full noise to the leaves that are no matrices, "tensors" to every
        leaf of three or more axes as well.
      freeze_vectors: whether leaves that get full noise at any rank stay as they are.
    """

    def leaf_noise(path: tuple[Any, ...], leaf: jax.Array, view: View | None) -> LeafNoise:
        if full_rank == "tensors" and leaf.ndim > 2:
            view = None
        if freeze_vectors and view is None:
            return Frozen()
        # A stable hash of the path, so that adding a layer does not renumber the others.
        path_key = jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode()))
        keys = jax.vmap(lambda d: jax.random.fold_in(path_key, d))(jnp.arange(draws))
        if rank is None or view is None:
            normal = jax.vmap(lambda k: jax.random.normal(k, leaf.shape, leaf.dtype))
            return Full(normal(keys))
        return _factors(keys, leaf, view, rank)

    leaves = jax.tree_util.tree_leaves_with_path(params)
    views = layout_of_shapes(params) if layout is None else layout
    return tuple(
        leaf_noise(path, leaf, view) for (path, leaf), view in zip(leaves, views, strict=True)
    )


def _factors(keys: jax.Array, leaf: jax.Array, view: View, rank: int) -> LowRank:
    """One draw per key."""

    def shape(without: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size for axis, size in enumerate(leaf.shape) if axis not in without)

    a, b = shape(view.columns), shape(view.rows)
    split, length = math.prod(a), math.prod(a) + math.prod(b)
    # One stream for both factors: A^T and B^T lie side by side in it.
    block = jax.vmap(lambda k: jax.random.normal(k, (rank, length), leaf.dtype))(keys)
    lead = block.shape[:2]
    return LowRank(
        block[:, :, :split].reshape(*lead, *a), block[:, :, split:].reshape(*lead, *b), view
    )


def sum_of_draws(coefficients: jax.Array, noise: LowRank) -> jax.Array:
    """The sum of c_d A_d B_d^T / sqrt(r) over the draws, for coefficients c (D,).

    Draws and ranks are summed in one matrix product, for each matrix of a stack.
    """
    a, b, view = noise.a, noise.b, noise.view
    # Axes as numbers: draw, rank, then those of the leaf.
    axes = range(a.ndim + len(view.columns) - 2)
    in_a = [0, 1, *(axis + 2 for axis in axes if axis not in view.columns)]
    in_b = [0, 1, *(axis + 2 for axis in axes if axis not in view.rows)]
    c = coefficients.reshape(-1, *(1,) * (a.ndim - 1)) / math.sqrt(a.shape[1])
    return jnp.einsum(c * a, in_a, b, in_b, [axis + 2 for axis in axes])
