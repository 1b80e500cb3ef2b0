"""Updates from the best draws alone, as in ARS V2-t."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import es_rl
from envs.errors import UserError

PARAMS = {"kernel": jnp.linspace(-1, 1, 6).reshape(3, 2)}


@pytest.mark.parametrize("make", [es_rl.open_es, es_rl.eggroll], ids=["open_es", "eggroll"])
def test_a_step_is_that_of_augmented_random_search(make):
    """Mania et al. 2018, algorithm 2, with step size alpha and noise nu: alpha / (b s) times the
    sum over the b best directions of (r+ - r-) delta, where s is the std of their 2b returns."""
    alpha, nu, b, draws = 0.3, 0.25, 3, 8
    es = make(2 * draws, sigma=nu, optimizer=optax.sgd(2 * alpha * nu), top_draws=b)
    state = es.init(jax.random.key(0), PARAMS)
    noise = es.ask(state)
    returns = np.asarray(jax.random.normal(jax.random.key(1), (2 * draws,))) * 40 + 900
    after, _ = es.tell(state, noise, jnp.asarray(returns))

    plus, minus = returns[::2].astype(np.float64), returns[1::2].astype(np.float64)
    best = np.argsort(-np.maximum(plus, minus))[:b]
    std = np.concatenate([plus[best], minus[best]]).std()
    centre = np.float64(PARAMS["kernel"])
    step = np.zeros_like(centre)
    for draw in best:
        member = es_rl.materialize(state.params, noise, 2 * draw)["kernel"]
        delta = (np.float64(member) - centre) / nu
        step += alpha / (b * std) * (plus[draw] - minus[draw]) * delta
    np.testing.assert_allclose(after.params["kernel"] - centre, step, rtol=1e-4, atol=1e-5)


def test_all_draws_are_the_best_draws_of_all():
    fitness = jax.random.normal(jax.random.key(2), (12,))
    with_all, plain = es_rl.eggroll(12, top_draws=6), es_rl.eggroll(12)
    state = plain.init(jax.random.key(0), PARAMS)
    noise = plain.ask(state)
    after = [es.tell(state, noise, fitness)[0].params["kernel"] for es in (with_all, plain)]
    np.testing.assert_allclose(*after, rtol=1e-6)


def test_draws_that_failed_are_not_chosen():
    es = es_rl.eggroll(8, sigma=0.5, optimizer=optax.sgd(1.0), top_draws=1)
    state = es.init(jax.random.key(0), PARAMS)
    noise = es.ask(state)
    fitness = jnp.array([jnp.nan, 3.0, 9.0, 1.0, jnp.inf, jnp.nan, 2.0, 2.5])
    after, metrics = es.tell(state, noise, fitness)
    member = es_rl.materialize(state.params, noise, 2)["kernel"]
    moved, towards = after.params["kernel"] - PARAMS["kernel"], member - PARAMS["kernel"]
    cosine = jnp.vdot(moved, towards) / jnp.linalg.norm(moved) / jnp.linalg.norm(towards)
    assert cosine == pytest.approx(1.0, abs=1e-5)
    assert int(metrics["nonfinite_members"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_draws": 0}, "top_draws=0: must be an integer of at least 1"),
        ({"top_draws": 5}, "top_draws=5: must be at most 4, the number of draws"),
        ({"top_draws": 2.5}, "top_draws=2.5: must be an integer"),
        ({"top_draws": 2, "group_size": 4}, "top_draws=2: must not be given with groups"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        es_rl.eggroll(8, **options)
