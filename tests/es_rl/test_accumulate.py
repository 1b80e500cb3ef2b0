"""Generations that are gathered for one update are one generation of a larger population."""

from dataclasses import replace
from functools import partial

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
    plain, settings = optax.adam(0.1), {"rank": 2, "shaping": "none"}
    half = es_rl.eggroll(8, optimizer=es_rl.accumulate(plain, 20), **settings)
    state, noises = half.init(jax.random.key(0), PARAMS), []
    fitness = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8)), jnp.float32)
    for one, waiting in zip(fitness, (1, 0), strict=True):
        jax.tree.map(np.testing.assert_array_equal, state.params, PARAMS)
        noises.append(half.ask(state))
        state, metrics = half.tell(state, noises[-1], one, env_steps=jnp.int32(10))
        assert metrics["waiting_generations"] == waiting
        assert (metrics["update_norm"] == 0) == (waiting > 0)
    # The draws of both, which are the leading axis of their noise.
    leaves = jax.tree.map(lambda *x: jnp.concatenate(x), *(n.leaves for n in noises))
    whole = es_rl.eggroll(16, optimizer=plain, **settings)
    want, _ = whole.tell(
        whole.init(jax.random.key(0), PARAMS), replace(noises[0], leaves=leaves), fitness.ravel()
    )
    same = partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(same, state.params, want.params)
    jax.tree.map(same, state.opt_state.inner, want.opt_state)


def test_schedules_of_the_optimizer_count_updates_and_those_of_sigma_generations():
    halves = optax.exponential_decay(1.0, 1, 0.5)
    plain = optax.inject_hyperparams(optax.sgd)(halves)
    es = es_rl.eggroll(4, sigma=halves, optimizer=es_rl.accumulate(plain, 20))
    state, seen = es.init(jax.random.key(0), PARAMS), []
    for _ in range(4):
        state, metrics = es.tell(state, es.ask(state), jnp.arange(4.0), env_steps=jnp.int32(10))
        seen.append((float(metrics["sigma"]), float(metrics["learning_rate"])))
    assert seen == [(1, 1), (0.5, 1), (0.25, 1), (0.125, 0.5)]


def test_parameters_may_be_of_several_dtypes():
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones((4, 2), jnp.bfloat16)}
    plain = optax.inject_hyperparams(optax.sgd)(1.0)  # makes updates of float32 of both
    es = es_rl.eggroll(4, optimizer=es_rl.accumulate(plain, 20))
    state = es.init(jax.random.key(0), params)
    for _ in range(2):
        state, metrics = es.tell(state, es.ask(state), jnp.arange(4.0), env_steps=jnp.int32(10))
    assert metrics["update_norm"] > 0
    assert state.params["b"].dtype == jnp.bfloat16


def test_more_env_steps_than_fit_into_32_bits_make_an_update():
    optimizer = es_rl.accumulate(optax.sgd(1.0), 10**9)
    state = optimizer.init(PARAMS)
    for steps, moved in ((10**9 - 1, 0), (2**31 - 1, -1)):
        updates, state = optimizer.update(gradient(1.0), state, PARAMS, env_steps=jnp.int32(steps))
        assert updates["w"][0, 0] == moved


@pytest.mark.parametrize("wrapper", [lambda es: es, es_rl.LearnedSigma, es_rl.SuccessSigma])
def test_generations_without_env_steps_are_refused(wrapper):
    es = wrapper(es_rl.eggroll(4, optimizer=es_rl.accumulate(optax.sgd(0.1), 20)))
    state = es.init(jax.random.key(0), PARAMS)
    with pytest.raises(UserError, match="env_steps=None: must be the env steps"):
        es.tell(state, es.ask(state), jnp.arange(4.0))


def test_a_skipped_generation_is_not_gathered():
    es = es_rl.eggroll(population_size=4, optimizer=es_rl.accumulate(optax.sgd(0.1), 20))
    state = es.init(jax.random.key(0), PARAMS)
    state, _ = es.tell(state, es.ask(state), jnp.arange(4.0), env_steps=jnp.int32(10))
    before, nan = state.opt_state, jnp.full(4, jnp.nan)
    state, metrics = es.tell(state, es.ask(state), nan, env_steps=jnp.int32(10))
    assert metrics["update_skipped"] == 1
    assert metrics["waiting_generations"] == 1
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, before)


@pytest.mark.parametrize("steps", [0, -1, 2 * 10**9])
def test_numbers_out_of_range_are_refused(steps):
    with pytest.raises(UserError, match=f"env_steps={steps}: must be from 1 to"):
        es_rl.accumulate(optax.sgd(0.1), steps)
