"""Arrays that are kept as a shared part plus low-rank factors, and operations on this form."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Rule: TypeAlias = Callable[[list[Any], dict[str, Any]], list[Any] | None]
"""(inputs, parameters of a primitive) -> outputs, or None if the arrays must be formed first."""


@dataclass(frozen=True)
class Perturbed:
    """The array weight + (sum of a * b over the ranks), which is only formed where necessary."""

    weight: jax.Array
    """The part that all members share."""
    factors: tuple[jax.Array, ...]
    """The factors (a, b), each (r, *shape of the weight), with length 1 in place of an axis along
    which the factor is constant."""

    def dense(self) -> jax.Array:
        """Form the array."""
        a, b = self.factors
        # The axis numbers for einsum: 0 is the rank, and then come the axes of the weight. Along
        # each of these a or b varies.
        axes = range(1, a.ndim)
        in_b = [k for k in axes if b.shape[k] > 1]
        in_a = [k for k in axes if a.shape[k] > 1 or k not in in_b]
        a, b = a.reshape(self._kept(a, in_a)), b.reshape(self._kept(b, in_b))
        return self.weight + jnp.einsum(a, [0, *in_a], b, [0, *in_b], list(axes))

    @staticmethod
    def _kept(factor: jax.Array, axes: list[int]) -> list[int]:
        return [factor.shape[0], *(factor.shape[k] for k in axes)]

    def varies(self, factor: jax.Array, axis: int) -> bool:
        """Whether a factor varies along an axis: it has as many entries there as the weight."""
        return factor.shape[axis + 1] == self.weight.shape[axis]

    def regroup(self, factor: jax.Array, group: list[int]) -> jax.Array | None:
        """Return the factor if it varies along all or none of a group of axes, otherwise None."""
        size = math.prod(factor.shape[axis + 1] for axis in group)
        whole = math.prod(self.weight.shape[axis] for axis in group)
        return factor if size in (1, whole) else None


def dense(value: Any) -> Any:
    """Form the array if the value is `Perturbed`; return other values unchanged."""
    return value.dense() if isinstance(value, Perturbed) else value


def _convert(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    (value,), dtype = inputs, params["new_dtype"]
    if not jnp.issubdtype(dtype, jnp.floating):
        return None
    factors = tuple(factor.astype(dtype) for factor in value.factors)
    return [replace(value, weight=value.weight.astype(dtype), factors=factors)]


def _same(inputs: list[Any], params: dict[str, Any]) -> list[Any]:
    return inputs


def _transpose(inputs: list[Any], params: dict[str, Any]) -> list[Any]:
    (value,), axes = inputs, params["permutation"]
    moved = (0, *(axis + 1 for axis in axes))
    factors = tuple(factor.transpose(moved) for factor in value.factors)
    return [replace(value, weight=value.weight.transpose(axes), factors=factors)]


def _squeeze(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    (value,), gone = inputs, params["dimensions"]
    return _reshaped(value, [n for k, n in enumerate(value.weight.shape) if k not in gone])


def _reshape(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    return _reshaped(inputs[0], params["new_sizes"])


def _broadcast(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    # Only new axes of length 1 are handled: along an axis that repeats the array no factor varies.
    value, shape = inputs[0], params["shape"]
    return _reshaped(value, shape) if math.prod(shape) == value.weight.size else None


def _reshaped(value: Perturbed, shape: Sequence[int]) -> list[Any] | None:
    if value.weight.size == 0:
        return None
    groups = _groups(value.weight.shape, shape)
    factors = []
    for factor in value.factors:
        new = [1] * len(shape)
        for before, after in groups:
            regrouped = value.regroup(factor, before)
            if regrouped is None:
                return None
            factor = regrouped
            if math.prod(factor.shape[axis + 1] for axis in before) > 1:
                for axis in after:
                    new[axis] = shape[axis]
        factors.append(factor.reshape(factor.shape[0], *new))
    return [replace(value, weight=value.weight.reshape(shape), factors=tuple(factors))]


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return the smallest groups of neighbouring axes that a reshape maps onto each other.

    For example, (2, 3, 4) to (6, 4) has the groups ([0, 1], [0]) and ([2], [1]).
    """
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new = list(range(i, min(i + 1, len(before)))), list(range(j, min(j + 1, len(after))))
        while (left := math.prod(before[k] for k in old)) != (
            right := math.prod(after[k] for k in new)
        ):
            if left < right:
                old.append(i + len(old))
            else:
                new.append(j + len(new))
        groups.append((old, new))
        i, j = i + len(old), j + len(new)
    return groups


