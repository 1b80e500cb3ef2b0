"""Cholesky factors and triangular solves of many small matrices at once, on a CPU.

Brax and MJX solve a small linear system per environment in every step. On a CPU, JAX calls LAPACK
for one matrix after another. jaxlib 0.10 splits such a batch into tasks for the thread pool that
also runs the program: once every thread of the pool waits for such tasks, no thread is left to run
them, and the program deadlocks. With as many devices as cores this happens soon. jaxlib 0.11, which
needs Python 3.12, does not use these tasks. Reports about the same code are jax-ml/jax#36927
(slower than before) and #39292 (a damaged heap).

The functions here process all matrices of a batch together, in plain array operations that cannot
deadlock. On 2 cores they also make a generation of Brax's ant 1.3 times as fast as with LAPACK.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives
from jax.interpreters import mlir

_LARGEST = 64
"""The most rows that are eliminated one by one. Larger matrices are split into halves, so that
matrix products do most of the work."""


@cache
def install() -> None:
    """Make all programs that JAX traces from now on use the functions below on a CPU."""
    for primitive, function in (
        (primitives.cholesky_p, cholesky),
        (primitives.triangular_solve_p, triangular_solve),
    ):
        rule = mlir.lower_fun(function, multiple_results=False)
        mlir.register_lowering(primitive, rule, platform="cpu")


def cholesky(a: jax.Array, **unused: Any) -> jax.Array:
    """Return the lower Cholesky factors of Hermitian matrices (..., n, n).

    A matrix that is not positive definite gives NaN.

    Args:
      a: the matrices; only their lower triangles are used.
      **unused: other parameters of JAX's primitive, which say how to differentiate it.
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
      a: (..., n, n) matrices; only one triangle is used.
      b: (..., n, k), or (..., k, n) if `left_side` is False.
      left_side: whether to solve op(a) x = b rather than x op(a) = b.
      lower: whether the lower rather than the upper triangle of `a` is used.
      transpose_a: whether op transposes.
      conjugate_a: whether op conjugates.
      unit_diagonal: whether to take the diagonal as 1 and ignore its stored values.
      **unused: other parameters of JAX's primitive.
    """
    a = jnp.conj(a) if conjugate_a else a
    if transpose_a:
        a, lower = jnp.swapaxes(a, -1, -2), not lower
    if left_side:
        return _substitute(a, b, lower, unit_diagonal)
    a, b = jnp.swapaxes(a, -1, -2), jnp.swapaxes(b, -1, -2)
    return jnp.swapaxes(_substitute(a, b, not lower, unit_diagonal), -1, -2)


def _substitute(a: jax.Array, b: jax.Array, lower: bool, unit_diagonal: bool) -> jax.Array:
    """Solve a x = b by forward (lower triangle) or backward (upper triangle) substitution."""
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
