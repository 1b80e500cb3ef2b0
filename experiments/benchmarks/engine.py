"""Benchmarks of the engine alone: forward pass, update and memory of a population."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

import es_rl
from es_rl.devices import AXIS, Program, make_mesh, spread
from es_rl.noise import LowRank, sample
from experiments.benchmarks.timing import Contender, Row, Table, side_by_side

_SIZES = {"64-256x3-8": (64, (256,) * 3, 8), "256-1024x3-32": (256, (1024,) * 3, 32)}
_SCAN_STEPS = 50
_MOST_BYTES = 6e9
"""Rows that would need more memory than this are left out."""


class _MLP(nn.Module):
    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.hidden:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


def forward(rounds: int, devices: int | None) -> list[Table]:
    """(a) The forward pass of a population: one observation per member."""
    mesh = make_mesh(devices)
    tables = [_forward(size, 1024, mesh, rounds) for size in _SIZES]
    # The smallest number of members that a rollout on a CPU steps at once.
    return [*tables, _forward("64-256x3-8", 32 * mesh.size, mesh, rounds)]


_Forward: TypeAlias = Callable[[Any, jax.Array], Any]
"""(the members' own data, x (members, in)) -> (members, out)."""


def _forward(size: str, population: int, mesh: Mesh, rounds: int) -> Table:
    x = jax.random.normal(jax.random.key(2), (population, _SIZES[size][0]))
    variants, notes = _variants(size, population)
    contenders = [_call(f"call: {name}", *variant, x) for name, variant in variants.items()]
    contenders += [_scan(f"scan: {name}", *variant, x, mesh) for name, variant in variants.items()]
    taken = side_by_side(contenders, 3 * rounds)
    reference = next(iter(variants))
    rows = []
    for name in variants:
        values: dict[str, float | None] = {}
        for kind, steps in (("call", 1), ("scan", _SCAN_STEPS)):
            seconds = taken[f"{kind}: {name}"][0]
            values[f"{kind} ms"] = seconds / steps * 1e3
            values[f"{kind} ratio"] = taken[f"{kind}: {reference}"][0] / seconds
        rows.append(Row(name, values))
    title = f"(a) forward, MLP {size}, {population} members, one observation each"
    columns = {f"{kind} {what}": ".2f" for kind in ("call", "scan") for what in ("ms", "ratio")}
    notes = [
        "call: a single call on one device. scan: time per step of a scan in which each step is "
        f"fed by the one before, the members spread over {mesh.size} devices as in a rollout; XLA "
        "moves what does not change out of the scan, looking up and regenerating included.",
        *notes,
    ]
    return Table(title, columns, rows, notes)


def _variants(size: str, population: int) -> tuple[dict[str, tuple[_Forward, Any]], list[str]]:
    """Different ways to compute the same outputs, each with its input, the reference first; and
    notes."""
    inputs, hidden, outputs = _SIZES[size]
    module = _MLP(hidden, outputs)
    params = module.init(jax.random.key(0), jnp.zeros(inputs))
    es = es_rl.eggroll(population_size=population)
    state = es.init(jax.random.key(1), params)
    noise = jax.jit(es.ask)(state)
    members = jnp.arange(population)
    look_up = jax.vmap(es_rl.select, in_axes=(None, None, 0))

    def shared(members: jax.Array, x: jax.Array) -> Any:
        return module.apply(params, x)

    def kept(selected: Any, x: jax.Array) -> Any:
        apply = jax.vmap(es_rl.apply_selected, in_axes=(None, None, 0, 0))
        return apply(module, params, selected, x)

    def looked_up(members: jax.Array, x: jax.Array) -> Any:
        return kept(look_up(params, noise, members), x)

    def regenerated(members: jax.Array, x: jax.Array) -> Any:
        def one(member: jax.Array, x: jax.Array) -> jax.Array:
            key = jax.random.fold_in(state.key, member // es.noise_reuse)
            own = es_rl.Noise(sample(key, params, draws=1, rank=1), noise.sigma, noise_reuse=0)
            return es_rl.perturbed_apply(module, params, own, 0, x)

        return jax.vmap(one)(members, x)

    def full(trees: Any, x: jax.Array) -> Any:
        return jax.vmap(module.apply)(trees, x)

    variants: dict[str, tuple[_Forward, Any]] = {
        "shared weights, no noise": (shared, members),
        "factors kept, looked up before": (kept, jax.jit(look_up)(params, noise, members)),
        "factors kept, looked up in the call": (looked_up, members),
        "factors regenerated in the call": (regenerated, members),
    }
    full_bytes = 4 * population * sum(leaf.size for leaf in jax.tree.leaves(params))
    if full_bytes > _MOST_BYTES:
        missing = f"full parameters per member: not run, they take {full_bytes * 1e-9:.1f} GB"
        return variants, [missing]
    materialize = jax.jit(jax.vmap(es_rl.materialize, in_axes=(None, None, 0)))
    variants["full parameters per member"] = (full, materialize(params, noise, members))
    return variants, []


def _call(name: str, function: _Forward, own: Any, x: jax.Array) -> Contender:
    program = Program(function)
    return Contender(name, lambda _: program(own, x), lambda _: program.compile(own, x))


def _scan(name: str, function: _Forward, own: Any, x: jax.Array, mesh: Mesh) -> Contender:
    def run(own: Any, x: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x + 1e-3 * jnp.mean(function(own, x), axis=1, keepdims=True), None

        return jax.lax.scan(step, x, None, _SCAN_STEPS)[0]

    apart = PartitionSpec(AXIS)
    over_devices = jax.shard_map(run, mesh=mesh, in_specs=apart, out_specs=apart, check_vma=False)
    return _call(name, over_devices, *jax.device_put((own, x), spread(mesh)))


def update(rounds: int) -> list[Table]:
    """(b) The gradient estimate from the members' shaped fitness."""
    return [_update("64-256x3-8", 1024, rounds), _update("256-1024x3-32", 1024, rounds)]


def _update(size: str, population: int, rounds: int) -> Table:
    inputs, hidden, outputs = _SIZES[size]
    params = _MLP(hidden, outputs).init(jax.random.key(0), jnp.zeros(inputs))
    shaped = jax.random.normal(jax.random.key(1), (population,))
    es, open_es = es_rl.eggroll(population), es_rl.open_es(population)
    noise = jax.jit(es.ask)(es.init(jax.random.key(2), params))

    def bare(noise: es_rl.Noise, shaped: jax.Array) -> list[jax.Array]:
        """Only the matrix products over the draws."""
        matrices = [eps for eps in noise.leaves if isinstance(eps, LowRank)]
        flat = [[x.reshape(-1, x.shape[-1]) for x in (eps.a, eps.b)] for eps in matrices]
        return [a.T @ b for a, b in flat]

    def explicit(noise: es_rl.Noise, shaped: jax.Array) -> Any:
        """The explicit sum over members, with each perturbation as a full matrix."""
        zeros = jax.tree.map(jnp.zeros_like, params)
        unit = dataclasses.replace(noise, sigma=jnp.float32(1))

        def add(total: Any, member: jax.Array) -> tuple[Any, None]:
            own = es_rl.materialize(zeros, unit, member)
            return jax.tree.map(lambda t, e: t + shaped[member] * e, total, own), None

        total, _ = jax.lax.scan(add, zeros, jnp.arange(population))
        return jax.tree.map(lambda t: t / (population * noise.sigma), total)

    def contender(name: str, function: Any, noise: es_rl.Noise) -> Contender:
        program = Program(function)
        return Contender(
            name,
            lambda _: program(noise, shaped),
            lambda _: program.compile(noise, shaped),
        )

    def gradient(of: es_rl.EvolutionStrategy) -> Callable[..., Any]:
        return lambda noise, shaped: of.gradient(params, noise, shaped)

    contenders = [
        contender("bare matrix products over the draws", bare, noise),
        contender("update", gradient(es), noise),
        contender("explicit sum over members", explicit, noise),
    ]
    notes = []
    full_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(params)) * open_es.num_draws
    if full_bytes <= _MOST_BYTES:
        full = jax.jit(open_es.ask)(open_es.init(jax.random.key(2), params))
        contenders.append(contender("OpenES, full noise kept", gradient(open_es), full))
    else:
        notes.append(f"OpenES: not run, its noise takes {full_bytes * 1e-9:.1f} GB")
    taken = side_by_side(contenders, 3 * rounds)
    reference = taken[contenders[0].name][0]
    rows = [
        Row(c.name, {"ms": taken[c.name][0] * 1e3, "ratio": reference / taken[c.name][0]})
        for c in contenders
    ]
    title = f"(b) update, MLP {size}, {population} members in mirrored pairs"
    return Table(title, {"ms": ".3f", "ratio": ".3f"}, rows, notes)


def memory() -> list[Table]:
    """(e) Memory of a generation's noise and of a population's forward pass, as XLA plans it."""
    population = 256
    rows = []
    for label, width in (("1 M", 572), ("10 M", 1820), ("100 M", 5768)):
        module = _MLP((width,) * 4, 32)
        shape = jax.ShapeDtypeStruct((64,), jnp.float32)
        params = jax.eval_shape(module.init, jax.random.key(0), shape)
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        values: dict[str, float | None] = {"parameters": count}
        optimizer = optax.identity()
        for name, es in (
            ("low rank", es_rl.eggroll(population, optimizer=optimizer)),
            ("full rank", es_rl.open_es(population, optimizer=optimizer)),
        ):
            noise_bytes, forward_bytes = _memory(es, module, params)
            values[f"{name}: noise"] = noise_bytes / population / 1e6
            values[f"{name}: forward"] = forward_bytes / population / 1e6
        rows.append(Row(label, values))
    columns = {"parameters": ",.0f"} | {
        f"{name}: {kind}": ",.3f"
        for name in ("low rank", "full rank")
        for kind in ("noise", "forward")
    }
    title = f"(e) memory, MB a member, {population} members in mirrored pairs, MLP 64-Wx4-32"
    notes = ["noise: what `ask` keeps; forward: XLA's temporary buffers, planned and not run."]
    return [Table(title, columns, rows, notes)]


def _memory(es: es_rl.EvolutionStrategy, module: nn.Module, params: Any) -> tuple[int, int]:
    """Bytes of a generation's noise, and of the temporary memory of the population's forward
    pass."""
    noise = jax.eval_shape(lambda params: es.ask(es.init(jax.random.key(0), params)), params)
    members = jnp.arange(es.population_size)
    x = jax.ShapeDtypeStruct((es.population_size, 64), jnp.float32)

    def run(params: Any, noise: es_rl.Noise, x: jax.Array) -> jax.Array:
        apply = jax.vmap(es_rl.perturbed_apply, in_axes=(None, None, None, 0, 0))
        return apply(module, params, noise, members, x)

    plan = jax.jit(run).lower(params, noise, x).compile().memory_analysis()
    assert plan is not None
    kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(noise))
    return kept, plan.temp_size_in_bytes
