"""Shaping: ties, constants, groups, and members without a finite fitness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    weights = shape_fitness(jnp.full(1000, constant), shaping, group_size)
    np.testing.assert_array_equal(weights, 0.0)


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_equal_fitness_gives_equal_weights(shaping):
    f = jnp.array([2.0, 9.0, 2.0, 4.0])
    weights = shape_fitness(f, shaping)
    assert weights[0] == weights[2] < weights[3] < weights[1]


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
    weights = shape_fitness(finite, shaping, 4)
    assert jnp.isfinite(weights).all()
    assert weights[1] == weights[:4].min()


def test_a_group_or_population_without_finite_fitness():
    f = jnp.array([jnp.nan, jnp.inf, 3.0, 5.0])
    finite, count = replace_nonfinite(f, 2)
    np.testing.assert_array_equal(finite, [3, 3, 3, 5])
    assert int(count) == 2
    finite, count = replace_nonfinite(jnp.full(4, jnp.nan))
    np.testing.assert_array_equal(finite, 0)
    assert int(count) == 4


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_shaping_follows_a_permutation(shaping):
    f = jax.random.normal(jax.random.key(1), (32,))
    order = jax.random.permutation(jax.random.key(2), 32)
    np.testing.assert_allclose(
        shape_fitness(f[order], shaping), shape_fitness(f, shaping)[order], atol=1e-6
    )
