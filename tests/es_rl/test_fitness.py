import jax.numpy as jnp
import numpy as np
import pytest

from envs.errors import UserError
from es_rl.fitness import aggregate

RETURNS = jnp.array([[1.0, 2.0, 3.0, 10.0, 0.0, 5.0, 7.0, 8.0], [4.0] * 8])
BY_HAND = {"mean": [4.5, 4.0], "median": [4.0, 4.0], "min": [0.0, 4.0], "cvar": [0.5, 4.0]}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_name_gives_what_is_computed_by_hand(name):
    np.testing.assert_allclose(aggregate(RETURNS, None, name), BY_HAND[name])


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("wrong", [np.nan, -np.inf, np.inf])
def test_an_episode_that_is_not_finite_makes_the_member_so(name, wrong):
    returns = np.array(RETURNS)
    returns[0, 4] = wrong
    fitness = np.asarray(aggregate(jnp.asarray(returns), None, name))
    assert not np.isfinite(fitness[0])
    assert fitness[1] == 4.0


def test_the_cvar_of_few_episodes_is_that_of_the_worst():
    np.testing.assert_array_equal(aggregate(RETURNS[:, :2], None, "cvar"), [1.0, 4.0])


def test_success_is_the_share_of_successful_episodes():
    success = jnp.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, jnp.nan, 1.0]])
    fitness = np.asarray(aggregate(jnp.zeros((2, 4)), success, "success"))
    assert fitness[0] == 0.5
    assert np.isnan(fitness[1])


def test_a_function_sees_the_returns_of_each_member():
    np.testing.assert_array_equal(
        aggregate(RETURNS, None, lambda returns: returns[:, 0] - returns[:, 1]), [-1.0, 0.0]
    )


def test_what_cannot_be_a_fitness_is_refused():
    with pytest.raises(UserError, match=r"shape \(2, 8\): must be \(2,\)"):
        aggregate(RETURNS, None, lambda returns: returns)
    with pytest.raises(UserError, match="must be one of mean, median"):
        aggregate(RETURNS, None, "max")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="does not report success"):
        aggregate(RETURNS, None, "success")
