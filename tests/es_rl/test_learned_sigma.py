"""PGPE's learned sigma: the estimates of its gradients, its steps, and what they lead to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import es_rl
from envs.errors import UserError

KINDS = {
    "full": lambda n, **options: es_rl.open_es(n, **options),
    "rank 1": lambda n, **options: es_rl.eggroll(n, 1, **options),
    "rank 2": lambda n, **options: es_rl.eggroll(n, 2, **options),
}
PARAMS = {
    "b": jnp.zeros(3),
    "stack": jnp.linspace(-1, 1, 24).reshape(2, 4, 3),
    "w": jnp.linspace(-1, 1, 20).reshape(5, 4),
}
STACK = (None, es_rl.View((1,), (2,)), es_rl.View((0,), (1,)))
RATIOS = jnp.array([2.0, 0.5, 1.5])


def start(es, params=PARAMS, ratios=RATIOS, key=None):
    """A state whose leaves have sigmas of their own, and its noise."""
    state = es.init(jax.random.key(0) if key is None else key, params)
    state = state.replace(ratios=ratios)
    return state, es.ask(state)


@functools.partial(jax.jit, static_argnames="es")
def generation(es, state, fitness):
    """The next state, the metrics, and the members."""
    noise = es.ask(state)
    return *es.tell(state, noise, fitness), members_of(state, noise, es.population_size)


def members_of(state, noise, number):
    return jax.vmap(lambda m: es_rl.materialize(state.params, noise, m))(jnp.arange(number))


def summed(tree):
    """The sum over everything but the first axis, and over leaves."""
    return sum(leaf.reshape(len(leaf), -1).sum(axis=1) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("kind", "reuse"), [("full", 0), ("rank 1", 2), ("rank 2", 4)])
def test_the_step_of_the_mean_is_the_explicit_sum(kind, reuse):
    """1 / (N sigma_l^2) sum_i w_i (theta_i - mean) in float64, with the sigma of each leaf."""
    options = {"noise_reuse": reuse, "shaping": "none", "layout": STACK}
    es = es_rl.LearnedSigma(KINDS[kind](12, sigma=0.5, optimizer=optax.sgd(1.0), **options))
    shaped = jax.random.normal(jax.random.key(5), (12,))
    following, _, members = generation(es, start(es)[0], shaped)
    for name, ratio in zip(PARAMS, RATIOS, strict=True):
        moves = np.float64(members[name]) - np.float64(PARAMS[name])
        want = np.tensordot(np.float64(shaped), moves, axes=1) / (12 * (0.5 * float(ratio)) ** 2)
        got = np.asarray(following.params[name]) - np.asarray(PARAMS[name])
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "reuse"), [("full", 0), ("rank 1", 2), ("rank 2", 2)])
def test_the_sigma_gradient_is_unbiased(kind, reuse):
    """f = -sum_j c_j (theta_j - mean_j)^2 has the mean -sum_l sigma_l^2 sum_j c_j, as all entries
    of the noise have the variance 1, and the derivatives -2 sigma_l sum_j c_j.

    Statistical: every mean lies within 5 of its standard errors, and by more than 5 from the truths
    of the other leaves, of twice and of half of it.
    """
    population, seeds = 64, 2000
    options = {"noise_reuse": reuse, "shaping": "none", "layout": STACK}
    es = es_rl.LearnedSigma(KINDS[kind](population, sigma=0.3, **options))
    curvature = jax.tree.map(lambda x: 1 + jnp.arange(x.size).reshape(x.shape) / x.size, PARAMS)
    sums = np.array([float(leaf.sum()) for leaf in jax.tree.leaves(curvature)])
    sigmas = 0.3 * np.asarray(RATIOS)

    def estimate(key):
        state, noise = start(es, key=key)
        members = members_of(state, noise, population)
        squares = jax.tree.map(lambda m, p, c: c * (m - p) ** 2, members, PARAMS, curvature)
        # A constant in the fitness adds no bias; the mean as a baseline takes variance away.
        return es.sigma_gradient(state, noise, float(np.sum(sigmas**2 * sums)) - summed(squares))

    with jax.numpy_rank_promotion("allow"):
        keys = jax.random.split(jax.random.key(1), seeds)
        found = np.asarray(jax.jit(lambda keys: jax.lax.map(estimate, keys, batch_size=250))(keys))
    truth, error = -2 * sigmas * sums, found.std(axis=0) / np.sqrt(seeds)
    missed = np.abs(found.mean(axis=0) - truth) / error
    assert (missed < 5).all(), missed
    for wrong in (2 * truth, truth / 2, np.roll(truth, 1)):
        missed = np.abs(found.mean(axis=0) - wrong) / error
        assert (missed > 5).all(), missed


@pytest.mark.parametrize(("shape", "rank"), [((30, 2), 2), ((6, 4), 1)])
def test_the_factors_are_weighted_for_the_least_variance(shape, rank):
    """|A|^2 - n_A and |B|^2 - n_B, with the variances 2 n_A and 2 n_B, have the weights that make
    the variance of their sum 2 n_A n_B / (n_A + n_B)."""
    es = es_rl.LearnedSigma(es_rl.eggroll(8192, rank, noise_reuse=0, sigma=1.0))
    state, noise = start(es, {"w": jnp.zeros(shape)}, jnp.ones(1))
    # The estimate is the mean of fitness times score: its derivatives are the scores.
    scores = 8192 * jax.grad(lambda f: es.sigma_gradient(state, noise, f)[0])(jnp.zeros(8192))
    n_a, n_b = (rank * size for size in shape)
    assert float(scores.var()) == pytest.approx(2 * n_a * n_b / (n_a + n_b), rel=0.1)
    a, b = (np.square(x).sum(axis=(1, 2)) for x in (noise.leaves[0].a, noise.leaves[0].b))
    want = (n_b * (a - n_a) + n_a * (b - n_b)) / (n_a + n_b)
    np.testing.assert_allclose(scores, want, rtol=1e-3, atol=1e-3)


def test_the_step_of_a_single_parameter_is_that_of_the_paper():
    """sigma += rate mean(((f+ + f-) / 2 - b) (d^2 - sigma^2) / sigma), where d is the deviation of
    a member and b the mean fitness (Toklu et al. 2020, section 2)."""
    es = es_rl.LearnedSigma(es_rl.open_es(16, sigma=0.5, shaping="none"), learning_rate=0.03)
    state, _ = start(es, {"x": jnp.zeros(1)}, jnp.array([1.5]))
    fitness = jax.random.normal(jax.random.key(2), (16,))
    fitness = fitness - fitness.mean()
    following, _, members = generation(es, state, fitness)
    sigma = 0.75
    deviations = np.asarray(members["x"])[::2, 0]
    of_couples = np.asarray(fitness).reshape(-1, 2).mean(axis=1)
    step = 0.03 * np.mean(of_couples * (deviations**2 - sigma**2) / sigma)
    assert abs(step) > 1e-4
    assert 0.5 * float(following.ratios[0]) == pytest.approx(sigma + step, rel=1e-5)


@pytest.mark.parametrize(("sign", "factor"), [(1.0, 1.2), (-1.0, 0.8)])
def test_a_sigma_changes_by_a_fifth_at_most(sign, factor):
    es = es_rl.LearnedSigma(es_rl.eggroll(16, shaping="none"), learning_rate=1e6)
    state, noise = start(es, {"w": jnp.zeros((4, 3))}, jnp.ones(1))
    fitness = summed(jax.tree.map(jnp.square, members_of(state, noise, 16)))
    following, *_ = generation(es, state, sign * (fitness - fitness.mean()))
    np.testing.assert_allclose(following.ratios, [factor], rtol=1e-5)


def test_sigma_shrinks_where_fitness_is_sharp_and_grows_where_it_rises_ever_faster():
    """Along an exponential the best members are the far ones; in a narrow optimum, the near ones.
    On a slope without curvature a sigma is as good as another: the couples' means say nothing."""
    inner = es_rl.eggroll(256, sigma=0.3, optimizer=optax.sgd(1e-6))
    es = es_rl.LearnedSigma(inner, learning_rate=0.3)
    params = {name: jnp.zeros((3, 2)) for name in ("grows", "sharp", "slope")}

    @jax.jit
    def climb(state):
        noise = es.ask(state)
        m = members_of(state, noise, 256)
        total = {name: leaf.reshape(256, -1).sum(axis=1) for name, leaf in m.items()}
        squares = (m["sharp"].reshape(256, -1) ** 2).sum(axis=1)
        fitness = jnp.exp(total["grows"] / 2) - 3 * squares + total["slope"]
        return es.tell(state, noise, fitness)

    state = es.init(jax.random.key(0), params)
    for _ in range(40):
        state, metrics = climb(state)
    grows, sharp, slope = map(float, state.ratios)
    assert sharp < 0.5, "where it is sharp"
    assert grows > 1.5, "where it is convex"
    assert 0.7 < slope < 1.4, "where it is straight"
    assert float(metrics["sigma_min"]) < float(metrics["sigma"]) < float(metrics["sigma_max"])


