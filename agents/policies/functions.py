"""Networks of every kind as pure functions of their parameters.

A network is a Flax linen module, a Flax NNX module, or a pair of functions (init, apply) with
`init(key, obs) -> params` and `apply(params, obs) -> outputs`, such as Haiku and Flax provide. It
is called on one observation. A module that has a method `initial_memory()` is called with a memory:
`module(memory, obs) -> (memory, outputs)`.

Only the parameters are trained, saved and loaded. Other variables of a module, such as the running
averages of BatchNorm, keep their initial values.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from envs.errors import UserError
from envs.precision import in_32_bits

PyTree: TypeAlias = Any
_ACCEPTED = "a Flax linen module, a Flax NNX module or a pair of functions (init, apply)"


@dataclass(frozen=True, eq=False)
class Functions:
    """A network as pure functions."""

    init: Callable[[jax.Array], PyTree]
    """Makes the parameters: key -> a pytree of float32 arrays."""
    apply: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, jax.Array]]
    """Runs the network: (parameters, memory, one observation) -> (memory, float32 outputs)."""
    memory: PyTree
    """The memory at the start of an episode, a pytree of arrays; () if the network has none."""
    params: PyTree = None
    """The shapes and dtypes of the parameters, a pytree of `jax.ShapeDtypeStruct`."""


@in_32_bits
def functions_of(setting: str, module: Any, shape: tuple[int, ...], num_outputs: int) -> Functions:
    """The functions of a network. The network is traced to check it, but not run.

    Args:
      setting: the name under which the network was given, for messages.
      module: the network.
      shape: the shape of one observation as the network reads it.
      num_outputs: how many numbers the network must return.

    Raises:
      UserError: the module is not a network, or its parameters or outputs have a wrong type or
        shape.
      Exception: whatever the network raises when it is traced.
    """
    called = f"{setting}={described(module)}"
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        functions = _functions(module, x)
        params = jax.eval_shape(functions.init, jax.eval_shape(jax.random.key, 0))
        outcome = jax.eval_shape(functions.apply, params, functions.memory, x)
    except _NoNetwork:
        raise UserError(f"{called}: must be {_ACCEPTED}") from None
    except Exception as error:
        error.add_note(f"{called} was called on one observation, float32 of shape {shape}")
        raise
    _check_params(called, params)
    _check_outcome(called, outcome, functions.memory, shape, num_outputs)
    return replace(functions, params=params)


def described(value: Any) -> str:
    """The name of an object of the user's: "module.QualifiedName" of its class, or of a function.

    For a pair of functions it is the name of the second one.
    """
    if isinstance(value, tuple) and len(value) == 2:
        return described(value[1])
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def named_leaves(params: PyTree) -> dict[str, Any]:
    """The leaves of a pytree by name ("/" joins the parts of a path), in the order of the pytree.

    Raises:
      UserError: two leaves have the same name.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    if len(named) != len(leaves):
        raise UserError("two parameters of the network have the same name: names must differ")
    return named


class _NoNetwork(Exception):
    """A value is not a network of any kind."""


def _functions(module: Any, x: jax.ShapeDtypeStruct) -> Functions:
    match module:
        case linen.Module():
            return _of_linen(module, x)
        case nnx.Module():
            return _of_nnx(module)
        case tuple() if len(module) == 2 and all(map(callable, module)):
            return _of_pair(module, x)
    raise _NoNetwork


def _of_pair(pair: Any, x: jax.ShapeDtypeStruct) -> Functions:
    init, apply = pair
    return Functions(
        lambda key: init(key, jnp.zeros(x.shape)),
        lambda params, memory, x: (memory, apply(params, x)),
        memory=(),
    )


def _memory(module: Any) -> PyTree:
    """The initial memory of a module; None if the module is called without a memory."""
    initial = getattr(module, "initial_memory", None)
    return None if initial is None else jax.tree.map(jnp.asarray, initial())


