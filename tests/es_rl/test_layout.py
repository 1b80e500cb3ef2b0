"""How networks use their leaves as matrices, and their forward where they do so in other ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import es_rl
from es_rl import LowRank, View
from tests.es_rl.networks import Heads, Layer, scanned

POPULATION = 4
X = jnp.linspace(-1, 1, 40).reshape(5, 8)


@pytest.fixture(autouse=True)
def _broadcasting():
    with jax.numpy_rank_promotion("allow"):  # Flax's own layers broadcast ranks
        yield


class Loops(nn.Module):
    """The same matrix in a loop and in both branches of a condition, reshaped and sliced."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(0.5), (8, 2, 4))
        w = w.reshape(8, 8)
        x = jax.lax.fori_loop(0, 2, lambda i, x: jnp.tanh(x @ w), x)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ w[:, :3], lambda x: x @ w[:, 3:6], x)


class Experts(nn.Module):
    """One matrix of a stack, chosen by the input."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(0.5), (3, 8, 4))
        return x @ w[jnp.argmax(x[0, :3])]


KERNELS = {
    "attention": (nn.MultiHeadDotProductAttention(2), X, ((8, 2, 4), View((0,), (1, 2)))),
    "attention, out": (nn.MultiHeadDotProductAttention(2), X, ((2, 4, 8), View((0, 1), (2,)))),
    "scanned": (scanned(Layer), (X, None), ((3, 8, 8), View((1,), (2,)))),
    "scanned attention": (scanned(Heads), (X, None), ((3, 8, 2, 4), View((1,), (2, 3)))),
    "strided": (nn.Conv(6, (3, 2), 2), jnp.ones((9, 8, 4)), ((3, 2, 4, 6), View((0, 1, 2), (3,)))),
    "dilated": (
        nn.Conv(3, (3,), kernel_dilation=2),
        jnp.ones((9, 2)),
        ((3, 2, 3), View((0, 1), (2,))),
    ),
    "grouped": (
        nn.Conv(6, (3,), feature_group_count=2),
        jnp.ones((9, 4)),
        ((3, 2, 6), View((0, 1), (2,))),
    ),
    "depthwise": (
        nn.Conv(8, (3,), feature_group_count=4),
        jnp.ones((9, 4)),
        ((3, 1, 8), View((0, 1), (2,))),
    ),
    "transposed convolution": (
        nn.ConvTranspose(3, (3, 2), (2, 1)),
        jnp.ones((5, 4, 2)),
        ((3, 2, 2, 3), View((0, 1, 2), (3,))),
    ),
    "remat attention": (
        nn.remat(nn.MultiHeadDotProductAttention)(2),
        X,
        ((8, 2, 4), View((0,), (1, 2))),
    ),
    "loops": (Loops(), X, ((8, 2, 4), View((0,), (1, 2)))),
    "experts": (Experts(), X, ((3, 8, 4), View((1,), (2,)))),
}


def inputs_of(example):
    return example if isinstance(example, tuple) else (example,)


@pytest.mark.parametrize("name", KERNELS)
def test_the_view_of_a_kernel_and_its_forward(name):
    module, example, (shape, view) = KERNELS[name]
    args = inputs_of(example)
    params = module.init(jax.random.key(0), *args)
    layout = es_rl.layout(module, params, *args)
    found = {
        v for v, leaf in zip(layout, jax.tree.leaves(params), strict=True) if leaf.shape == shape
    }
    assert found == {view}
    es = es_rl.eggroll(POPULATION, rank=2, sigma=0.3, layout=layout)
    state = es.init(jax.random.key(1), params)
    noise = es.ask(state)
    x = jax.random.normal(jax.random.key(2), (POPULATION, *args[0].shape))

    def perturbed(member, x):
        return es_rl.perturbed_apply(module, params, noise, member, x, *args[1:])

    def materialised(member, x):
        return module.apply(es_rl.materialize(params, noise, member), x, *args[1:])

    members = jnp.arange(POPULATION)
    got, want, plain = (
        jax.tree.leaves(jax.jit(jax.vmap(f))(members, x))[0]
        for f in (perturbed, materialised, lambda _, x: module.apply(params, x, *args[1:]))
    )
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    assert float(jnp.abs(got - plain).max()) > 1e-2


def test_stacked_vectors_get_full_noise_of_their_own():
    module = scanned(Layer)
    params = module.init(jax.random.key(0), X, None)
    views = dict(
        zip(
            (jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)),
            es_rl.layout(module, params, X, None),
            strict=True,
        )
    )
    vectors = [view for name, view in views.items() if "bias" in name or "scale" in name]
    assert vectors == [None] * 3


def test_a_leaf_with_two_uses_is_judged_by_its_shape():
    def two_ways(params, x):
        return jnp.einsum("i,ijk->jk", x, params["w"]), jnp.einsum("j,ijk->ik", x, params["w"])

    params = {"w": jnp.ones((4, 4, 4))}
    assert es_rl.layout(two_ways, params, jnp.ones(4)) == (View((0, 1), (2,)),)


@pytest.mark.parametrize(
    "view", [View((0,), (1, 2)), View((0, 1), (2,)), View((1,), (2,)), View((0,), (2,))]
)
@pytest.mark.parametrize("rank", [1, 3])
def test_the_update_of_any_view_is_the_explicit_sum(view, rank):
    params = {"w": jnp.linspace(-1, 1, 24).reshape(2, 3, 4)}
    es = es_rl.eggroll(12, rank=rank, sigma=0.5, layout=(view,))
    noise = es.ask(es.init(jax.random.key(0), params))
    assert isinstance(noise.leaves[0], LowRank)
    shaped = jax.random.normal(jax.random.key(5), (12,))
    members = jax.vmap(lambda i: es_rl.materialize(params, noise, i)["w"])(jnp.arange(12))
    moves = np.float64(members) - np.float64(params["w"])
    want = np.tensordot(np.float64(shaped), moves, axes=1) / (12 * 0.25)
    got = es.gradient(params, noise, shaped)["w"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)


def test_a_layout_of_another_tree_is_refused():
    es = es_rl.eggroll(4, layout=(None, None))
    with pytest.raises(ValueError, match="layout: is of 2 leaves: must be of these 1"):
        es.init(jax.random.key(0), {"w": jnp.ones((2, 2))})


class Modes(nn.Module):
    """Running averages, dropout, and a method of its own."""

    def setup(self):
        self.dense, self.norm = nn.Dense(4), nn.BatchNorm()
        self.dropout = nn.Dropout(0.5)

    def encode(self, x, train):
        return self.dropout(self.dense(x), deterministic=not train)

    def __call__(self, x, train):
        return self.norm(self.encode(x, train), use_running_average=not train)


class Normalised(nn.Module):
    """Running averages between two matrices, of which the second has three axes."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x)).reshape(-1, 2, 3)
        return nn.DenseGeneral(4, axis=(-2, -1), name="out")(x)


