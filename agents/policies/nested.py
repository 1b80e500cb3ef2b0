"""Dict and Tuple observation spaces as JSON, and their elements as flat vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.policies import spaces as _spaces
from envs.errors import UserError
from envs.host.nested import MAX_FLAT_SIZE, flat_space, is_nested, leaves_of, shown

_MAX_DEPTH = 16
_MAX_PARTS = 4096
"""A saved space that is nested deeper or has more parts than this is refused."""


def to_json(space: spaces.Space) -> dict[str, Any]:
    """A description of an observation space, which may be a Dict or Tuple.

    Raises:
      UserError: policies do not support the space, or it is too large.
    """
    if is_nested(space):
        flat_space(space)  # checks the parts
    return _to_json(space)


def from_json(description: dict[str, Any]) -> spaces.Space:
    """The space that `to_json` described; larger spaces than policies support are refused.

    Raises:
      ValueError, KeyError, TypeError, ArithmeticError, RecursionError: the description is not of
        such a space.
    """
    return _from_json(description, _Budget(), _MAX_DEPTH)


def names(space: spaces.Space) -> list[str]:
    """A name for each part of a Dict or Tuple space, such as "obs_room" or "obs_pose_0".

    Raises:
      UserError: two parts have the same name.
    """
    found = ["_".join(map(str, ("obs", *path))) for path, _ in leaves_of(space)]
    if len(set(found)) != len(found):
        raise UserError(f"observation: its parts are named {', '.join(found)}: names must differ")
    return found


def empty_parts(space: spaces.Space) -> list[np.ndarray]:
    """Arrays with the shapes and dtypes of the parts of a Dict or Tuple space, to compile with."""
    return [_spaces.empty(leaf) for _, leaf in leaves_of(space)]


def flatten(space: spaces.Space, parts: Sequence[jax.Array]) -> jax.Array:
    """The flat float32 vector of the parts of one element, as `gymnasium.spaces.flatten` makes it.

    Args:
      space: a Dict or Tuple space.
      parts: the parts in the order of the flat vector; see `parts_of`.
    """
    pairs = zip((leaf for _, leaf in leaves_of(space)), parts, strict=True)
    return jnp.concatenate([_vector(leaf, part) for leaf, part in pairs])


def must_be(shape: tuple[int, ...]) -> str:
    """What shapes are accepted, for messages: "must be (4,) or (n, 4)"."""
    return f"must be {shape} or {('n', *shape)}".replace("'", "")


def parts_of(space: spaces.Space, obs: Any) -> tuple[list[np.ndarray], bool]:
    """The parts of one element of a Dict or Tuple space, or of n elements stacked part by part.

    Returns:
      The parts (float32 for a Box, else integers), and whether they are stacked, (n, ...) each.

    Raises:
      UserError: a part is missing or has a wrong shape, or the parts have different numbers of
        elements.
    """
    found, counts = [], []
    for path, leaf in leaves_of(space):
        part, shape = np.asarray(_at(obs, path)), leaf.shape or ()
        batched = part.ndim == len(shape) + 1 and part.shape[1:] == shape
        if not batched and part.shape != shape:
            raise UserError(f"obs{shown(path)} has shape {part.shape}: {must_be(shape)}")
        counts.append(len(part) if batched else None)
        found.append(part.astype(np.float32) if isinstance(leaf, spaces.Box) else part)
        if counts[-1] != counts[0]:
            raise UserError(
                f"obs{shown(path)} has shape {part.shape}: must be of as many observations as the "
                "other parts"
            )
    return found, counts[0] is not None


def _at(obs: Any, path: tuple[str | int, ...]) -> Any:
    """The part of an observation at a path of keys and indices."""
    for depth, key in enumerate(path):
        there = key in obs if isinstance(obs, Mapping) else isinstance(key, int) and key < len(obs)
        if not there:
            raise UserError(f"obs{shown(path[: depth + 1])} is missing: must be in the observation")
        obs = obs[key]
    return obs


def _vector(leaf: spaces.Space, part: jax.Array) -> jax.Array:
    if isinstance(leaf, spaces.Box | spaces.MultiBinary):
        return jnp.ravel(part).astype(jnp.float32)
    return _spaces.one_hot(leaf, part)


def _to_json(space: spaces.Space) -> dict[str, Any]:
    match space:
        case spaces.Dict():
            # A list of pairs, in the order of the flat vector.
            parts = [[key, _to_json(part)] for key, part in space.spaces.items()]
            return {"type": "Dict", "spaces": parts}
        case spaces.Tuple():
            return {"type": "Tuple", "spaces": [_to_json(part) for part in space.spaces]}
    return _spaces.to_json(space)


class _Budget:
    """The total size that the remaining parts of a space in a file may still have."""

    def __init__(self) -> None:
        self.parts, self.size = _MAX_PARTS, MAX_FLAT_SIZE

    def spend(self, size: int) -> None:
        self.parts, self.size = self.parts - 1, self.size - size
        if self.parts < 0 or self.size < 0:
            raise UserError(
                f"a Dict or Tuple space must have at most {_MAX_PARTS} parts, and {MAX_FLAT_SIZE} "
                "numbers when it is flat"
            )


def _from_json(description: dict[str, Any], budget: _Budget, depth: int) -> spaces.Space:
    kind = description["type"]
    if kind not in ("Dict", "Tuple"):
        space = _spaces.from_json(description)
        budget.spend(spaces.flatdim(space))
        return space
    if depth == 0:
        raise UserError(f"a space must be nested at most {_MAX_DEPTH} deep")
    budget.spend(0)
    given = description["spaces"]
    if kind == "Tuple":
        return spaces.Tuple([_from_json(part, budget, depth - 1) for part in given])
    pairs = [(key, _from_json(part, budget, depth - 1)) for key, part in given]
    if len({key for key, _ in pairs if isinstance(key, str)}) != len(pairs):
        raise UserError("the keys of a Dict space must be texts that differ")
    return spaces.Dict(pairs)
