"""Rules for the products of a perturbed array W + A B^T with another array: x W + (x A) B^T."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from es_rl.perturbed.arrays import Perturbed, Rule, dense, take_rows


class Contraction(NamedTuple):
    """A `dot_general` of a perturbed array and an array x."""

    matrix: Perturbed
    """The perturbed array."""
    x: jax.Array
    """The other operand."""
    left: bool
    """Whether the perturbed array is the left operand."""
    contracted: tuple[int, ...]
    """The axes of the perturbed array that are summed over."""
    x_contracted: tuple[int, ...]
    """The axes of x that are summed over, in the same order."""
    batch: tuple[int, ...]
    """The batch axes of the perturbed array."""
    x_batch: tuple[int, ...]
    """The batch axes of x, in the same order."""

    @property
    def free(self) -> list[int]:
        """The axes of the perturbed array that are neither summed over nor batch axes."""
        taken = (*self.contracted, *self.batch)
        return [axis for axis in range(self.matrix.weight.ndim) if axis not in taken]


def contraction(inputs: list[Any], params: dict[str, Any]) -> Contraction:
    """Describe a `dot_general`. If both operands are perturbed, the smaller one is formed."""
    lhs, rhs = inputs
    left = isinstance(lhs, Perturbed)
    if left and isinstance(rhs, Perturbed):
        left = lhs.weight.size >= rhs.weight.size
    (l_contracted, r_contracted), (l_batch, r_batch) = params["dimension_numbers"]
    if left:
        return Contraction(lhs, dense(rhs), left, l_contracted, r_contracted, l_batch, r_batch)
    return Contraction(rhs, dense(lhs), left, r_contracted, l_contracted, r_batch, l_batch)


def _dot_general(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    found = contraction(inputs, params)
    first, second = found.matrix.factors
    if _size(first, found.contracted) < _size(second, found.contracted):
        first, second = second, first
    if _size(second, found.contracted) > 1:
        # Both factors vary along the summed axes, so x cannot be multiplied by one factor first.
        return None
    options = {name: params[name] for name in ("precision", "preferred_element_type")}
    operands = (found.matrix.weight, found.x) if found.left else (found.x, found.matrix.weight)
    shared = jax.lax.dot_general(*operands, params["dimension_numbers"], **options)
    is_vector = found.x.ndim == len(found.contracted) and _size(first, found.free) == 1
    times_factors = _vector_times_factors if is_vector else _times_factors
    own = times_factors(found, first, second, options)
    return [shared + own.reshape(shared.shape).astype(shared.dtype)]


def _size(factor: jax.Array, axes: Sequence[int]) -> int:
    """Return how many entries a factor has along some axes of the weight."""
    return math.prod(factor.shape[axis + 1] for axis in axes)


def _vector_times_factors(
    found: Contraction, first: jax.Array, second: jax.Array, options: dict[str, Any]
) -> jax.Array:
    """Compute (x A) B^T if all axes of x, and all axes of A but the rank, are summed over.

    This is the case of one observation per member. Vmapped over members, it becomes elementwise
    products and sums that XLA fuses. A batch of dot products of length `in` would instead be one
    small call per member on a CPU.
    """
    x = found.x.transpose(found.x_contracted).reshape(1, -1)
    order = (0, *(axis + 1 for axis in (*found.contracted, *found.free)))
    a = first.transpose(order).reshape(first.shape[0], -1)
    b = second.reshape(second.shape[0], -1)
    numbers = (((1,), (0,)), ((), ()))
    x_a = jax.lax.dot_general(x * a, jnp.ones(x.size, x.dtype), numbers, **options)
    return (x_a[:, None] * b).sum(0)


def _times_factors(
    found: Contraction, first: jax.Array, second: jax.Array, options: dict[str, Any]
) -> jax.Array:
    """Compute (x A) B^T for any x: multiply by the first factor, then by the second."""
    n, x = found.matrix.weight.ndim, found.x
    # The axis numbers for einsum: the axes of W, then the free axes of x, then the rank.
    rank = n + x.ndim
    x_axes = list(range(n, rank))
    of_x = (*found.x_contracted, *found.x_batch)
    for axis, x_axis in zip((*found.contracted, *found.batch), of_x, strict=True):
        x_axes[x_axis] = axis
    in_second = [k for k in range(n) if second.shape[k + 1] > 1]
    in_first = [k for k in range(n) if first.shape[k + 1] > 1 or k not in in_second]
    x_free = [k for k in x_axes if k >= n]
    out = [*found.batch, *(found.free + x_free if found.left else x_free + found.free)]
    kept = [k for k in dict.fromkeys(x_axes + in_first) if k in in_second or k in out]
    first = first.reshape(first.shape[0], *(first.shape[k + 1] for k in in_first))
    second = second.reshape(second.shape[0], *(second.shape[k + 1] for k in in_second))
    x_a = jnp.einsum(x, x_axes, first, [rank, *in_first], [*kept, rank], **options)
    return jnp.einsum(x_a, [*kept, rank], second, [rank, *in_second], out, **options)


def _gather(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    """Gather from a perturbed table.

    Rows of a matrix, as of an embedding, are formed. Entries of a larger table, such as matrices of
    a stack, stay perturbed.
    """
    taken = take_rows(inputs, params)
    is_matrix = taken is not None and inputs[0].weight.ndim == 2
    return list(map(dense, taken)) if taken and is_matrix else taken


def _convolution(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    """Add a convolution with W and a convolution with A, whose r outputs are multiplied by B.

    Milliseconds on 2 CPU cores for 64 members with one observation each, rank 1 (rank 4 in
    brackets), for the three convolutions of the Nature DQN network on images of 84x84x4:

        only W, the same for all members             10-18   4       3
        this function                                22 (22) 6 (6)   4 (4)
        A on patches, gathered once for W and A      35 (35) 6 (5)   4 (4)
        formed kernels, one per member               29 (29) 30 (31) 21 (23)
        formed kernels, one per member, on patches   34 (32) 8 (8)   5 (6)

    With 256 members and 3x3 kernels of 4 and 16 channels on images of 10x10 and 8x8, this function
    takes 3.7 and 3.5 ms, and formed kernels take 3.7 and 4.4 ms. Formed kernels were faster only
    for tiny convolutions, such as 3 filters on 8x8 images of 2 channels (1.0 against 1.5 ms).
    """
    x, kernel = inputs
    if not isinstance(kernel, Perturbed) or isinstance(x, Perturbed):
        return None
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    (out_axis, *in_axes), out_spec = numbers.rhs_spec, numbers.out_spec
    first, second = kernel.factors
    if _size(first, in_axes) < _size(second, in_axes):
        first, second = second, first
    if (
        _size(second, in_axes) > 1
        or _size(first, [out_axis]) > 1
        or params["batch_group_count"] > 1
    ):
        return None
    bind = jax.lax.conv_general_dilated_p.bind
    shared = bind(x, kernel.weight, **params)
    # The output channels of A: the r ranks of the first channel group, then of the second, ...
    a = jnp.moveaxis(first, 0, out_axis + 1).squeeze(out_axis)
    a = jnp.concatenate([a] * groups, axis=out_axis)
    x_a = jnp.moveaxis(bind(x, a, **params), out_spec[1], -1)
    x_a = x_a.reshape(*x_a.shape[:-1], groups, -1)
    b = second.reshape(second.shape[0], groups, -1)
    own = jnp.einsum("...gr,rgo->...go", x_a, b, precision=params["precision"])
    own = jnp.moveaxis(own.reshape(*own.shape[:-2], -1), -1, out_spec[1])
    return [shared + own.astype(shared.dtype)]


PRODUCTS: dict[str, Rule] = {
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "gather": _gather,
}
"""Rules for the primitives that combine a perturbed array with another array."""
