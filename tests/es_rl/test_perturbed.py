"""Invariant 1: the perturbed forward is the forward with the materialised parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import es_rl

POPULATION = 8


class Tied(nn.Module):
    """An embedding that is also the output layer, and a matrix used elementwise."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 6)
        x = embed(tokens)
        x = x + self.param("positions", nn.initializers.normal(1.0), (3, 6))
        return embed.attend(nn.LayerNorm()(x))


class Recurrent(nn.Module):
    """A GRU scanned over time by Flax, which hides its matrices inside a scan."""

    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.GRUCell(7))(x)


class Step(nn.Module):
    """One step of a GRU."""

    @nn.compact
    def __call__(self, carry, x):
        return nn.GRUCell(5)(carry, x)


class LeftProduct(nn.Module):
    """A matrix that multiplies from the left, transposed, and through a triple contraction."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(1.0), (4, 6))
        return (
            w.T @ x,
            jnp.einsum("ij,i->j", w, x),
            w.astype(jnp.bfloat16) @ jnp.ones((6, 2), "bfloat16"),
        )


def mlp():
    return nn.Sequential([nn.Dense(16), nn.tanh, nn.LayerNorm(), nn.Dense(3)])


MODULES = {
    "dense": (mlp(), (jnp.ones(5),)),
    "dense on a sequence": (mlp(), (jnp.ones((4, 5)),)),
    "convolution": (nn.Sequential([nn.Conv(3, (3, 3)), nn.relu]), (jnp.ones((8, 8, 2)),)),
    "tied embedding": (Tied(), (jnp.array([1, 4, 10]),)),
    "one embedded token": (nn.Embed(9, 4), (jnp.int32(3),)),
    "gru step": (Step(), (jnp.ones(5), jnp.ones(3))),
    "gru scanned": (Recurrent(), (jnp.ones((6, 3)),)),
    "attention": (nn.MultiHeadDotProductAttention(num_heads=2), (jnp.ones((5, 8)),)),
    "left products": (LeftProduct(), (jnp.ones(4),)),
    "rematerialised": (nn.remat(nn.Dense)(7), (jnp.ones(5),)),
}


def vary(args, key):
    """One input per member."""

    def spread(x):
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.stack([x] * POPULATION)
        return jax.random.normal(key, (POPULATION, *x.shape))

    return jax.tree.map(spread, args)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:.*rank.*")
def test_equals_the_materialised_forward(name, rank):
    module, example = MODULES[name]
    with jax.numpy_rank_promotion("allow"):  # Flax's own layers broadcast ranks
        variables = module.init(jax.random.key(0), *example)
        es = es_rl.eggroll(population_size=POPULATION, rank=rank, sigma=0.3)
        state = es.init(jax.random.key(1), variables)
        noise = es.ask(state)
        args = vary(example, jax.random.key(2))
        members = jnp.arange(POPULATION)

        def perturbed(member, args):
            return es_rl.perturbed_apply(module, state.params, noise, member, *args)

        def materialised(member, args):
            return module.apply(es_rl.materialize(state.params, noise, member), *args)

        got = jax.jit(jax.vmap(perturbed))(members, args)
        want = jax.jit(jax.vmap(materialised))(members, args)
        unperturbed = jax.vmap(lambda args: module.apply(variables, *args))(args)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda g, w: assert_close(g, w), got, want)
    first = jax.tree.leaves(got)[0] - jax.tree.leaves(unperturbed)[0]
    assert float(jnp.abs(first).max()) > 1e-2


def assert_close(got, want):
    assert got.dtype == want.dtype
    tolerance = 0.05 if got.dtype == jnp.bfloat16 else 2e-5
    np.testing.assert_allclose(np.float32(got), np.float32(want), rtol=tolerance, atol=tolerance)


def test_takes_the_params_collection_alone():
    module = nn.Dense(3)
    variables = module.init(jax.random.key(0), jnp.ones(4))
    es = es_rl.eggroll(population_size=4)
    state = es.init(jax.random.key(1), variables["params"])
    noise = es.ask(state)
    got = es_rl.perturbed_apply(module, state.params, noise, 1, jnp.ones(4))
    member = es_rl.materialize(state.params, noise, 1)
    np.testing.assert_allclose(got, module.apply({"params": member}, jnp.ones(4)), rtol=1e-5)


class NnxNetwork(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


def test_nnx_modules_go_the_same_way():
    with jax.numpy_rank_promotion("allow"):
        module = NnxNetwork(nnx.Rngs(0))
        es = es_rl.eggroll(population_size=4, sigma=0.2)
        state = es.init(jax.random.key(1), nnx.state(module, nnx.Param))
        noise = es.ask(state)
        x = jnp.arange(4.0)
        got = es_rl.perturbed_apply(module, state.params, noise, 2, x)
        graphdef, _ = nnx.split(module)
        want = nnx.merge(graphdef, es_rl.materialize(state.params, noise, 2))(x)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert float(jnp.abs(got - module(x)).max()) > 1e-3


def test_open_es_and_frozen_vectors():
    module = mlp()
    variables = module.init(jax.random.key(0), jnp.ones(5))
    for es in (
        es_rl.open_es(population_size=4, sigma=0.2),
        es_rl.eggroll(population_size=4, sigma=0.2, freeze_vectors=True),
    ):
        state = es.init(jax.random.key(1), variables)
        noise = es.ask(state)
        with jax.numpy_rank_promotion("allow"):
            got = es_rl.perturbed_apply(module, state.params, noise, 3, jnp.ones(5))
            want = module.apply(es_rl.materialize(state.params, noise, 3), jnp.ones(5))
        np.testing.assert_allclose(got, want, rtol=1e-5)
    bias = es_rl.materialize(state.params, noise, 3)["params"]["layers_0"]["bias"]
    np.testing.assert_array_equal(bias, variables["params"]["layers_0"]["bias"])


def shapes_in(jaxpr):
    """The shapes of all values in a jaxpr, sub-jaxprs included."""
    for eqn in jaxpr.eqns:
        yield from (v.aval.shape for v in eqn.outvars)
        for sub in jax.tree.leaves(eqn.params, is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(sub, "eqns"):
                yield from shapes_in(sub)
            elif hasattr(sub, "jaxpr"):
                yield from shapes_in(sub.jaxpr)


def largest(function, *args):
    closed = jax.make_jaxpr(function)(*args)
    return max(int(np.prod(shape)) for shape in shapes_in(closed.jaxpr))


def test_no_array_of_population_times_matrix_exists():
    population, inputs, outputs = 64, 96, 128
    module = nn.Dense(outputs)
    variables = module.init(jax.random.key(0), jnp.ones(inputs))
    x = jnp.ones((population, inputs))

    def forward(es, x, state):
        noise = es.ask(state)
        members = jnp.arange(population)
        return jax.vmap(lambda m, x: es_rl.perturbed_apply(module, state.params, noise, m, x))(
            members, x
        )

    def update(es, fitness, state):
        return es.tell(state, es.ask(state), fitness)[0]

    draws = population // 2
    with jax.numpy_rank_promotion("allow"):
        low, full = es_rl.eggroll(population, rank=2), es_rl.open_es(population)
        for function, args in ((forward, x), (update, jnp.ones(population))):
            state = low.init(jax.random.key(0), variables)
            assert largest(functools.partial(function, low, args), state) < draws * inputs * outputs
            # The probe itself: full noise is found where it is used.
            state = full.init(jax.random.key(0), variables)
            found = largest(functools.partial(function, full, args), state)
            assert found >= draws * inputs * outputs
