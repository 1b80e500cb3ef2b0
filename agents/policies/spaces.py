"""Conversion between elements of Gymnasium spaces and the arrays that networks read and write."""

import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.errors import UserError

_MAX_SIZE = 1 << 20
"""The largest size of a space, in training and in files, so that every trained policy can be
loaded. The size of a Box is its number of elements; that of a discrete space is the number of
dimensions times the categories of the largest dimension."""
_MAX_START = 1 << 30
"""The largest absolute value of a first category, as actions and observations are int32 on a
device."""
Categorical: TypeAlias = spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES = ("bool", "float16", "float32", "float64", *_INTEGERS)
_UNBOUNDED = 1e30
"""Bounds of at least this absolute value count as unbounded: some environments use the largest
float in place of infinity. An action scaled to such bounds would be huge, and the difference of the
bounds is infinite in float32."""


def check_observation_space(space: spaces.Space) -> None:
    """Refuse an observation space that networks cannot read.

    Raises:
      UserError: the space is not Box, Discrete, MultiDiscrete or MultiBinary, or it is too large.
    """
    if not isinstance(space, spaces.Box | Categorical):
        raise _unsupported(space)
    _check_size("observation", space)


def _unsupported(space: spaces.Space) -> UserError:
    return UserError(
        f"observation space {type(space).__name__} is not supported: must be Box, Discrete, "
        "MultiDiscrete or MultiBinary (gymnasium.wrappers.FlattenObservation makes a Box of "
        "Dict and Tuple)"
    )


def check_action_space(space: spaces.Space) -> None:
    """Refuse an action space for which `decode` cannot make actions.

    Raises:
      UserError: the space is not Box (of floats), Discrete, MultiDiscrete or MultiBinary, or it is
        too large.
    """
    floats = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    if not floats and not isinstance(space, Categorical):
        raise UserError(
            f"action space {space} is not supported: must be Box of floats, Discrete, "
            "MultiDiscrete or MultiBinary"
        )
    _check_size("action", space)


def _check_size(kind: str, space: spaces.Space) -> None:
    try:
        if isinstance(space, spaces.Box):
            _check_shape(space.shape)
        else:
            _check_categories(*categories(space))
    except UserError as error:
        raise UserError(f"{kind} space {type(space).__name__}: {error}") from None


