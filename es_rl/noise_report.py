"""A readable description of the noise that each leaf of a parameter tree gets."""

import math
from dataclasses import dataclass
from typing import Any

import jax

from es_rl.noise import Frozen, LowRank, PyTree
from es_rl.strategies.strategy import Strategy


@dataclass(frozen=True)
class LeafDescription:
    """One leaf of a parameter tree."""

    name: str
    """The path of the leaf, with "/" between the parts."""
    shape: tuple[int, ...]
    """The shape of the leaf."""
    noise: str
    """The noise of the leaf: "rank 1 of 8 x 16", "rank 1 of 3 times 8 x 16" (for a stack of three
    matrices), "full" or "frozen"."""
    numbers: int
    """The number of random numbers that one draw of noise has for the leaf."""

    @property
    def size(self) -> int:
        """The number of parameters in the leaf."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Description:
    """The noise that a strategy gives to each leaf. `str` shows it as a table."""

    leaves: tuple[LeafDescription, ...]
    """The leaves, in `jax.tree.leaves` order."""

    @property
    def summary(self) -> str:
        """One line with the number of parameters and the share of them for each kind of noise."""
        total = sum(leaf.size for leaf in self.leaves)
        shares = {"low-rank": 0, "full": 0, "frozen": 0}
        for leaf in self.leaves:
            shares[leaf.noise if leaf.noise in shares else "low-rank"] += leaf.size
        kinds = [f"{n / total:.1%} {kind}" for kind, n in shares.items() if n]
        numbers = sum(leaf.numbers for leaf in self.leaves)
        return f"{total:,} parameters, {numbers:,} random numbers a draw; noise: {', '.join(kinds)}"

    def __str__(self) -> str:
        rows = [("leaf", "shape", "noise", "numbers")]
        rows += [(x.name, str(list(x.shape)), x.noise, f"{x.numbers:,}") for x in self.leaves]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([*map(str.ljust, row[:3], widths), row[3].rjust(widths[3])]) for row in rows
        ]
        return "\n".join([*lines, self.summary])


def describe(es: Strategy, params: PyTree) -> Description:
    """Describe the noise that a strategy gives to each leaf.

    Args:
      es: the strategy.
      params: the parameters; only their shapes and types matter.
    """

    def ask(key: jax.Array, params: PyTree) -> Any:
        return es.ask(es.init(key, params))

    noise = jax.eval_shape(ask, jax.eval_shape(jax.random.key, 0), params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return Description(
        tuple(
            _leaf(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, eps)
            for (path, leaf), eps in zip(leaves, noise.leaves, strict=True)
        )
    )


def _leaf(name: str, shape: tuple[int, ...], eps: Any) -> LeafDescription:
    numbers = sum(math.prod(x.shape[1:]) for x in jax.tree.leaves(eps))
    match eps:
        case LowRank(a=a, view=view):
            rows, columns = (math.prod(shape[k] for k in axes) for axes in view)
            stacked = math.prod(shape) // max(rows * columns, 1)
            times = f"{stacked} times " if stacked > 1 else ""
            return LeafDescription(
                name, shape, f"rank {a.shape[1]} of {times}{rows} x {columns}", numbers
            )
        case Frozen():
            return LeafDescription(name, shape, "frozen", 0)
        case _:
            return LeafDescription(name, shape, "full", numbers)
