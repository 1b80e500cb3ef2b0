"""Shaping: ties, constants, groups, and members without a finite fitness."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import es_rl
from envs.errors import UserError
from es_rl import centered_rank, replace_nonfinite, shape_fitness, zscore

SHAPINGS = ["zscore", "centered_rank", "none"]


def test_zscore_is_the_textbook_formula():
    f = jax.random.normal(jax.random.key(0), (12,)) * 7 + 100
    np.testing.assert_allclose(zscore(f), (f - f.mean()) / f.std(), rtol=1e-4, atol=1e-5)


def test_groups_use_their_own_mean_and_the_std_that_was_asked_for():
    f = jnp.array([1.0, 3.0, 10.0, 30.0])
    np.testing.assert_allclose(zscore(f, 2), [-1, 1, -1, 1], rtol=1e-5)
    std = np.std([1, 3, 10, 30])
    want = np.array([-1, 1, -10, 10]) / std
    np.testing.assert_allclose(zscore(f, 2, "population"), want, rtol=1e-5)
    np.testing.assert_allclose(centered_rank(f, 2), [-0.5, 0.5, -0.5, 0.5])


def test_ranks_average_ties():
    f = jnp.array([5.0, 1.0, 5.0, 7.0, 1.0, 5.0])
    want = np.array([3, 0.5, 3, 5, 0.5, 3]) / 5 - 0.5
    np.testing.assert_allclose(centered_rank(f), want, atol=1e-6)
    np.testing.assert_allclose(centered_rank(jnp.exp(f)), want, atol=1e-6)


@pytest.mark.parametrize("group_size", [0, 4])
@pytest.mark.parametrize("constant", [0.0, 0.1, -3e7])
@pytest.mark.parametrize("shaping", ["zscore", "centered_rank"])
def test_constant_fitness_gives_zero_weights(shaping, constant, group_size):
    shaped = shape_fitness(jnp.full(1000, constant), shaping, group_size)
    np.testing.assert_array_equal(shaped, 0.0)


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_equal_fitness_gives_equal_weights(shaping):
    f = jnp.array([2.0, 9.0, 2.0, 4.0])
    shaped = shape_fitness(f, shaping)
    assert shaped[0] == shaped[2] < shaped[3] < shaped[1]


@pytest.mark.parametrize("shaping", ["zscore", "centered_rank"])
def test_a_constant_added_to_all_fitness_changes_nothing(shaping):
    f = jnp.arange(16.0) ** 2
    shifted = shape_fitness(f + 4096.0, shaping)
    np.testing.assert_array_equal(shape_fitness(f, shaping), shifted)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("shaping", SHAPINGS)
def test_a_non_finite_fitness_is_the_worst_of_its_group(shaping, bad):
    f = jnp.array([4.0, bad, 6.0, 5.0, 50.0, 20.0, bad, 40.0])
    finite, count = replace_nonfinite(f, 4)
    np.testing.assert_array_equal(finite, [4, 4, 6, 5, 50, 20, 20, 40])
    assert int(count) == 2
    shaped = shape_fitness(finite, shaping, 4)
    assert jnp.isfinite(shaped).all()
    assert shaped[1] == shaped[:4].min()


@pytest.mark.parametrize("first", [0, 1], ids=["first group", "second group"])
@pytest.mark.parametrize(
    ("shaping", "std"),
    [("zscore", "group"), ("zscore", "population"), ("centered_rank", "group"), ("none", "group")],
)
def test_a_group_without_finite_fitness_weighs_nothing_and_changes_nothing(shaping, std, first):
    groups = [[jnp.nan, jnp.inf, -jnp.inf, jnp.nan], [1.0, jnp.nan, 2.0, 9.0]]
    f = jnp.array([*groups[first], *groups[1 - first], 30.0, 10.0, 20.0, 70.0])
    dead = np.arange(12) // 4 == first
    finite, count = replace_nonfinite(f, 4, shaping)
    assert int(count) == 5
    shaped = shape_fitness(finite, shaping, 4, std)
    np.testing.assert_array_equal(shaped[dead], 0.0)
    others = shape_fitness(replace_nonfinite(f[~dead], 4)[0], shaping, 4, std)
    np.testing.assert_allclose(shaped[~dead], others, rtol=1e-6)
    assert float(jnp.abs(others).max()) > 0.4


@pytest.mark.parametrize("group_size", [0, 2])
@pytest.mark.parametrize("shaping", SHAPINGS)
def test_a_population_without_finite_fitness_weighs_nothing(shaping, group_size):
    f = jnp.array([jnp.nan, jnp.inf, -jnp.inf, jnp.nan])
    finite, count = replace_nonfinite(f, group_size, shaping)
    assert int(count) == 4
    np.testing.assert_array_equal(shape_fitness(finite, shaping, group_size), 0.0)


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_finite_fitness_is_left_as_it_is(shaping):
    f = jax.random.normal(jax.random.key(3), (12,)) * 1e3
    finite, count = replace_nonfinite(f, 4, shaping)
    np.testing.assert_array_equal(finite, f)
    assert int(count) == 0
    integers, _ = replace_nonfinite(jnp.arange(12), 4, shaping)
    np.testing.assert_array_equal(integers, np.arange(12.0))


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_shaping_follows_a_permutation(shaping):
    f = jax.random.normal(jax.random.key(1), (32,))
    order = jax.random.permutation(jax.random.key(2), 32)
    np.testing.assert_allclose(
        shape_fitness(f[order], shaping), shape_fitness(f, shaping)[order], atol=1e-6
    )


def test_a_function_gets_finite_fitness_and_dead_groups_weigh_nothing():
    def double(fitness, group_size):
        assert np.isfinite(fitness).all()
        assert group_size == 2
        return 2 * fitness

    es = es_rl.eggroll(6, group_size=2, shaping=double, sigma=1.0, optimizer=optax.sgd(1.0))
    state = es.init(jax.random.key(0), {"w": jnp.zeros((3, 2))})
    noise = es.ask(state)
    fitness = jnp.array([1.0, jnp.nan, jnp.nan, -jnp.inf, 5.0, 7.0])
    following, metrics = es.tell(state, noise, fitness)
    want = es.gradient(state.params, noise, jnp.array([2.0, 2.0, 0.0, 0.0, 10.0, 14.0]))
    np.testing.assert_allclose(following.params["w"], want["w"], rtol=1e-5, atol=1e-6)
    assert int(metrics["nonfinite_members"]) == 3
    assert float(jnp.abs(want["w"]).max()) > 0


def test_a_function_must_give_a_weight_per_member():
    def halves(fitness, group_size):
        return fitness[::2]

    with pytest.raises(UserError, match=r"halves: returns shape \(2,\) for fitness of shape \(4,"):
        shape_fitness(jnp.arange(4.0), halves)