def categories(space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and first values of the dimensions of a discrete space, (d,) int64 each."""
    sizes: Any
    starts: Any
    match space:
        case spaces.Discrete():
            sizes, starts = [space.n], [space.start]
        case spaces.MultiBinary():
            sizes, starts = np.full(space.shape, 2), np.zeros(space.shape)
        case _:
            assert isinstance(space, spaces.MultiDiscrete)
            sizes, starts = space.nvec, space.start
    return np.ravel(sizes).astype(np.int64), np.ravel(starts).astype(np.int64)


def bounded(space: spaces.Box) -> np.ndarray:
    """Which elements of a Box have two bounds: bool, in the shape of the Box."""
    return (np.abs(space.low) < _UNBOUNDED) & (np.abs(space.high) < _UNBOUNDED)


def num_outputs(space: spaces.Space) -> int:
    """The number of network outputs for an action: one per element of a Box, one logit per category
    of a discrete space."""
    return math.prod(encoded_shape(space))


def encoded_shape(space: spaces.Space) -> tuple[int, ...]:
    """The shape in which a network reads an element: a Box keeps its shape, categories become a
    one-hot vector."""
    if isinstance(space, spaces.Box):
        return space.shape
    return (int(categories(space)[0].sum()),)


def empty(space: spaces.Space) -> np.ndarray:
    """An array with the shape and dtype of an observation, to compile with."""
    return np.zeros(space.shape or (), space.dtype)


def one_hot(space: spaces.Space, obs: jax.Array) -> jax.Array:
    """One element of a discrete space as a float32 vector, (encoded_shape,)."""
    sizes, starts = categories(space)
    chosen = jnp.ravel(obs).astype(jnp.int32) - starts.astype(np.int32)
    # The dimension of each number of the vector, which stands for one category of it.
    dimension = np.repeat(np.arange(len(sizes)), sizes)
    category = np.arange(sizes.sum()) - (np.cumsum(sizes) - sizes)[dimension]
    return (chosen[dimension] == category.astype(np.int32)).astype(jnp.float32)


def decode(
    space: spaces.Space, head: jax.Array, *, squash: str, sample: bool, key: jax.Array
) -> jax.Array:
    """One action from a network's output (num_outputs,).

    Args:
      space: the action space.
      head: for a Box the mean of the action, for categories their logits.
      squash: see `to_action`.
      sample: draw categories from the softmax of the logits instead of taking the most likely one.
      key: for the sampling.
    """
    if isinstance(space, spaces.Box):
        return to_action(space, head, squash)
    logits, _ = category_logits(space, head)
    chosen = sample_categories(logits, key) if sample else jnp.argmax(logits, axis=-1)
    return to_action(space, chosen, squash)


def category_logits(space: spaces.Space, head: jax.Array) -> tuple[jax.Array, np.ndarray]:
    """The logits of each dimension of a discrete space, one row each.

    All rows are padded to the length of the largest dimension, so that the size of a compiled
    program does not depend on the number of dimensions.

    Args:
      space: the space, of d dimensions with up to n categories.
      head: (..., num_outputs) the network's output.

    Returns:
      (..., d, n) logits, -inf for categories that a dimension does not have; and (d, n) bool, True
      for those that it has.
    """
    sizes, _ = categories(space)
    category = np.arange(sizes.max())
    there = category < sizes[:, None]
    if there.all():
        return jnp.reshape(head, (*head.shape[:-1], *there.shape)), there
    first = np.cumsum(sizes) - sizes
    rows = head[..., np.where(there, first[:, None] + category, 0)]
    return jnp.where(there, rows, -jnp.inf), there


def sample_categories(logits: jax.Array, key: jax.Array) -> jax.Array:
    """(..., d) categories, drawn from the softmax of each row of logits (..., d, n)."""
    keys = jax.random.split(key, logits.shape[-2])
    return jax.vmap(jax.random.categorical, in_axes=(0, -2), out_axes=-1)(keys, logits)


def to_action(space: spaces.Space, raw: jax.Array, squash: str) -> jax.Array:
    """Convert raw numbers to an action.

    Args:
      space: the action space.
      raw: (k,) floats for a Box; for categories (c,) ints, counted from 0.
      squash: how a Box action is kept within its bounds: "tanh" scales tanh(raw) to the bounds,
        "clip" clips raw; without bounds the action is raw itself.
    """
    if not isinstance(space, spaces.Box):
        _, starts = categories(space)
        raw = jnp.asarray(raw).astype(jnp.int32)
        return jnp.reshape(raw + starts.astype(np.int32), space.shape or ())
    has_bounds = bounded(space)
    low, high = (np.where(has_bounds, edge, 0.0) for edge in (space.low, space.high))
    value = jnp.reshape(raw, space.shape)
    if squash == "tanh":
        scaled = low + (jnp.tanh(value) + 1.0) * 0.5 * (high - low)
        value = jnp.where(has_bounds, scaled, value)
    return jnp.clip(value, space.low, space.high).astype(jnp.float32)


def random_actions(space: spaces.Space, count: int) -> np.ndarray:
    """Random actions (count, ...), the same in every call; normal where a Box has no bounds."""
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.Box):
        low, high = (np.where(bounded(space), edge, 0.0) for edge in (space.low, space.high))
        normal = np.clip(rng.normal(size=(count, *space.shape)), space.low, space.high)
        uniform = rng.uniform(low, high, (count, *space.shape))
        return np.where(bounded(space), uniform, normal).astype(space.dtype)
    sizes, starts = categories(space)
    chosen = rng.integers(starts, starts + sizes, (count, len(sizes)))
    return chosen.reshape(count, *(space.shape or ())).astype(space.dtype)


def to_json(space: spaces.Space) -> dict[str, Any]:
    """A description of a supported space that `from_json` reads.

    Raises:
      UserError: the space is not supported.
    """
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
        dtype = np.dtype(space.dtype).name
        uniform = low.size > 0 and (low == low.flat[0]).all() and (high == high.flat[0]).all()
        bounds = (low.flat[0], high.flat[0]) if uniform else (low, high)
        edges = {
            name: _to_json(edge.tolist())
            for name, edge in zip(("low", "high"), bounds, strict=True)
        }
        return {"type": "Box", **edges, "shape": list(low.shape), "dtype": dtype}
    if isinstance(space, spaces.MultiBinary):
        # Gymnasium distinguishes the shapes (3,) and 3.
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        raise _unsupported(space)
    dtype = np.dtype(space.dtype).name
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": dtype}
    nvec, start = space.nvec.tolist(), space.start.tolist()
    return {"type": "MultiDiscrete", "nvec": nvec, "start": start, "dtype": dtype}


def from_json(description: dict[str, Any]) -> spaces.Space:
    """The space that `to_json` described; larger spaces than policies support are refused.

    Raises:
      ValueError, KeyError, TypeError, ArithmeticError, RecursionError: the description is not of
        such a space.
    """
    match description["type"]:
        case "Box":
            return _box(description)
        case "Discrete":
            sizes, starts, dtype = _read_categories(description, "n")
            if sizes.ndim:
                raise UserError("a Discrete space must have one number of categories")
            return spaces.Discrete(int(sizes), start=int(starts), dtype=dtype)
        case "MultiDiscrete":
            sizes, starts, dtype = _read_categories(description, "nvec")
            return spaces.MultiDiscrete(sizes, start=starts, dtype=dtype)
        case "MultiBinary":
            n = description["n"]
            shape = tuple(n) if isinstance(n, list) else (n,)
            _check_shape(shape)
            twos = np.full(math.prod(shape), 2)
            _check_categories(twos, np.zeros_like(twos))
            return spaces.MultiBinary(n)
    raise UserError("the type of a space must be Box, Discrete, MultiDiscrete or MultiBinary")


def _read_categories(
    description: dict[str, Any], key: str
) -> tuple[np.ndarray, np.ndarray, type[np.integer]]:
    """Sizes, starts and dtype of a Discrete or a MultiDiscrete."""
    sizes, starts = (_integers(description[k]) for k in (key, "start"))
    _check_categories(sizes, starts)
    dtype = description["dtype"]
    if dtype not in _INTEGERS:
        raise UserError(f"the dtype {dtype!r} must be one of {', '.join(_INTEGERS)}")
    least, most = int(np.iinfo(dtype).min), min(int(np.iinfo(dtype).max), np.iinfo(np.int64).max)
    if not ((starts >= least) & (sizes <= most - np.maximum(starts - 1, 0))).all():
        raise UserError(f"categories and their number must be from {least} to {most}, as {dtype}")
    return sizes, starts, np.dtype(dtype).type


def _box(description: dict[str, Any]) -> spaces.Box:
    shape, dtype = tuple(description["shape"]), description["dtype"]
    if dtype not in _DTYPES:
        raise UserError(f"the dtype {dtype!r} of a Box must be one of {', '.join(_DTYPES)}")
    _check_shape(shape)
    with np.errstate(over="raise", invalid="raise"):
        low, high = (np.asarray(_bound(description[k]), dtype) for k in ("low", "high"))
    low, high = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
    if not (low <= high).all():
        raise UserError("no low of a Box may be above its high")
    return spaces.Box(low, high, shape, np.dtype(dtype).type)


def _check_shape(shape: tuple[Any, ...]) -> None:
    # Python's integers do not overflow. A large axis is refused even where another axis is 0.
    if any(type(n) is not int or not 0 <= n <= _MAX_SIZE for n in shape) or (
        math.prod(shape) > _MAX_SIZE
    ):
        raise UserError(
            f"the shape {shape} must be of integers, and of at most {_MAX_SIZE} numbers"
        )


def _integers(value: Any) -> np.ndarray:
    """An array from nested lists of integers. Strings are refused first, as NumPy would pad them
    all to the longest, whatever memory that takes."""
    waiting, count = [value], 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
            continue
        if type(part) is not int:
            raise UserError("categories must be integers, as many as starts")
        count += 1
    if count > _MAX_SIZE:
        raise UserError(f"{count} dimensions: must be at most {_MAX_SIZE}")
    return np.asarray(value)


def _check_categories(sizes: np.ndarray, starts: np.ndarray) -> None:
    for numbers in (sizes, starts):
        if numbers.dtype != np.int64 or numbers.shape != sizes.shape:
            raise UserError("categories must be integers, as many as starts")
    if sizes.size < 1 or not ((sizes >= 1) & (sizes <= _MAX_SIZE)).all():
        raise UserError(f"categories must be at least 1, and at most {_MAX_SIZE}")
    if sizes.size * int(sizes.max()) > _MAX_SIZE:
        raise UserError(
            f"{sizes.size} dimensions of up to {sizes.max()} categories: must be at most "
            f"{_MAX_SIZE} numbers in all"
        )
    if not (np.abs(starts.astype(np.float64)) < _MAX_START).all():
        raise UserError("starts of categories must be between -2**30 and 2**30")


def _to_json(edge: Any) -> Any:
    """Numbers as JSON values; infinities become strings, as JSON has none."""
    if isinstance(edge, list):
        return [_to_json(part) for part in edge]
    return edge if np.isfinite(edge) else str(edge)


def _bound(edge: Any) -> Any:
    if isinstance(edge, list):
        return [_bound(part) for part in edge]
    if edge in ("inf", "-inf"):
        return float(edge)
    if not isinstance(edge, int | float):
        raise UserError(f"the bound {edge!r} of a Box must be a number, 'inf' or '-inf'")
    return edge
