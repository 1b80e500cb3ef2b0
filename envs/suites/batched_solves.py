"""Cholesky factors and triangular solves of many small matrices at once, on a CPU.

Brax and MJX solve a small linear system per environment in every step. JAX leaves them to LAPACK,
one matrix after another, and jaxlib 0.10 splits such a batch into tasks for the pool of threads
that also runs the program: once every thread of the pool waits for such tasks, none is left to do
them, and the program stands still for ever. With as many devices as cores that is soon the case.
jaxlib 0.11, which needs Python 3.12, does without these tasks; reports that touch the same code are
jax-ml/jax#36927 (slower than before) and #39292 (a damaged heap).

The functions here do all matrices of a batch side by side, in plain array operations that wait for
nothing. On 2 cores they also make a generation of Brax's ant 1.3 times as fast as with LAPACK.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives
from jax.interpreters import mlir

_LARGEST = 64
"""Rows that are eliminated one by one; larger matrices are halved, so that products of matrices do
most of the work."""


@cache
def install() -> None:
    """Have programs that JAX traces from now on use the functions below on a CPU."""
    for primitive, function in (
        (primitives.cholesky_p, cholesky),
        (primitives.triangular_solve_p, triangular_solve),
    ):
        rule = mlir.lower_fun(function, multiple_results=False)
        mlir.register_lowering(primitive, rule, platform="cpu")


def cholesky(a: jax.Array, **unused: Any) -> jax.Array:
    """The lower factors of Hermitian matrices (..., n, n); NaN where one is not positive definite.

    Args:
      a: the matrices, of which the lower triangles are read.
      **unused: further parameters of JAX's primitive, which say how to differentiate it.
    """
    n = a.shape[-1]
    if n > _LARGEST:
        half = n // 2
        top = cholesky(a[..., :half, :half])
        left = triangular_solve(
            top, a[..., half:, :half], left_side=False, lower=True, transpose_a=True,
            conjugate_a=True, unit_diagonal=False,
        )  # fmt: skip
        rest = cholesky(a[..., half:, half:] - left @ _adjoint(left))
        above = jnp.zeros_like(a[..., :half, half:])
        return jnp.block([[top, above], [left, rest]])
    rows = jnp.arange(n)

    def eliminate(j: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, factor = carry
        column = lax.dynamic_index_in_dim(left, j, -1, keepdims=False)
        pivot = jnp.sqrt(lax.dynamic_index_in_dim(column, j, -1))
        column = jnp.where(rows >= j, column / pivot, 0)
        left = left - column[..., :, None] * jnp.conj(column)[..., None, :]
        return left, lax.dynamic_update_index_in_dim(factor, column, j, -1)

    return lax.fori_loop(0, n, eliminate, (a, jnp.zeros_like(a)))[1]


def triangular_solve(
    a: jax.Array,
    b: jax.Array,
    *,
    left_side: bool,
    lower: bool,
    transpose_a: bool,
    conjugate_a: bool,
    unit_diagonal: bool,
    **unused: Any,
) -> jax.Array:
    """Solve op(a) x = b, or x op(a) = b, for triangular matrices.

    Args:
      a: (..., n, n) of which one triangle is read.
      b: (..., n, k), or (..., k, n) where `a` stands on the right.
      left_side: whether `a` stands on the left of x.
      lower: which triangle of `a` it is.
      transpose_a: whether op transposes.
      conjugate_a: whether op conjugates.
      unit_diagonal: whether the diagonal counts as 1, whatever is there.
      **unused: further parameters of JAX's primitive.
    """
    a = jnp.conj(a) if conjugate_a else a
    if transpose_a:
        a, lower = jnp.swapaxes(a, -1, -2), not lower
    if left_side:
        return _substitute(a, b, lower, unit_diagonal)
    a, b = jnp.swapaxes(a, -1, -2), jnp.swapaxes(b, -1, -2)
    return jnp.swapaxes(_substitute(a, b, not lower, unit_diagonal), -1, -2)


def _substitute(a: jax.Array, b: jax.Array, lower: bool, unit_diagonal: bool) -> jax.Array:
    """Solve a x = b, from the first row of a lower triangle, from the last one of an upper."""
    n = a.shape[-1]
    if n > _LARGEST:
        half = n // 2
        first, second = slice(half), slice(half, n)
        if not lower:
            first, second = second, first
        x = _substitute(a[..., first, first], b[..., first, :], lower, unit_diagonal)
        b = b[..., second, :] - a[..., second, first] @ x
        y = _substitute(a[..., second, second], b, lower, unit_diagonal)
        return jnp.concatenate([x, y] if lower else [y, x], axis=-2)

    def substitute(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        b, x = carry
        i = k if lower else n - 1 - k
        row = lax.dynamic_index_in_dim(b, i, -2, keepdims=False)
        column = lax.dynamic_index_in_dim(a, i, -1, keepdims=False)
        if not unit_diagonal:
            row = row / lax.dynamic_index_in_dim(column, i, -1)
        b = b - column[..., :, None] * row[..., None, :]
        return b, lax.dynamic_update_index_in_dim(x, row, i, -2)

    return lax.fori_loop(0, n, substitute, (b, jnp.zeros_like(b)))[1]


def _adjoint(a: jax.Array) -> jax.Array:
    return jnp.conj(jnp.swapaxes(a, -1, -2))
