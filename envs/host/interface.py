"""Checks of what an environment returns from `reset` and `step`, and flattening of observations.

This module is pickled by value and sent to the worker processes, so that they need not import
`envs`, which imports JAX.
"""

import numbers
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
from gymnasium import spaces

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Problem(NamedTuple):
    """A description of a wrong return value."""

    found: str
    """What the environment returned."""
    wanted: str
    """What it must return."""


class Interface:
    """Checks return values against Gymnasium's interface and one observation space, and reads
    scalars from the info.

    The checks return a `Problem`, or None if the value is correct.
    """

    def __init__(self, space: spaces.Space, info_keys: Sequence[str] = ()):
        self.space = space
        self.info_keys = info_keys
        self.nested = isinstance(space, spaces.Dict | spaces.Tuple)

    def flat(self, obs: Any) -> np.ndarray:
        """Flatten a Dict or Tuple to a float32 vector, as `gymnasium.spaces.flatten` orders it."""
        return np.asarray(spaces.flatten(self.space, obs), np.float32)

    def start(self, returned: Any) -> Problem | None:
        """Check what `reset` returned, apart from the observation."""
        fits = isinstance(returned, tuple | list) and len(returned) == 2
        if fits and isinstance(returned[1], dict):
            return None
        return Problem(_malformed(returned), "(observation, info), info a dict")

    def outcome(self, returned: Any) -> Problem | None:
        """Check the form of what `step` returned, but not the values in it."""
        fits = isinstance(returned, tuple | list) and len(returned) == 5
        if fits and isinstance(returned[4], dict):
            return None
        wanted = "(observation, reward, terminated, truncated, info), info a dict"
        return Problem(_malformed(returned), wanted)

    def values(self, reward: Any, terminated: Any, truncated: Any) -> Problem | None:
        """Check the values of a step, apart from the observation."""
        if not isinstance(reward, numbers.Real) and not _is_scalar(reward, "biuf"):
            return Problem(f"the reward {_shown(reward)}", "one number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not _is_scalar(flag, "b") and not (_is_scalar(flag, "iu") and flag in (0, 1)):
                return Problem(f"{name}={_shown(flag)}", "True or False")
        return None

    def scalar(self, key: str, value: Any) -> Problem | None:
        """What is wrong with a value of the info that is to be logged."""
        if isinstance(value, numbers.Real) or _is_scalar(value, "biuf"):
            return None
        return Problem(f"info[{key!r}]={_shown(value)}", "one number, as info_keys names it")

    def observation(self, value: Any, row: np.ndarray) -> Problem | None:
        """Check an observation.

        Args:
          value: the observation.
          row: the array that the observation will be written to; not used for a Dict or Tuple.
        """
        if not self.nested:
            return _problem("", value, self.space, row.shape, row.dtype)
        found = (_problem(*part, part[-1].shape, part[-1].dtype) for part in self._parts(value))
        return next((problem for problem in found if problem), None)

    def _parts(self, obs: Any) -> Iterator[tuple[str, Any, Any]]:
        """Yield (place, part, space) for each part of an observation that is not nested.

        The place is written as Python indices, such as "['room'][0]". A Dict or Tuple whose keys or
        length differ from those of its space is yielded as one part.
        """
        waiting: list[tuple[str, Any, spaces.Space]] = [("", obs, self.space)]
        while waiting:
            place, part, space = waiting.pop()
            inner: Any = None
            if isinstance(space, spaces.Dict):
                if isinstance(part, Mapping) and part.keys() == space.spaces.keys():
                    inner = space.spaces.items()
            elif isinstance(space, spaces.Tuple) and isinstance(part, tuple | list):
                inner = enumerate(space.spaces) if len(part) == len(space.spaces) else None
            if inner is None:
                yield place, part, space
            else:
                waiting += [(f"{place}[{key!r}]", part[key], value) for key, value in inner]


def _problem(place: str, value: Any, space: Any, shape: Any, dtype: Any) -> Problem | None:
    """Check an observation, or the part of an observation at `place`."""
    declared = f"{space}" if not hasattr(space, "low") else f"Box {shape} of {dtype}"
    declared = f"an element of its observation_space{place}, {' '.join(declared.split())}"
    told = Problem(f"the observation{place} {_shown(value)}", declared)
    try:
        found = np.asarray(value)
    except ValueError:
        return told
    if found.dtype.hasobject:
        return told
    if found.shape != shape or not _keeps_values(found, dtype):
        what = f"an observation{place} of shape {found.shape} and dtype {found.dtype}"
        return Problem(what, declared)
    # A space without bounds (not a Box) holds categories, which must match exactly.
    if not hasattr(space, "low") and not space.contains(found.astype(dtype)[()]):
        return told
    return None


def _is_scalar(value: Any, kinds: str) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in kinds


def _keeps_values(found: np.ndarray, dtype: np.dtype) -> bool:
    """Whether a dtype can hold the values: numbers of its kind, and integers within its range."""
    if found.dtype.kind in "iu" and dtype.kind in "iu":
        return bool((found.astype(dtype) == found).all())
    return np.can_cast(found.dtype, dtype, "same_kind")


def _malformed(returned: Any) -> str:
    """Describe a value that was returned in place of a tuple of the right length."""
    if isinstance(returned, tuple | list):
        parts = ", ".join(type(part).__name__ for part in returned[:6])
        return f"{len(returned)} values ({parts}{', ...' if len(returned) > 6 else ''})"
    if isinstance(returned, np.ndarray):
        return f"an array of shape {returned.shape}"
    return f"a {type(returned).__name__}"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