def test_the_metrics_are_of_the_noise_that_was_told():
    es = es_rl.LearnedSigma(es_rl.eggroll(8, sigma=0.5, layout=STACK))
    _, metrics, _ = generation(es, start(es)[0], jnp.arange(8.0))
    sigmas, sizes = 0.5 * np.asarray(RATIOS), np.array([3, 24, 20])
    mean = np.exp((sizes * np.log(sigmas)).sum() / sizes.sum())
    found = [float(metrics[name]) for name in ("sigma", "sigma_min", "sigma_max")]
    np.testing.assert_allclose(found, [mean, 0.25, 1.0], rtol=1e-5)


def test_frozen_leaves_keep_their_sigma_and_a_skipped_update_keeps_all():
    options = {"freeze_vectors": True, "layout": STACK, "shaping": "none"}
    es = es_rl.LearnedSigma(es_rl.eggroll(8, sigma=0.5, **options))
    state, _ = start(es)
    following, metrics, _ = generation(es, state, jnp.arange(8.0) ** 2)
    assert float(following.ratios[0]) == 2.0
    assert (np.asarray(following.ratios[1:]) != np.asarray(RATIOS[1:])).all()
    np.testing.assert_array_equal(following.params["b"], PARAMS["b"])
    assert float(metrics["sigma_max"]) == 0.75, "that of the frozen leaf would be 1"
    following, metrics, _ = generation(es, state, 1e38 * jnp.arange(8.0) ** 2 / 49)
    assert int(metrics["update_skipped"]) == 1
    np.testing.assert_array_equal(following.ratios, RATIOS)
    assert int(following.generation) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: es_rl.LearnedSigma(es_rl.eggroll(8), 0.0), "learning_rate=0.0: must be greater"),
        (
            lambda: es_rl.LearnedSigma(es_rl.eggroll(8, sigma=optax.constant_schedule(0.1))),
            "sigma=a schedule: must be a number",
        ),
        (
            lambda: es_rl.LearnedSigma(es_rl.eggroll(8, top_draws=2)),
            "top_draws=2: must not be given where sigma is learned",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
