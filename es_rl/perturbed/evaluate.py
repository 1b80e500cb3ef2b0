"""Evaluation of a jaxpr (the trace of a function) in which some arrays are `Perturbed`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
from jax.extend import core

from es_rl.perturbed.arrays import Perturbed, Rule, dense, unstack

Run: TypeAlias = Callable[[core.ClosedJaxpr, list[Any]], list[Any]]
"""Evaluates a jaxpr within another one: (jaxpr, inputs) -> outputs."""


def evaluate(closed: core.ClosedJaxpr, args: list[Any], rules: Mapping[str, Rule]) -> list[Any]:
    """Compute the outputs of a jaxpr for inputs of which some are `Perturbed`.

    Args:
      closed: the jaxpr.
      args: the inputs of the jaxpr.
      rules: the rules for primitives with `Perturbed` inputs, by the primitive's name. If a
        primitive has no rule, its inputs are formed, which is slower but never wrong.

    Returns:
      The outputs, some of which may be `Perturbed`.
    """
    values: dict[core.Var, Any] = dict(zip(closed.jaxpr.invars, args, strict=True))
    values.update(zip(closed.jaxpr.constvars, closed.consts, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    def run(inner: core.ClosedJaxpr, inputs: list[Any]) -> list[Any]:
        return evaluate(inner, inputs, rules)

    for eqn in closed.jaxpr.eqns:
        inputs, name, outputs = [read(atom) for atom in eqn.invars], eqn.primitive.name, None
        if any(isinstance(value, Perturbed) for value in inputs):
            if name in _NESTED:
                outputs = _NESTED[name](inputs, eqn.params, run)
            elif name in rules:
                outputs = rules[name](inputs, eqn.params)
        if outputs is None:
            params = eqn.primitive.get_bind_params(eqn.params)
            outputs = eqn.primitive.bind(*map(dense, inputs), **params)
            if not eqn.primitive.multiple_results:
                outputs = [outputs]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _call(inputs: list[Any], params: dict[str, Any], run: Run) -> list[Any]:
    """Evaluate a call of an inner function. Its custom derivative rules, if any, are ignored."""
    inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
    if not isinstance(inner, core.ClosedJaxpr):
        inner = core.ClosedJaxpr(inner, ())
    return run(inner, inputs)


def _scan(inputs: list[Any], params: dict[str, Any], run: Run) -> list[Any]:
    """Evaluate a `scan`, whose body gets slices of W, A and B."""
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts, rest = inputs[:num_consts], inputs[num_consts:]
    parts, entries = unstack(rest[num_carry:])

    def body(carry: list[jax.Array], parts: list[Any]) -> tuple[list[jax.Array], list[jax.Array]]:
        outputs = run(params["jaxpr"], [*consts, *carry, *entries(parts)])
        arrays = list(map(dense, outputs))
        return arrays[:num_carry], arrays[num_carry:]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, stacked = jax.lax.scan(body, list(map(dense, rest[:num_carry])), parts, **options)
    return [*carry, *stacked]


def _while(inputs: list[Any], params: dict[str, Any], run: Run) -> list[Any]:
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    cond_consts, body_consts = inputs[: split[0]], inputs[split[0] : split[1]]

    def condition(carry: list[jax.Array]) -> jax.Array:
        return dense(run(params["cond_jaxpr"], [*cond_consts, *carry])[0])

    def body(carry: list[jax.Array]) -> list[jax.Array]:
        return list(map(dense, run(params["body_jaxpr"], [*body_consts, *carry])))

    return jax.lax.while_loop(condition, body, list(map(dense, inputs[split[1] :])))


def _cond(inputs: list[Any], params: dict[str, Any], run: Run) -> list[Any]:
    index, *operands = inputs
    branches = [
        lambda branch=branch: list(map(dense, run(branch, operands)))
        for branch in params["branches"]
    ]
    return jax.lax.switch(dense(index), branches)


_NESTED: dict[str, Callable[[list[Any], dict[str, Any], Run], list[Any]]] = {
    "checkpoint": _call,
    "closed_call": _call,
    "cond": _cond,
    "custom_jvp_call": _call,
    "custom_vjp_call": _call,
    "jit": _call,
    "pjit": _call,
    "remat2": _call,
    "scan": _scan,
    "while": _while,
}
"""Functions for the primitives that contain jaxprs, by the primitive's name."""
