"""Generations that are gathered for one update are one generation of a larger population."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import es_rl
from envs.errors import UserError
from es_rl.strategies.optimizers import learning_rate_of

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(4)}


def gradient(value):
    return jax.tree.map(lambda x: jnp.full_like(x, value), PARAMS)


def test_an_update_is_made_from_the_mean_when_enough_is_played():
    schedule = optax.piecewise_constant_schedule(1.0, {1: 0.5})
    plain = optax.inject_hyperparams(optax.sgd)(schedule)
    optimizer = es_rl.accumulate(plain, 100)
    state, moved = optimizer.init(PARAMS), []
    for value, steps in ((1.0, 60), (2.0, 39), (6.0, 1), (4.0, 500), (1.0, 99)):
        updates, state = optimizer.update(
            gradient(value), state, PARAMS, env_steps=jnp.int32(steps)
        )
        moved.append(float(updates["w"][0, 0]))
    # The second update has the second learning rate of the schedule.
    np.testing.assert_allclose(moved, [0, 0, -3.0, -2.0, 0], rtol=1e-6)
    assert learning_rate_of(state) == 0.5
    assert (int(state.generations), int(state.env_steps)) == (1, 99)


def test_two_generations_are_one_of_twice_the_population():
    es = es_rl.eggroll(
        population_size=8,
        rank=2,
        shaping="none",
        optimizer=es_rl.accumulate(optax.sgd(0.1), 20),
    )
    state = es.init(jax.random.key(0), PARAMS)
    fitness = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    gradients = []
    for one in fitness:
        noise = es.ask(state)
        gradients.append(es.gradient(PARAMS, noise, jnp.asarray(one)))
        state, metrics = es.tell(state, noise, jnp.asarray(one), env_steps=jnp.int32(10))
        if len(gradients) == 1:
            jax.tree.map(np.testing.assert_array_equal, state.params, PARAMS)
            assert metrics["update_norm"] == 0
    # The gradient of a population is the mean over its members, so that the mean of two halves is
    # that of the whole.
    want = jax.tree.map(lambda p, a, b: p + 0.1 * (a + b) / 2, PARAMS, *gradients)
    jax.tree.map(
        lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-5), state.params, want
    )
    assert metrics["update_norm"] > 0


def test_a_skipped_generation_is_not_gathered():
    es = es_rl.eggroll(population_size=4, optimizer=es_rl.accumulate(optax.sgd(0.1), 20))
    state = es.init(jax.random.key(0), PARAMS)
    before = state.opt_state
    nan = jnp.full(4, jnp.nan)
    state, metrics = es.tell(state, es.ask(state), nan, env_steps=jnp.int32(10))
    assert metrics["update_skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, before)


@pytest.mark.parametrize("steps", [0, -1, 2 * 10**9])
def test_numbers_out_of_range_are_refused(steps):
    with pytest.raises(UserError, match=f"env_steps={steps}: must be from 1 to"):
        es_rl.accumulate(optax.sgd(0.1), steps)