@pytest.mark.parametrize(
    "options",
    [
        {"train": False},
        {"train": False, "method": "encode"},
        {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(3)}},
    ],
)
def test_modes_other_variables_and_dropout(options):
    module = Modes()
    variables = module.init(jax.random.key(0), X, train=False)
    params = {"params": variables["params"]}
    others = {"batch_stats": jax.tree.map(lambda s: s + 0.5, variables["batch_stats"])}
    es = es_rl.eggroll(POPULATION, sigma=0.3)
    noise = es.ask(es.init(jax.random.key(1), params))
    got = es_rl.perturbed_apply(module, params, noise, 1, X, variables=others, **options)
    member = es_rl.materialize(params, noise, 1)
    want = module.apply({**others, **member}, X, **options)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5), got, want)


def test_the_layout_of_a_network_with_other_variables():
    """Only the parameters are looked at; where the other variables are needed they are given."""
    module = Normalised()
    variables = module.init(jax.random.key(0), X, train=False)
    params = {"params": variables["params"]}
    others = {"batch_stats": jax.tree.map(lambda s: s + 0.5, variables["batch_stats"])}
    views = es_rl.layout(module, params, X, variables=others, train=False)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    kernels = {"params/Dense_0/kernel": View((0,), (1,)), "params/out/kernel": View((0, 1), (2,))}
    assert dict(zip(paths, views, strict=True)) == {
        **dict.fromkeys(("params/BatchNorm_0/bias", "params/BatchNorm_0/scale")),
        **dict.fromkeys(("params/Dense_0/bias", "params/out/bias")),
        **kernels,
    }
    shapes = jax.eval_shape(lambda: (params, X, others))
    assert es_rl.layout(module, *shapes[:2], variables=shapes[2], train=False) == views
    alone = es_rl.layout(module, params["params"], X, variables=others, train=False)
    assert alone == views
    es = es_rl.eggroll(POPULATION, sigma=0.3, layout=views)
    noise = es.ask(es.init(jax.random.key(1), params))
    got = es_rl.perturbed_apply(module, params, noise, 1, X, variables=others, train=False)
    member = es_rl.materialize(params, noise, 1)
    want = module.apply({**others, **member}, X, train=False)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_other_variables_are_refused_without_a_linen_module():
    with pytest.raises(ValueError, match="variables: must be given with Flax linen modules alone"):
        es_rl.layout(lambda p, x: x @ p, jnp.ones((8, 2)), X, variables={"batch_stats": {}})


class NnxNorm(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(8, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x))


def test_what_an_nnx_module_changes_of_itself_stays_within_the_call():
    module = NnxNorm(nnx.Rngs(0))
    params = nnx.state(module, nnx.Param)
    before = jax.tree.map(np.array, nnx.state(module, nnx.BatchStat))
    es = es_rl.eggroll(POPULATION, sigma=0.3)
    noise = es.ask(es.init(jax.random.key(1), params))
    apply = jax.vmap(es_rl.perturbed_apply, in_axes=(None, None, None, 0, None))
    got = apply(module, params, noise, jnp.arange(2), X)
    after = nnx.state(module, nnx.BatchStat)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    graph, _, others = nnx.split(module, nnx.Param, ...)
    want = nnx.merge(graph, es_rl.materialize(params, noise, 1), others, copy=True)(X)
    np.testing.assert_allclose(got[1], want, rtol=1e-5, atol=1e-5)


def test_description():
    params = {"b": jnp.ones(3), "stack": jnp.ones((2, 4, 3)), "w": jnp.ones((4, 3))}
    es = es_rl.eggroll(8, rank=2, layout=(None, View((1,), (2,)), View((0,), (1,))))
    described = es_rl.describe(es, params)
    assert [leaf.noise for leaf in described.leaves] == [
        "full",
        "rank 2 of 2 times 4 x 3",
        "rank 2 of 4 x 3",
    ]
    assert [leaf.numbers for leaf in described.leaves] == [3, 28, 14]
    assert described.summary == (
        "39 parameters, 45 random numbers a draw; noise: 92.3% low-rank, 7.7% full"
    )
    assert str(described).count("\n") == 4
