"""Flattening of Dict and Tuple observation spaces, which agents receive as flat vectors."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.base import EnvSpec
from envs.errors import UserError

LEAVES = spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary
"""The spaces that are allowed inside a Dict or a Tuple."""
MAX_FLAT_SIZE = 1 << 20
"""The largest number of entries in a flat observation."""


def is_nested(space: spaces.Space) -> bool:
    """Whether a space is a Dict or a Tuple."""
    return isinstance(space, spaces.Dict | spaces.Tuple)


def flattened(spec: EnvSpec) -> EnvSpec:
    """Return the spec with a flat observation space, or unchanged if it is not a Dict or Tuple.

    Raises:
      UserError: a part of the space is not in `LEAVES`, or the flat size is 0 or too large.
    """
    space = spec.observation_space
    if not is_nested(space):
        return spec
    try:
        return replace(spec, observation_space=flat_space(space), raw_observation_space=space)
    except UserError as error:
        raise UserError(f"env={spec.id!r}: {error}") from None


def flat_space(space: spaces.Space) -> spaces.Box:
    """Return the Box of float32 that holds the flat elements of a Dict or Tuple space.

    Raises:
      UserError: a part of the space is not in `LEAVES`, or the flat size is 0 or too large.
    """
    leaves = list(leaves_of(space))
    size = sum(spaces.flatdim(leaf) for _, leaf in leaves)
    if not 0 < size <= MAX_FLAT_SIZE:
        raise UserError(
            f"observation_space {type(space).__name__}: has {size} numbers when it is flat: must "
            f"have 1 to {MAX_FLAT_SIZE}"
        )
    flat: Any = spaces.flatten_space(space)
    with np.errstate(over="ignore"):  # bounds beyond the range of float32 become infinite
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def leaves_of(
    space: spaces.Space, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], spaces.Space]]:
    """Yield (path, space) for each part, in the order of a flat observation.

    The path consists of the Dict keys and Tuple indices that lead to the part.

    Raises:
      UserError: a part is not in `LEAVES`, or a key is not a string.
    """
    if not is_nested(space):
        if not isinstance(space, LEAVES):
            raise UserError(
                f"observation_space{shown(path)} is {type(space).__name__}: must be Box, Discrete, "
                "MultiDiscrete or MultiBinary; a wrapper can leave it out, such as "
                "gymnasium.wrappers.FilterObservation or minigrid.wrappers.ImgObsWrapper"
            )
        yield path, space
        return
    inner: Any = space
    items = inner.spaces.items() if isinstance(space, spaces.Dict) else enumerate(inner.spaces)
    for key, part in items:
        if isinstance(space, spaces.Dict) and not isinstance(key, str):
            raise UserError(f"observation_space{shown(path)} has the key {key!r}: must be a text")
        yield from leaves_of(part, (*path, key))


def shown(path: tuple[str | int, ...]) -> str:
    """Write keys and indices as Python does, such as "['room'][0]"."""
    return "".join(f"[{key!r}]" for key in path)
