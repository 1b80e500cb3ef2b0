"""Between Gymnasium spaces and the flat vectors that networks read and write."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.errors import UserError

_MAX_SIZE = 1 << 20
"""Numbers in a space that is read from JSON; categories taken together, too."""
_MAX_CATEGORICAL = 4096
"""Dimensions of such a MultiDiscrete, as each becomes a part of the program."""
_UNBOUNDED = 1e30
"""Bounds of this size and above are none: people write the largest number of a float for "any".
An action scaled to them would be huge, and their distance is infinite in float32."""
_DTYPES = (
    *("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)


def check_observation_space(space: spaces.Space) -> None:
    """Refuse a space that `encode` cannot flatten.

    Raises:
      UserError: the space is not Box, Discrete or MultiDiscrete, or it is one of images.
    """
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) > 1:
        raise UserError(
            f"observation space {space.shape} of uint8 is one of images: must be numbers, as there "
            "is no convolutional policy (yet)"
        )
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
        raise UserError(
            f"observation space {type(space).__name__} is not supported: must be Box, Discrete or "
            "MultiDiscrete (gymnasium.wrappers.FlattenObservation makes a Box of Dict and Tuple)"
        )


def check_action_space(space: spaces.Space) -> None:
    """Refuse a space that `decode` cannot fill.

    Raises:
      UserError: the space is not Box (of floats), Discrete or MultiDiscrete.
    """
    floats = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    if not floats and not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        raise UserError(
            f"action space {space} is not supported: must be Box of floats, Discrete or "
            "MultiDiscrete"
        )


def categories(space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and first values of the categories of a Discrete or MultiDiscrete space."""
    if isinstance(space, spaces.Discrete):
        return np.array([space.n]), np.array([space.start])
    assert isinstance(space, spaces.MultiDiscrete)
    return space.nvec.reshape(-1), space.start.reshape(-1)


def bounded(space: spaces.Box) -> np.ndarray:
    """Which dimensions of a Box have two bounds, in its shape."""
    return (np.abs(space.low) < _UNBOUNDED) & (np.abs(space.high) < _UNBOUNDED)


def encoded_size(space: spaces.Space) -> int:
    """How many numbers `encode` makes of an observation, or `decode` needs for an action."""
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape))
    return int(categories(space)[0].sum())


def empty(space: spaces.Space) -> np.ndarray:
    """An array like an observation, to compile with."""
    return np.zeros(space.shape or (), space.dtype)


def encode(space: spaces.Space, obs: jax.Array) -> jax.Array:
    """One observation as a float32 vector: a Box flattened, categories one-hot."""
    if isinstance(space, spaces.Box):
        return jnp.ravel(obs).astype(jnp.float32)
    sizes, starts = categories(space)
    chosen = jnp.ravel(obs) - starts
    return jnp.concatenate([jax.nn.one_hot(c, n) for c, n in zip(chosen, sizes, strict=True)])


def decode(
    space: spaces.Space, head: jax.Array, *, squash: str, sample: bool, key: jax.Array
) -> jax.Array:
    """One action from a network's output (encoded_size,).

    Args:
      space: the action space.
      head: for a Box the mean of the action, for categories their logits.
      squash: see `to_action`.
      sample: draw categories from the softmax of the logits instead of taking the largest.
      key: for the sampling.
    """
    if isinstance(space, spaces.Box):
        return to_action(space, head, squash)
    logits = split_logits(space, head)
    if sample:
        keys = jax.random.split(key, len(logits))
        chosen = [jax.random.categorical(k, x) for k, x in zip(keys, logits, strict=True)]
    else:
        chosen = [jnp.argmax(x) for x in logits]
    return to_action(space, jnp.stack(chosen), squash)


def split_logits(space: spaces.Space, head: jax.Array) -> list[jax.Array]:
    """The logits of each category of a Discrete or MultiDiscrete space, along the last axis."""
    sizes, _ = categories(space)
    return jnp.split(head, np.cumsum(sizes)[:-1], axis=-1)


