"""Perturbations: one draw of noise per leaf of a parameter tree.

A leaf that the network uses as a matrix W (in, out), or as a stack of matrices, gets the factors
(A, B) of a low-rank perturbation E = A B^T / sqrt(r) for each matrix (EGGROLL, arXiv 2511.16652,
section 3). Every other leaf, and every leaf of OpenES, gets full Gaussian noise. Noise is a pure
function of (key, generation, parameter path, draw), so any process can regenerate the noise of any
member, and two layers of the same shape get different noise.
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
"""Which leaves get full noise: with "vectors" those that are not matrices, with "tensors" also all
leaves of three or more axes."""


class View(NamedTuple):
    """Which axes of a leaf form a matrix.

    Axes that are neither rows nor columns enumerate the matrices of a stack. For example, a kernel
    (layers, in, heads, features), of which each layer is contracted over `in`, has rows (1,) and
    columns (2, 3).
    """

    rows: tuple[int, ...]
    """The axes that together are the rows of a matrix."""
    columns: tuple[int, ...]
    """The axes that together are the columns of a matrix."""


Layout: TypeAlias = tuple[View | None, ...]
"""One entry per parameter leaf, in `jax.tree.leaves` order; None if the leaf is not a matrix."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """The factors of D low-rank draws E = A B^T / sqrt(r) for a leaf that is a matrix or a stack.

    For a leaf of shape (in, out) they are A^T (D, r, in) and B^T (D, r, out). The draw and rank
    axes come first, so that the update is a matrix product without transposing the arrays, and the
    forward pass reads each factor contiguously.
    """

    a: jax.Array
    """A^T of each draw, (D, r, *shape of the leaf without the column axes)."""
    b: jax.Array
    """B^T of each draw, (D, r, *shape of the leaf without the row axes)."""
    view: View = field(metadata={"static": True}, default=View((0,), (1,)))
    """Which axes of the leaf are rows and which are columns."""


class Full(NamedTuple):
    """D full Gaussian draws for a leaf of any shape."""

    e: jax.Array
    """The noise of each draw, (D, *shape of the leaf)."""


class Frozen(NamedTuple):
    """A leaf that is neither perturbed nor updated."""


LeafNoise: TypeAlias = LowRank | Full | Frozen


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Noise:
    """The perturbations of one generation.

    Member i evaluates params + sign(i) * sigma * E[draw(i)]; see `draw_and_sign`.
    """

    leaves: tuple[LeafNoise, ...]
    """The noise of each parameter leaf, in `jax.tree.leaves` order."""
    sigma: jax.Array
    """Scalar, the standard deviation of the perturbations."""
    noise_reuse: int = field(metadata={"static": True})
    """The number of members that share a draw. With 0 or 1 each member has its own draw."""


def num_draws(population_size: int, noise_reuse: int) -> int:
    """Return the number of draws for a population."""
    return population_size // max(noise_reuse, 1)


def draw_and_sign(member: jax.Array, noise_reuse: int) -> tuple[jax.Array, jax.Array]:
    """Return the draws and signs of members, arrays of the same shape as `member` (integers).

    The signs alternate (+ - + -) among the members that share a draw.
    """
    if noise_reuse <= 1:
        return member, jnp.ones_like(member, jnp.float32)
    return member // noise_reuse, 1.0 - 2.0 * (member % 2).astype(jnp.float32)


def layout_of_shapes(params: PyTree) -> Layout:
    """Guess the layout of leaves from their shapes alone.

    A leaf of two axes is a matrix. A leaf of more axes is taken as a matrix whose columns are its
    last axis, as for the kernel of a convolution. If the network uses such a leaf differently, the
    perturbation still has low rank in this view. `es_rl.layout` looks at the network instead.
    """
    return tuple(view_of_axes(range(jnp.ndim(leaf))) for leaf in jax.tree.leaves(params))


def view_of_axes(axes: Sequence[int]) -> View | None:
    """Return the view whose columns are the last of some axes; None for fewer than two axes."""
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
      params: the parameter tree of float arrays.
      draws: D, the number of draws.
      rank: r, the rank of the low-rank factors, or None for full noise in every leaf.
      layout: how the network uses the leaves; derived from their shapes unless given.
      full_rank: "vectors" gives full noise to the leaves that are not matrices, "tensors" also to
        every leaf of three or more axes.
      freeze_vectors: whether the leaves that `full_rank` selects are frozen instead.
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
    """Draw the low-rank factors of a leaf, one draw per key."""

    def shape(without: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size for axis, size in enumerate(leaf.shape) if axis not in without)

    a, b = shape(view.columns), shape(view.rows)
    split, length = math.prod(a), math.prod(a) + math.prod(b)
    # One random block holds both factors: A^T and then B^T.
    block = jax.vmap(lambda k: jax.random.normal(k, (rank, length), leaf.dtype))(keys)
    lead = block.shape[:2]
    return LowRank(
        block[:, :, :split].reshape(*lead, *a), block[:, :, split:].reshape(*lead, *b), view
    )


def sum_of_draws(coefficients: jax.Array, noise: LowRank) -> jax.Array:
    """Return the sum of c_d A_d B_d^T / sqrt(r) over the draws d, for coefficients c (D,).

    For each matrix of a stack, one matrix product sums over draws and ranks.
    """
    a, b, view = noise.a, noise.b, noise.view
    # The axis numbers for einsum: 0 is the draw, 1 the rank, and then come the leaf's axes.
    axes = range(a.ndim + len(view.columns) - 2)
    in_a = [0, 1, *(axis + 2 for axis in axes if axis not in view.columns)]
    in_b = [0, 1, *(axis + 2 for axis in axes if axis not in view.rows)]
    c = coefficients.reshape(-1, *(1,) * (a.ndim - 1)) / math.sqrt(a.shape[1])
    return jnp.einsum(c * a, in_a, b, in_b, [axis + 2 for axis in axes])
