"""Reading the two files of a saved policy, which may come from an untrusted source.

Sizes are checked before memory is allocated, no code is run, and error messages are one printable
line.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy

from envs.errors import UserError

DESCRIPTION = "policy.json"
WEIGHTS = "weights.safetensors"

MAX_DESCRIPTION_BYTES = 8 << 20
"""The largest JSON file that is read; it is enough for the returns of 200,000 episodes. Parsing
takes twenty times the memory of the file."""
MOST_EPISODES = 100_000
"""The most episodes of an evaluation, so that it fits into that size."""
_MAX_HEADER_BYTES = 1 << 20
MAX_WEIGHT_BYTES = 4 << 30
_LARGEST = float(np.finfo(np.float32).max)


def read_description(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
      UserError: the file is missing, not a regular file, too large, or not one JSON object.
    """
    return _as_object(path.name, read_json(path))


def read_json(path: Path) -> Any:
    """Read a JSON file; all of its numbers are finite.

    Raises:
      UserError: the file is missing, not a regular file, too large, or not valid JSON.
    """
    with _opened(path) as file:
        data = file.read(MAX_DESCRIPTION_BYTES + 1)
    return parse(path.name, data)


def read_weights(
    path: Path, expected: Mapping[str, tuple[int, ...]], digest: str, expected_by: str = DESCRIPTION
) -> dict[str, np.ndarray]:
    """The float32 arrays of a safetensors file, by name.

    Args:
      path: the file.
      expected: the shape of each array, by name.
      digest: the SHA-256 of the whole file, in hex.
      expected_by: where the expected shapes come from, for messages.

    Raises:
      UserError: the file is missing, not a regular file, or damaged; its digest is not `digest`; it
        has other arrays than expected; or a number is not finite.
    """
    needed = weight_bytes(expected)
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        most = min(size - len(prefix), _MAX_HEADER_BYTES)
        if len(prefix) < 8 or length > most:
            raise UserError(
                f"{path.name} is damaged (it has {size} bytes, and a header of {length}): must be "
                f"a safetensors file, with a header of at most {_MAX_HEADER_BYTES >> 20} MiB"
            )
        header = file.read(length)
        found = _as_object(path.name, parse(path.name, header))
        _check_header(path.name, found, expected, expected_by)
        if size != 8 + length + needed:
            raise UserError(
                f"{path.name} is damaged (it has {size} bytes): must have {8 + length + needed}"
            )
        blob = b"".join((prefix, header, file.read(needed)))
    if hashlib.sha256(blob).hexdigest() != digest:
        raise UserError(f"{path.name} is not the file that {DESCRIPTION} was written with")
    try:
        arrays = safetensors.numpy.load(blob)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path.name} is damaged ({error})") from error
    for name, array in sorted(arrays.items()):
        if not np.isfinite(array).all():
            raise UserError(f"{path.name} is of no use: all of {name} must be finite")
    return arrays


def weight_bytes(expected: Mapping[str, tuple[int, ...]]) -> int:
    """The number of bytes that float32 arrays of these shapes take.

    Raises:
      UserError: the number is larger than a policy may have.
    """
    needed = 4 * sum(math.prod(shape) for shape in expected.values())
    if needed > MAX_WEIGHT_BYTES:
        raise UserError(
            f"{DESCRIPTION} describes a network of {needed / 2**30:.1f} GiB of weights: must be "
            f"at most {MAX_WEIGHT_BYTES >> 30} GiB"
        )
    return needed


def check_evaluation(values: Any) -> None:
    """Check that values are an evaluation: {"seed": int, "returns": [float], "lengths": [int]}.

    Raises:
      UserError: the values are not an evaluation, or it has too many episodes.
    """
    keys = ("seed", "returns", "lengths")
    if not isinstance(values, dict) or sorted(values) != sorted(keys):
        raise UserError(f"an evaluation must be an object of {', '.join(keys)}")
    seed, returns, lengths = (values[key] for key in keys)
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise UserError("the seed of an evaluation must be an integer from 0 to 2**63 - 1")
    if not all(isinstance(x, list) and 1 <= len(x) <= MOST_EPISODES for x in (returns, lengths)):
        raise UserError(f"returns and lengths must be lists of 1 to {MOST_EPISODES} numbers")
    if len(returns) != len(lengths):
        raise UserError(f"{len(lengths)} lengths of {len(returns)} returns: must be as many")
    if not all(type(x) in (int, float) and not _LARGEST < abs(x) < math.inf for x in returns):
        raise UserError("returns must be numbers of float32")
    if not all(type(n) is int and 0 <= n < 2**31 for n in lengths):
        raise UserError("lengths must be integers from 0 to 2**31 - 1")


def named_file(arguments: Mapping[str, Any]) -> str | None:
    """The first argument of an environment that may name a file or a module, as "name=value"; None
    without one."""
    # `envs.make` keeps `info_keys` to itself, and its names may have slashes ("reward/forward").
    passed_on = ((name, value) for name, value in arguments.items() if name != "info_keys")
    return next((f"{name}={value!r}" for name, value in passed_on if _names_a_file(value)), None)


def _names_a_file(value: Any) -> bool:
    """Whether a JSON value holds text that an environment could open or import."""
    if isinstance(value, str):
        return value.startswith((".", "~")) or any(c in value for c in "/\\:")
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return isinstance(parts, list) and any(map(_names_a_file, parts))


def _check_header(
    name: str, header: dict[str, Any], expected: Mapping[str, tuple[int, ...]], expected_by: str
) -> None:
    """Refuse a header that lists other arrays; safetensors itself checks their positions in the
    file."""
    must_be = {key: f"F32 {list(shape)}" for key, shape in expected.items()}
    found = {key: _entry(entry) for key, entry in header.items()}
    for key in sorted(must_be.keys() | found.keys()):
        if must_be.get(key) != found.get(key):
            raise UserError(
                f"{name} does not fit {expected_by}: {key} is {found.get(key, 'missing')}, must "
                f"be {must_be.get(key, 'absent')}"
            )


def _entry(entry: Any) -> str:
    """The type and shape of one entry of a header, as text."""
    return f"{entry.get('dtype')} {entry.get('shape')}" if isinstance(entry, dict) else "no object"


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file. Symbolic links are followed, as download caches consist of them."""

    def without_waiting(name: str, flags: int) -> int:
        # Without O_NONBLOCK, opening a named pipe would block.
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    try:
        with open(path, "rb", opener=without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path.name} is not a file: must be a regular one")
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no {path.name} in it") from None
    except OSError as error:
        raise UserError(f"{path.name} cannot be read ({error.strerror})") from error


def _as_object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{name} is damaged (a JSON {type(value).__name__}): must be an object")
    return value


def parse(name: str, data: bytes) -> Any:
    """Parse the bytes of a JSON file.

    Raises:
      UserError: there are too many bytes, or they are not JSON with finite numbers only.
    """
    if len(data) > MAX_DESCRIPTION_BYTES:
        raise UserError(f"{name} is larger than {MAX_DESCRIPTION_BYTES >> 20} MiB, the most")
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError:
        raise UserError(f"{name} is damaged (nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{name} is damaged ({type(error).__name__}: {error})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON parsers differ in which of two equal keys they keep, so duplicates are refused.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UserError("a key comes twice in an object")
    return found


def _finite(text: str) -> float:
    value = float(text)  # accepts NaN and Infinity
    if not math.isfinite(value):
        raise UserError(f"the number {text} is not finite")
    return value
