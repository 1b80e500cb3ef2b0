"""Checks that settings from a command line, a file or a caller have the types that fields
declare."""

import math
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from envs.errors import UserError
from envs.values import plain

LARGEST = 2**31 - 1
"""The largest integer setting, as integers have 32 bits on a device."""
_MOST, _LEAST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
_BUDGETS = ("env_steps",)
"""Fields that are used on the host only, where integers have no limit."""
MAY_CHANGE = {"may_change": True}
"""The metadata of a field whose value may change when a run is resumed."""


def check(settings: Any) -> None:
    """Refuse a dataclass with values of wrong types, or with numbers that do not fit into 32 bits.

    NumPy numbers are replaced by Python numbers, and lists by tuples. Fields are not checked if
    their type is neither a number, a bool, a string, a choice of strings nor a tuple of these.

    Raises:
      UserError: a value is not what its field declares; the message says what is accepted.
    """
    as_python(settings)
    for name, kind in _kinds(type(settings)).items():
        value = getattr(settings, name)
        wanted = expected(value, kind, largest=math.inf if name in _BUDGETS else LARGEST)
        if wanted is not None:
            raise UserError(f"{name}={value!r}: must be {wanted}")


def may_change(config: Any) -> frozenset[str]:
    """The names of a dataclass's fields that may change when a run is resumed."""
    return frozenset(f.name for f in fields(config) if f.metadata.get("may_change"))


def check_kept(before: Any, now: Any) -> None:
    """Refuse a configuration that differs from an earlier one in a field that must not change.

    Raises:
      UserError: such a field differs; the message names it.
    """
    for field in fields(before):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old != new and field.name not in may_change(before):
            raise UserError(f"{field.name}={new!r}: must be {old!r}, as the run began with it")


def as_python(settings: Any) -> None:
    """Replace NumPy numbers in a dataclass by Python numbers, and lists by tuples."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        replaced = plain(value) if isinstance(value, np.generic) else value
        if isinstance(value, list | tuple | np.ndarray):
            replaced = tuple(plain(value))
        if replaced is not value:
            object.__setattr__(settings, field.name, replaced)


def expected(value: Any, kind: Any, *, largest: float = LARGEST) -> str | None:
    """What a value must be to have this type, in words; None if the value is valid.

    Args:
      value: what was given.
      kind: the annotation of the type.
      largest: the largest integer that is accepted.
    """
    match get_origin(kind) or kind:
        case origin if origin in (Union, UnionType):
            options = [option for option in get_args(kind) if option is not NoneType]
            optional = value is None and NoneType in get_args(kind)
            return None if optional or len(options) > 1 else expected(value, options[0])
        case origin if origin is Literal:
            choices = get_args(kind)
            return None if value in choices else f"one of {', '.join(map(str, choices))}"
        case origin if origin is tuple and len(get_args(kind)) == 2:
            return _expected_of_each(value, get_args(kind)[0])
        case origin if origin is bool:
            return None if isinstance(value, bool) else "true or false"
        case origin if origin is str:
            return None if isinstance(value, str) else "a text"
        case origin if origin is int:
            if type(value) is not int:
                return "a whole number"
            return None if abs(value) <= largest else f"at most {largest:.0f} in size"
        case origin if origin is float:
            return _expected_of_float(value)
    return None


def _expected_of_each(values: Any, kind: Any) -> str | None:
    if not isinstance(values, tuple):
        return "a list"
    return next((f"each {w}" for v in values if (w := expected(v, kind)) is not None), None)


def _expected_of_float(value: Any) -> str | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "a number"
    if isinstance(value, int) and abs(value) > LARGEST:  # JAX would convert it to 32 bits
        return f"at most {LARGEST} in size, or have a decimal point"
    if not abs(value) <= _MOST:  # also true for NaN
        return f"finite, and at most {_MOST:.3g} in size"
    return None if value == 0 or abs(value) >= _LEAST else f"0, or at least {_LEAST:.3g} in size"


def _kinds(cls: type) -> Mapping[str, Any]:
    """The annotation of each field."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}