def _slice(inputs: list[Any], params: dict[str, Any]) -> list[Any]:
    (value,) = inputs
    start, stop = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(start)
    cuts = [slice(*bounds) for bounds in zip(start, stop, strides, strict=True)]

    def part(factor: jax.Array) -> jax.Array:
        kept = [cut if value.varies(factor, k) else slice(None) for k, cut in enumerate(cuts)]
        return factor[(slice(None), *kept)]

    factors = tuple(map(part, value.factors))
    return [replace(value, weight=value.weight[tuple(cuts)], factors=factors)]


def _dynamic_slice(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    value, *starts = inputs
    if not isinstance(value, Perturbed):
        return None
    sizes = params["slice_sizes"]

    def part(factor: jax.Array) -> jax.Array:
        varies = [value.varies(factor, axis) for axis in range(len(sizes))]
        begin = [start if along else 0 for start, along in zip(starts, varies, strict=True)]
        length = [size if along else 1 for size, along in zip(sizes, varies, strict=True)]
        return jax.lax.dynamic_slice(factor, (0, *begin), (factor.shape[0], *length))

    factors = tuple(map(part, value.factors))
    weight = jax.lax.dynamic_slice(value.weight, starts, sizes)
    return [replace(value, weight=weight, factors=factors)]


def take_rows(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    """Apply a `gather` that takes whole entries along the first axis of a table.

    Returns None for any other `gather`.
    """
    table, indices = inputs
    numbers, lead = params["dimension_numbers"], indices.ndim - 1
    whole = (
        isinstance(table, Perturbed)
        and numbers.collapsed_slice_dims == numbers.start_index_map == (0,)
        and numbers.offset_dims == tuple(range(lead, lead + table.weight.ndim - 1))
        and not numbers.operand_batching_dims
        and params["slice_sizes"][1:] == table.weight.shape[1:]
    )
    if not whole:
        return None
    options = {k: params[k] for k in ("indices_are_sorted", "unique_indices", "mode", "fill_value")}

    def take(array: jax.Array) -> jax.Array:
        offset = numbers._replace(offset_dims=tuple(range(lead, lead + array.ndim - 1)))
        return jax.lax.gather(array, indices, offset, (1, *array.shape[1:]), **options)

    def take_factor(factor: jax.Array) -> jax.Array:
        if not table.varies(factor, 0):
            return factor.reshape(factor.shape[0], *(1,) * lead, *factor.shape[2:])
        return jnp.moveaxis(take(jnp.moveaxis(factor, 1, 0)), lead, 0)

    factors = tuple(map(take_factor, table.factors))
    return [replace(table, weight=take(table.weight), factors=factors)]


def unstack(values: list[Any]) -> tuple[list[Any], Callable[[list[Any]], list[Any]]]:
    """Prepare values for a loop over their first axes.

    Returns:
      For each value a list of arrays with the loop axis in front, and a function that assembles
      the entries of the values from the entries of these arrays.
    """

    def apart(value: Any) -> list[jax.Array]:
        if not isinstance(value, Perturbed):
            return [value]
        moved = [jnp.moveaxis(x, 1, 0) for x in value.factors if value.varies(x, 0)]
        return [value.weight, *moved]

    def entry(value: Any, parts: list[jax.Array]) -> Any:
        weight, *rest = parts
        if not isinstance(value, Perturbed):
            return weight
        left = iter(rest)
        factors = [next(left) if value.varies(x, 0) else x[:, 0] for x in value.factors]
        return replace(value, weight=weight, factors=tuple(factors))

    return list(map(apart, values)), lambda parts: list(map(entry, values, parts))


STRUCTURE: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "convert_element_type": _convert,
    "copy": _same,
    "dynamic_slice": _dynamic_slice,
    "name": _same,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _squeeze,
    "stop_gradient": _same,
    "transpose": _transpose,
}
"""Rules for the primitives that rearrange, cast or pass on the entries of one array."""