def _calling(run: Callable[..., Any], memory: PyTree) -> Any:
    """`run(params, *args)` as a function of (params, memory, x)."""
    if memory is None:
        return lambda params, memory, x: (memory, run(params, x))
    return run


def _of_linen(module: linen.Module, x: jax.ShapeDtypeStruct) -> Functions:
    memory = _memory(module)

    def variables(key: jax.Array) -> dict[str, Any]:
        obs = jnp.zeros(x.shape)
        return dict(module.init(key, obs) if memory is None else module.init(key, memory, obs))

    constants: dict[str, Any] = {}
    key = jax.eval_shape(jax.random.key, 0)
    if jax.eval_shape(variables, key).keys() - {"params"}:
        constants = jax.device_get(jax.jit(variables)(jax.random.key(0)))
        constants.pop("params", None)

    def init(key: jax.Array) -> dict[str, Any]:
        return {"params": variables(key).get("params", {})}

    def run(params: PyTree, *args: Any) -> Any:
        return module.apply({**constants, **params}, *args)

    return Functions(init, _calling(run, memory), () if memory is None else memory)


def _of_nnx(module: nnx.Module) -> Functions:
    """The functions of an NNX module; `init` returns the parameters that the module was made
    with."""
    memory = _memory(module)
    parts: Any = nnx.split(module, nnx.Param, ...)
    graph, params, others = parts
    # NNX states mix strings and integers as keys, which files and checkpoints do not support.
    start = flatten_dict(nnx.to_pure_dict(params))
    names = {path: tuple(map(str, path)) for path in start}
    start = {path: np.array(leaf) for path, leaf in start.items()}

    def init(key: jax.Array) -> PyTree:
        return unflatten_dict({names[path]: jnp.asarray(leaf) for path, leaf in start.items()})

    def run(trained: PyTree, *args: Any) -> Any:
        flat = flatten_dict(trained)
        state = jax.tree.map(lambda leaf: leaf, params)
        nnx.replace_by_pure_dict(
            state, unflatten_dict({path: flat[name] for path, name in names.items()})
        )
        # A copy, so that changes that the module makes to itself do not outlive the call.
        return nnx.merge(graph, state, others, copy=True)(*args)

    return Functions(init, _calling(run, memory), () if memory is None else memory)


def _check_params(called: str, params: PyTree) -> None:
    named = named_leaves(params)
    if not named:
        raise UserError(f"{called}: has no parameters: must have some to train")
    for name, leaf in named.items():
        if leaf.dtype != jnp.float32:
            raise UserError(f"{called}: its parameter {name} is {leaf.dtype}: must be float32")


def _check_outcome(
    called: str, outcome: Any, before: PyTree, shape: tuple[int, ...], num_outputs: int
) -> None:
    """Refuse a network whose outputs, or whose memory after a call, have a wrong shape or dtype."""
    memory, outputs = outcome if isinstance(outcome, tuple) and len(outcome) == 2 else (None, None)
    given = f"{called}: gives {_shown(outcome)} for one observation of shape {shape}"
    wanted = f"float32[{num_outputs}]"
    if jax.tree.leaves(before):
        is_kept = jax.tree.map(_shown, memory) == jax.tree.map(_shown, before)
        if not (is_kept and _fits(outputs, num_outputs)):
            raise UserError(f"{given}: must give (memory, outputs) of ({_shown(before)}, {wanted})")
    elif not _fits(outputs, num_outputs):
        given = f"{called}: gives {_shown(outputs)} for one observation of shape {shape}"
        raise UserError(f"{given}: must give {wanted}")


def _fits(outputs: Any, count: int) -> bool:
    shape, dtype = getattr(outputs, "shape", None), getattr(outputs, "dtype", None)
    return shape == (count,) and dtype == jnp.float32


def _shown(value: PyTree) -> str:
    """The dtypes and shapes of a pytree of arrays as text, such as "float32[3]"."""
    if hasattr(value, "shape"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_shown, value))})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) + "}"
    return type(value).__name__
