"""Python's own values in place of NumPy's: what a file of JSON gives back as it was."""

import json
import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """The value with Python's numbers for NumPy's, and lists for tuples and arrays.

    What is none of these, alone or in a list or dict, is returned as it is.
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
    """Whether a value is the same after it was written as JSON and read again."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def whole_number(value: Any) -> int | None:
    """An int of a finite number, rounded up as a limit of steps is; None for all else."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return math.ceil(value)


def finite_float(value: Any) -> float | None:
    """A float of a finite number; None for all else."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
