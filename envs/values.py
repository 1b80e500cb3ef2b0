"""Conversion of NumPy values to plain Python values, which can be saved as JSON."""

import json
import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Convert NumPy numbers to Python numbers, and tuples and arrays to lists, in dicts as well.

    Any other value is returned unchanged.
    """
    match value:
        case np.generic():
            return value.item()
        case list() | tuple():
            return [plain(part) for part in value]
        case np.ndarray():
            return value.tolist()
        case dict():
            return {key: plain(part) for key, part in value.items()}
    return value


def is_json(value: Any) -> bool:
    """Whether a value is equal to itself after it was written as JSON and read again."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def whole_number(value: Any) -> int | None:
    """Round a finite number up to an int, as for a limit of steps; None for any other value."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return math.ceil(value)


def finite_float(value: Any) -> float | None:
    """Convert a finite number to a float; None for any other value."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