def to_action(space: spaces.Space, raw: jax.Array, squash: str) -> jax.Array:
    """The action that raw numbers stand for.

    Args:
      space: the action space.
      raw: (k,) floats for a Box; for categories (c,) ints, counted from 0.
      squash: how a Box is kept within its bounds: "tanh" scales tanh(raw) to them, "clip" cuts;
        an unbounded dimension gets the number itself.
    """
    if not isinstance(space, spaces.Box):
        _, starts = categories(space)
        return jnp.reshape(raw + starts, space.shape).astype(jnp.int32)
    has_bounds = bounded(space)
    low, high = (np.where(has_bounds, edge, 0.0) for edge in (space.low, space.high))
    value = jnp.reshape(raw, space.shape)
    if squash == "tanh":
        scaled = low + (jnp.tanh(value) + 1.0) * 0.5 * (high - low)
        value = jnp.where(has_bounds, scaled, value)
    return jnp.clip(value, space.low, space.high).astype(jnp.float32)


def to_json(space: spaces.Space) -> dict[str, Any]:
    """A description of a supported space that `from_json` reads."""
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
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    assert isinstance(space, spaces.MultiDiscrete)
    return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}


def from_json(description: dict[str, Any]) -> spaces.Space:
    """The space that `to_json` described, if it is of a size that policies have.

    Raises:
      ValueError, KeyError, TypeError, ArithmeticError, RecursionError: it is none of those.
    """
    match description["type"]:
        case "Box":
            return _box(description)
        case "Discrete":
            sizes, starts = (np.asarray(description[k]) for k in ("n", "start"))
            _check_categories(sizes, starts)
            if sizes.ndim:
                raise UserError("a Discrete space must have one number of categories")
            return spaces.Discrete(int(sizes), start=int(starts))
        case "MultiDiscrete":
            sizes, starts = (np.asarray(description[k]) for k in ("nvec", "start"))
            _check_categories(sizes, starts)
            return spaces.MultiDiscrete(sizes, start=starts)
    raise UserError("the type of a space must be Box, Discrete or MultiDiscrete")


def _box(description: dict[str, Any]) -> spaces.Box:
    shape, dtype = tuple(description["shape"]), description["dtype"]
    if dtype not in _DTYPES:
        raise UserError(f"the dtype {dtype!r} of a Box must be one of {', '.join(_DTYPES)}")
    # Python's own integers do not overflow; and none may be large where another is 0.
    if any(type(n) is not int or not 0 <= n <= _MAX_SIZE for n in shape) or (
        math.prod(shape) > _MAX_SIZE
    ):
        raise UserError(
            f"the shape {shape} of a Box must be of integers, and of at most {_MAX_SIZE} numbers"
        )
    with np.errstate(over="raise", invalid="raise"):
        low, high = (np.asarray(_bound(description[k]), dtype) for k in ("low", "high"))
    low, high = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
    if not (low <= high).all():
        raise UserError("no low of a Box may be above its high")
    return spaces.Box(low, high, shape, np.dtype(dtype).type)


def _check_categories(sizes: np.ndarray, starts: np.ndarray) -> None:
    for numbers in (sizes, starts):
        if numbers.dtype != np.int64 or numbers.shape != sizes.shape:
            raise UserError("categories must be integers, as many as starts")
    if not 1 <= sizes.size <= _MAX_CATEGORICAL:
        raise UserError(f"{sizes.size} dimensions: must be from 1 to {_MAX_CATEGORICAL}")
    if not ((sizes >= 1) & (sizes <= _MAX_SIZE)).all() or sizes.sum() > _MAX_SIZE:
        raise UserError(f"categories must be at least 1, and at most {_MAX_SIZE} in all")
    # Actions and observations are int32.
    if not (np.abs(starts.astype(np.float64)) < 2**30).all():
        raise UserError("starts of categories must be between -2**30 and 2**30")


def _to_json(edge: Any) -> Any:
    """Numbers in which infinities are text, as JSON has no infinity."""
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
