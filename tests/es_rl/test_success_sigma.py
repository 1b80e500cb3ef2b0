"""The population success rule: its success, its steps of sigma, and what they lead to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import es_rl
from envs.errors import UserError
from es_rl.strategies.success_sigma import success

PARAMS = {"w": jnp.zeros((4, 3))}
SMALL_STEPS = optax.sgd(0.05)


def test_success_is_the_share_of_comparisons_won_minus_that_lost():
    now, before = np.array([3.0, 1.0, 2.0, 2.0]), np.array([2.0, 0.0, 1.0, 5.0])
    pairs = np.sign(now[:, None] - before[None])
    assert float(success(jnp.asarray(now), jnp.asarray(before))) == pytest.approx(pairs.mean())
    assert float(success(jnp.arange(4.0) + 10, jnp.arange(4.0))) == pytest.approx(1)
    assert float(success(jnp.arange(4.0), jnp.arange(4.0) + 10)) == pytest.approx(-1)
    assert float(success(jnp.ones(4), jnp.ones(4))) == pytest.approx(0)


def test_sigma_follows_the_smoothed_success_as_in_the_paper():
    """Loshchilov 2014: s <- 0.7 s + 0.3 (z - 0.25), sigma <- sigma exp(s / d_s)."""
    es = es_rl.SuccessSigma(es_rl.eggroll(8, sigma=0.5), learning_rate=0.5, target=0.25)
    state = es.init(jax.random.key(0), PARAMS)
    # Each generation beats the one before by some members, by all, and then by none.
    generations = [np.arange(8.0) + shift for shift in (0, 2, 30, 1, 1)]
    s, sigma, before = 0.0, 0.5, None
    tell = jax.jit(es.tell)
    for fitness in generations:
        noise = es.ask(state)
        assert float(noise.sigma) == pytest.approx(sigma, rel=1e-5)
        state, metrics = tell(state, noise, jnp.asarray(fitness, jnp.float32))
        assert float(metrics["sigma"]) == pytest.approx(sigma, rel=1e-5)
        if before is not None:
            z = np.sign(fitness[:, None] - before[None]).mean()
            s = 0.7 * s + 0.3 * (z - 0.25)
            sigma *= np.exp(0.5 * s)
        before = fitness


def test_the_step_of_the_mean_has_the_sigma_of_its_noise():
    inner = es_rl.eggroll(8, sigma=0.5, shaping="none", optimizer=optax.sgd(1.0))
    es = es_rl.SuccessSigma(inner)
    state = es.init(jax.random.key(0), PARAMS).replace(ratio=jnp.float32(0.5))
    noise = es.ask(state)
    fitness = np.asarray(jax.random.normal(jax.random.key(5), (8,)))
    following, _ = es.tell(state, noise, jnp.asarray(fitness))
    members = np.array([es_rl.materialize(PARAMS, noise, i)["w"] for i in range(8)], np.float64)
    want = np.tensordot(np.float64(fitness), members, axes=1) / (8 * 0.25**2)
    np.testing.assert_allclose(following.params["w"], want, rtol=1e-4, atol=1e-4)


def test_a_skipped_update_changes_nothing_and_failed_members_count_as_the_worst():
    es = es_rl.SuccessSigma(es_rl.eggroll(4))
    next_state = jax.jit(lambda state, fitness: es.tell(state, es.ask(state), fitness)[0])
    skipped = next_state(es.init(jax.random.key(0), PARAMS), jnp.full(4, jnp.nan))
    state = next_state(skipped, jnp.array([1.0, 2.0, jnp.nan, 4.0]))
    assert (float(skipped.ratio), float(skipped.success)) == (1, 0)
    assert (float(state.ratio), float(state.success)) == (1, 0), "nothing to compare with"
    np.testing.assert_array_equal(state.fitness, [1, 2, 1, 4])
    again = next_state(state, jnp.full(4, -jnp.inf))
    for name in ("ratio", "success", "fitness"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name))
    assert int(again.generation) == 3


@functools.partial(jax.jit, static_argnames="es")
def climb(es, state, weights):
    """A generation whose fitness is a weighted sum of a slope, a round hill and luck."""
    noise = es.ask(state)
    members = jax.vmap(lambda m: es_rl.materialize(state.params, noise, m))(jnp.arange(64))
    w = members["w"].reshape(64, 12)
    luck = jax.random.normal(jax.random.fold_in(state.es.key, state.generation), (64,))
    fitness = weights @ jnp.stack([w.sum(axis=1), -(w**2).sum(axis=1), luck])
    return es.tell(state, noise, fitness)[0]


def test_sigma_grows_on_a_slope_and_luck_moves_it_only_with_a_target():
    def final(target, *weights):
        inner = es_rl.eggroll(64, sigma=0.1, optimizer=SMALL_STEPS)
        es = es_rl.SuccessSigma(inner, 0.3, target)
        state = es.init(jax.random.key(0), PARAMS)
        for _ in range(40):
            state = climb(es, state, jnp.array(weights))
        return float(state.ratio)

    assert final(0.0, 1.0, 0.0, 0.0) > 2, "on a slope"
    assert 0.8 < final(0.0, 0.0, 0.0, 1.0) < 1.25, "with luck alone"
    assert final(0.25, 0.0, 1.0, 0.0) < 0.5, "in an optimum, with the target of the paper"
    assert final(0.25, 0.0, 0.0, 1.0) < 0.2, "with luck alone: why that is not the default"


def test_a_target_is_a_success():
    with pytest.raises(UserError, match="target=1.5: must be from -1 to 1"):
        es_rl.SuccessSigma(es_rl.eggroll(8), target=1.5)
