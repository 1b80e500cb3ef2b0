"""How a network uses the leaves of its parameters as matrices, found by tracing it once.

The trace is evaluated as in `es_rl.perturbed_apply`, with a `_Probe` in place of every leaf. A
probe has one factor per axis of the leaf, so that the same rules follow each axis through
transposes, reshapes, slices and loops. When a probe is an operand of a product, the axes that are
summed over are the rows of a matrix, and its other remaining axes are the columns. Axes that no
longer exist, such as those that a scan runs over, and batch axes of the product enumerate the
matrices of a stack.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from es_rl.noise import Layout, PyTree, View, layout_of_shapes, view_of_axes
from es_rl.perturbed.apply import Module, as_function, traced
from es_rl.perturbed.arrays import STRUCTURE, Perturbed, Rule, take_rows
from es_rl.perturbed.evaluate import evaluate
from es_rl.perturbed.products import contraction

_Axes: TypeAlias = frozenset[int]


class _Uses:
    """The uses of a leaf that were found while its network was evaluated."""

    def __init__(self) -> None:
        self.products: set[tuple[_Axes, _Axes]] = set()
        """The (rows, columns) of the leaf in each product."""
        self.others: set[_Axes] = set()
        """For each other use, the axes of the leaf that still exist there."""


@dataclass(frozen=True)
class _Probe(Perturbed):
    """A leaf whose axes are followed. `factors` has one entry per axis of the leaf."""

    uses: _Uses
    """The record of the uses of the leaf."""

    def dense(self) -> jax.Array:
        self.uses.others.add(self.along(range(self.weight.ndim)))
        return self.weight

    def regroup(self, factor: jax.Array, group: list[int]) -> jax.Array:
        """Extend a factor that varies along some axes of a group to all axes of the group."""
        if all(factor.shape[axis + 1] == 1 for axis in group):
            return factor
        shape = list(factor.shape)
        for axis in group:
            shape[axis + 1] = self.weight.shape[axis]
        return jnp.broadcast_to(factor, shape)

    def along(self, axes: Any) -> _Axes:
        """Return the axes of the leaf, longer than 1, that lie along `axes` of the array now."""
        found = (
            leaf_axis
            for leaf_axis, factor in enumerate(self.factors)
            if any(factor.shape[axis + 1] > 1 for axis in axes)
        )
        return frozenset(found)

    def meets(self, rows: Any, columns: Any) -> None:
        """Record a product in which these axes of the array are the rows and the columns."""
        found = self.along(rows)
        self.uses.products.add((found, self.along(columns) - found))


def layout(
    function: Module,
    params: PyTree,
    *args: Any,
    variables: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Layout:
    """Find how a network uses each leaf of its parameters as a matrix, for a strategy's `layout`.

    If a leaf is used in no product, or as different matrices, its shape decides, without the axes
    over which the network loops.

    Args:
      function: a module or function, as `es_rl.perturbed_apply` takes it.
      params: its parameters; only their shapes and types matter.
      *args: example inputs; only their shapes and types matter.
      variables: further collections of a linen module, such as "batch_stats"; only their shapes and
        types matter.
      **kwargs: further arguments, passed unchanged, such as `train=False`.

    Returns:
      The view of each leaf, in `jax.tree.leaves` order.

    Raises:
      UserError: `variables` are given with a function that is not a linen module.
    """
    uses = [_Uses() for _ in jax.tree.leaves(params)]

    def look(params: PyTree, args: tuple[Any, ...], variables: Mapping[str, Any] | None) -> None:
        closed, _ = traced(as_function(function, params, variables), params, args, kwargs)
        evaluate(closed, list(map(_probe, jax.tree.leaves(params), uses)), _RULES)

    jax.eval_shape(look, params, args, variables)
    by_shape = layout_of_shapes(params)
    return tuple(map(_view, jax.tree.leaves(params), uses, by_shape))


def _probe(leaf: jax.Array, uses: _Uses) -> _Probe:
    def along(axis: int) -> jax.Array:
        return jnp.zeros([1, *(n if k == axis else 1 for k, n in enumerate(leaf.shape))])

    return _Probe(leaf, tuple(map(along, range(leaf.ndim))), uses)


def _view(leaf: Any, uses: _Uses, by_shape: View | None) -> View | None:
    """Return the view that all products of a leaf agree on, or else the view of its shape."""
    views = {_in_order(leaf.shape, *axes) for axes in uses.products} - {None}
    if len(views) == 1:
        return views.pop()
    present = frozenset().union(*uses.others, *(r | c for r, c in uses.products))
    return view_of_axes(sorted(present)) if present else by_shape


def _in_order(shape: tuple[int, ...], rows: _Axes, columns: _Axes) -> View | None:
    """Return the view with these rows and columns, swapped if the columns come first.

    Probes cannot follow axes of length 1. One of these becomes the rows or the columns if there are
    none; the others are added to the rows. Returns None for a vector.
    """
    single = [axis for axis, size in enumerate(shape) if size == 1]
    first, second = sorted((sorted(rows), sorted(columns)), key=lambda axes: axes[:1])
    if single and not first and second:
        before = single[0] < second[0]
        first, second = ([single.pop(0)], second) if before else (second, [single.pop(0)])
    if not first or not second:
        return None
    return View(tuple(sorted([*first, *single])), tuple(second))


def _dot_general(inputs: list[Any], params: dict[str, Any]) -> list[Any]:
    found = contraction(inputs, params)
    assert isinstance(found.matrix, _Probe)
    found.matrix.meets(found.contracted, found.free)
    operands = (found.matrix.weight, found.x) if found.left else (found.x, found.matrix.weight)
    return [jax.lax.dot_general_p.bind(*operands, **params)]


def _convolution(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    x, kernel = inputs
    if not isinstance(kernel, _Probe) or isinstance(x, _Probe):
        return None
    out_axis, *in_axes = params["dimension_numbers"].rhs_spec
    kernel.meets(in_axes, [out_axis])
    return [jax.lax.conv_general_dilated_p.bind(x, kernel.weight, **params)]


def _gather(inputs: list[Any], params: dict[str, Any]) -> list[Any] | None:
    taken = take_rows(inputs, params)
    if taken is None or inputs[0].weight.ndim != 2:
        return taken
    inputs[0].meets([0], [1])
    return [taken[0].weight]


_RULES: dict[str, Rule] = {
    **STRUCTURE,
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "gather": _gather,
}
