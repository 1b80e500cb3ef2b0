"""Noise: new in every generation, different in every leaf, and a pure function of its names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import es_rl
from es_rl import noise as noise_module

PARAMS = {
    "a": {"kernel": jnp.zeros((6, 4)), "bias": jnp.zeros(4)},
    "b": {"kernel": jnp.zeros((6, 4)), "bias": jnp.zeros(4)},
}


def noise_of(seed=0, generation=0, **options):
    es = es_rl.eggroll(**{"population_size": 8, **options})
    state = es.init(jax.random.key(seed), PARAMS)
    return es.ask(state.replace(generation=jnp.int32(generation)))


def differs(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(not np.allclose(a, b) for a, b in pairs)


def test_every_leaf_generation_and_seed_has_noise_of_its_own():
    bias_a, kernel_a, bias_b, kernel_b = noise_of().leaves
    assert differs(kernel_a, kernel_b)
    assert differs(bias_a, bias_b)
    assert differs(noise_of().leaves, noise_of(generation=1).leaves)
    assert differs(noise_of().leaves, noise_of(seed=1).leaves)
    assert np.unique(kernel_a.a).size == kernel_a.a.size, "draws repeat"


def test_a_draw_depends_on_nothing_but_its_names():
    small, large = noise_of(population_size=4).leaves, noise_of(population_size=16).leaves
    for few, many in zip(jax.tree.leaves(small), jax.tree.leaves(large), strict=True):
        np.testing.assert_array_equal(few, many[: len(few)])
    alone = noise_module.sample(
        jax.random.fold_in(jax.random.key(0), 0), {"b": PARAMS["b"]}, draws=4, rank=1
    )
    np.testing.assert_array_equal(alone[1].a, noise_of().leaves[3].a)


@pytest.mark.parametrize(
    ("reuse", "draws", "signs"),
    [
        (0, [0, 1, 2, 3], [1, 1, 1, 1]),
        (1, [0, 1, 2, 3], [1, 1, 1, 1]),
        (2, [0, 0, 1, 1], [1, -1, 1, -1]),
        (4, [0, 0, 0, 0], [1, -1, 1, -1]),
    ],
)
def test_noise_reuse_names_draws_and_signs(reuse, draws, signs):
    draw, sign = noise_module.draw_and_sign(jnp.arange(4), reuse)
    np.testing.assert_array_equal(draw, draws)
    np.testing.assert_array_equal(sign, signs)
    noise = noise_of(population_size=8, noise_reuse=reuse)
    assert noise.leaves[0].e.shape[0] == 8 // max(reuse, 1)


def test_factors_are_standard_normal():
    es = es_rl.eggroll(population_size=4096, rank=2)
    noise = es.ask(es.init(jax.random.key(3), {"w": jnp.zeros((8, 8))}))
    values = np.concatenate([np.ravel(noise.leaves[0].a), np.ravel(noise.leaves[0].b)])
    # Statistical: 65,536 numbers, bounds of 5 standard errors.
    assert abs(values.mean()) < 5 / 256
    assert abs(values.var() - 1) < 5 * np.sqrt(2) / 256


def test_eggroll_approaches_open_es_as_the_rank_grows():
    """Entries of E have kurtosis 3 + 6/r: 9 at rank 1, 3 for OpenES (statistical)."""
    params = {"w": jnp.zeros((4, 4))}

    def perturbations(es):
        state = es.init(jax.random.key(0), params)
        noise = es.ask(state)
        members = jnp.arange(0, es.population_size, 2)
        return jax.vmap(lambda m: es_rl.materialize(params, noise, m)["w"])(members)

    def kurtosis(rank):
        e = perturbations(es_rl.eggroll(16384, rank=rank, sigma=1.0))
        np.testing.assert_allclose(e.var(), 1.0, atol=0.05)
        return float((e**4).mean() / e.var() ** 2)

    full = perturbations(es_rl.open_es(16384, sigma=1.0))
    assert abs(float((full**4).mean() / full.var() ** 2) - 3) < 0.15
    for rank, tolerance in ((1, 1.0), (4, 0.4), (64, 0.2)):
        assert abs(kurtosis(rank) - (3 + 6 / rank)) < tolerance
