"""The update: invariants 2, 4 and 5, its rank, and what the strategies accept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import es_rl
from es_rl.strategies.optimizers import at_learning_rate

PARAMS = {
    "kernel": jnp.linspace(-1, 1, 20).reshape(5, 4),
    "bias": jnp.arange(4.0),
    "filter": jnp.ones((2, 3, 2)),
}
STRATEGIES = {"eggroll": es_rl.eggroll, "open_es": es_rl.open_es}


def start(es, params=PARAMS, seed=0):
    state = es.init(jax.random.key(seed), params)
    return state, es.ask(state)


def explicit_gradient(state, noise, shaped):
    """1 / (N sigma) sum_i w_i s_i E_i in float64, from the materialised members."""
    sigma, n = np.float64(noise.sigma), len(shaped)
    centre = jax.tree.map(np.float64, state.params)
    total = jax.tree.map(np.zeros_like, centre)
    for i, w in enumerate(np.float64(shaped)):
        member = jax.tree.map(np.float64, es_rl.materialize(state.params, noise, i))
        total = jax.tree.map(
            lambda t, m, c, w=w: t + w * (m - c) / (n * sigma**2), total, member, centre
        )
    return total


@pytest.mark.parametrize("reuse", [0, 1, 2, 6])
@pytest.mark.parametrize(
    ("name", "options"), [("eggroll", {"rank": 1}), ("eggroll", {"rank": 3}), ("open_es", {})]
)
def test_update_is_the_explicit_sum(name, options, reuse):
    es = STRATEGIES[name](population_size=12, noise_reuse=reuse, sigma=0.5, **options)
    state, noise = start(es)
    shaped = jax.random.normal(jax.random.key(5), (12,))
    got = es.gradient(state.params, noise, shaped)
    want = explicit_gradient(state, noise, shaped)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=2e-5), got, want)


@pytest.mark.parametrize(
    ("draws", "rank", "want"), [(1, 1, 1), (1, 2, 2), (3, 1, 3), (2, 2, 4), (16, 1, 6), (9, 4, 6)]
)
def test_update_has_the_rank_of_the_sum_of_its_draws(draws, rank, want):
    es = es_rl.eggroll(population_size=2 * draws, rank=rank)
    state, noise = start(es, {"w": jnp.zeros((8, 6))})
    shaped = jax.random.normal(jax.random.key(1), (2 * draws,))
    gradient = es.gradient(state.params, noise, shaped)["w"]
    assert np.linalg.matrix_rank(np.asarray(gradient), tol=1e-5) == want


def test_the_update_is_not_the_product_of_the_sums():
    """sum w A B^T != (sum w A)(sum w B)^T: the false identity that circulates."""
    es = es_rl.eggroll(population_size=64, noise_reuse=0, sigma=1.0)
    state, noise = start(es, {"w": jnp.zeros((8, 6))})
    w = jax.random.normal(jax.random.key(1), (64,))
    a, b = noise.leaves[0].a[:, 0], noise.leaves[0].b[:, 0]
    right = es.gradient(state.params, noise, w)["w"]
    np.testing.assert_allclose(right, jnp.einsum("d,di,do->io", w, a, b) / 64, rtol=1e-3, atol=1e-5)
    false = jnp.outer(w @ a, w @ b) / 64
    assert jnp.linalg.norm(false - right) > 2 * jnp.linalg.norm(right)


@pytest.mark.parametrize("shaping", ["zscore", "centered_rank", "none"])
@pytest.mark.parametrize("reuse", [2, 4])
def test_equal_fitness_in_every_couple_gives_a_zero_update(shaping, reuse):
    es = es_rl.eggroll(population_size=16, noise_reuse=reuse, shaping=shaping)
    state, noise = start(es)
    couples = jax.random.normal(jax.random.key(0), (8,))
    following, metrics = es.tell(state, noise, jnp.repeat(couples, 2))
    jax.tree.map(np.testing.assert_array_equal, following.params, state.params)
    assert metrics["grad_norm"] == 0


@pytest.mark.parametrize("shaping", ["zscore", "centered_rank"])
@pytest.mark.parametrize("reuse", [0, 2])
def test_constant_fitness_moves_nothing_and_added_constants_change_nothing(shaping, reuse):
    es = es_rl.eggroll(population_size=16, noise_reuse=reuse, shaping=shaping)
    state, noise = start(es)
    still, _ = es.tell(state, noise, jnp.full(16, 0.1))
    jax.tree.map(np.testing.assert_array_equal, still.params, state.params)
    f = jnp.arange(16.0) * 3
    one, two = (es.tell(state, noise, f + c)[0].params for c in (0.0, 4096.0))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("name", STRATEGIES)
def test_estimator_is_unbiased_and_its_error_falls_with_the_population(name):
    """Invariant 5 on f(W) = -|W - T|^2 / 2, whose smoothed gradient is exactly T - W."""
    params = {"w": jnp.zeros((6, 5)), "b": jnp.zeros(4)}
    target = {
        "w": jax.random.normal(jax.random.key(8), (6, 5)),
        "b": jax.random.normal(jax.random.key(9), (4,)),
    }

    def estimates(population, seeds):
        es = STRATEGIES[name](population, sigma=0.2, shaping="none")

        def one(key):
            state = es.init(key, params)
            noise = es.ask(state)

            def fitness(member):
                sample = es_rl.materialize(params, noise, member)
                squares = jax.tree.map(lambda p, t: jnp.sum((p - t) ** 2), sample, target)
                return -0.5 * sum(jax.tree.leaves(squares))

            shaped = jax.vmap(fitness)(jnp.arange(population))
            return es.gradient(params, noise, shaped)

        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))

    def errors(gradients):
        return jnp.concatenate(
            [
                (g - t).reshape(len(g), -1)
                for g, t in zip(*map(jax.tree.leaves, (gradients, target)), strict=True)
            ],
            axis=1,
        )

    with jax.numpy_rank_promotion("allow"):
        small, large = errors(estimates(16, 4000)), errors(estimates(256, 250))
    # Statistical: every mean within 5 standard errors of the truth.
    standard_error = small.std(axis=0) / np.sqrt(len(small))
    assert (jnp.abs(small.mean(axis=0)) < 5 * standard_error).all()
    ratio = jnp.sqrt((small**2).mean() / (large**2).mean())
    assert 3.5 < ratio < 4.5, "16 times the members, a quarter of the error"


def test_learning_rate_and_sigma_follow_their_schedules():
    sigma = optax.linear_schedule(0.4, 0.1, 3)
    rate = optax.piecewise_constant_schedule(1.0, {2: 0.0})
    es = es_rl.eggroll(8, sigma=sigma, optimizer=optax.sgd(rate))
    state, sigmas, updates = start(es)[0], [], []
    for _ in range(4):
        noise = es.ask(state)
        state, metrics = es.tell(state, noise, jnp.arange(8.0) ** 2)
        sigmas.append(float(metrics["sigma"]))
        updates.append(float(metrics["update_norm"]))
    np.testing.assert_allclose(sigmas, [0.4, 0.3, 0.2, 0.1], rtol=1e-5)
    assert updates[0] > 0
    assert updates[2:] == [0, 0]


@pytest.mark.parametrize("reuse", [0, 2])
def test_the_learning_rate_in_the_metrics_is_that_of_the_update(reuse):
    schedule = optax.exponential_decay(0.5, 1, 0.5)
    optimizer = optax.chain(optax.scale_by_adam(), at_learning_rate(schedule))
    es = es_rl.eggroll(8, noise_reuse=reuse, optimizer=optimizer)
    state, rates = start(es)[0], []
    # An update that is skipped spends nothing of the schedule, and tells what it would have used.
    for bad in (0.0, jnp.nan, 0.0, 0.0):
        state, metrics = es.tell(state, es.ask(state), jnp.arange(8.0) ** 2 + bad)
        rates.append(float(metrics["learning_rate"]))
    assert rates == [0.5, 0.25, 0.25, 0.125]


def test_a_learning_rate_that_the_optimizer_does_not_hold_is_not_in_the_metrics():
    def told(optimizer):
        es = es_rl.eggroll(8, optimizer=optimizer)
        state, noise = start(es)
        return es.tell(state, noise, jnp.arange(8.0))[1]

    injected = optax.inject_hyperparams(optax.adam)(learning_rate=0.25)
    assert float(told(injected)["learning_rate"]) == 0.25
    assert "learning_rate" not in told(optax.adam(0.25))
    assert "learning_rate" not in told(optax.chain(injected, injected)), "which one of them?"


@pytest.mark.parametrize(("trend", "scale"), [(1.0, 1.0), (-1.0, 0.5), (0.0, 0.5)])
def test_the_optimizer_gets_minus_the_mean_fitness_as_its_value(trend, scale):
    """Rising fitness is a falling loss: no plateau."""
    plateau = optax.contrib.reduce_on_plateau(
        factor=0.5, patience=3, rtol=0.0, atol=1.0, cooldown=100
    )
    es = es_rl.eggroll(8, optimizer=optax.chain(optax.sgd(0.1), plateau))
    tell, state = jax.jit(es.tell), start(es)[0]
    for generation in range(6):
        fitness = jnp.arange(8.0) + 100 * trend * generation
        state, metrics = tell(state, es.ask(state), fitness)
        assert int(metrics["update_skipped"]) == 0
    held = state.opt_state[1]
    assert float(held.scale) == scale
    best = 3.5 + 500 * max(trend, 0.0)
    assert float(held.best_value) == -best


def test_a_skipped_update_is_no_plateau():
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2)
    es = es_rl.eggroll(8, optimizer=optax.chain(optax.sgd(0.1), plateau))
    state = after_one_update(es)
    for _ in range(4):
        following, metrics = es.tell(state, es.ask(state), jnp.full(8, jnp.nan))
        assert_skipped(es, state, following, metrics)
        state = following


def test_frozen_vectors_do_not_move_even_under_weight_decay():
    decays = optax.adamw(0.1, weight_decay=0.1)
    for full_rank, filter_moves in (("tensors", False), ("vectors", True)):
        es = es_rl.eggroll(8, freeze_vectors=True, full_rank=full_rank, optimizer=decays)
        state, noise = start(es)
        following, _ = es.tell(state, noise, jnp.arange(8.0) ** 2)
        np.testing.assert_array_equal(following.params["bias"], PARAMS["bias"])
        moved = not np.array_equal(following.params["filter"], PARAMS["filter"])
        assert moved == filter_moves
    assert not np.allclose(following.params["kernel"], PARAMS["kernel"])


def test_jit_and_no_jit_agree_and_non_finite_members_are_counted():
    es = es_rl.eggroll(8, group_size=4, optimizer=optax.sgd(0.1))
    state, noise = start(es)
    fitness = jnp.array([1.0, jnp.nan, 2.0, 5.0, jnp.inf, 4.0, 8.0, -jnp.inf])
    plain, metrics = es.tell(state, noise, fitness)
    jitted, _ = jax.jit(es.tell)(state, noise, fitness)
    assert int(metrics["nonfinite_members"]) == 3
    assert int(metrics["update_skipped"]) == 0
    finite = np.array([1.0, 2, 5, 4, 8])
    statistics = [metrics[f"fitness_{name}"] for name in ("mean", "std", "max", "min")]
    np.testing.assert_allclose(statistics, [finite.mean(), finite.std(), 8, 1], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        plain.params,
        jitted.params,
    )
    assert all(jnp.isfinite(p).all() for p in jax.tree.leaves(plain.params))


def after_one_update(es):
    """A state whose optimiser has something to lose."""
    state, noise = start(es)
    return es.tell(state, noise, jnp.arange(float(es.population_size)) ** 2)[0]


def assert_skipped(es, state, following, metrics):
    """Nothing but the generation moved on, and the next noise is another one."""
    before, after = ((s.params, s.opt_state) for s in (state, following))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert int(following.generation) == int(state.generation) + 1
    assert metrics["update_skipped"].dtype == jnp.int32
    assert (int(metrics["update_skipped"]), float(metrics["update_norm"])) == (1, 0)
    assert float(metrics["param_norm"]) == pytest.approx(float(optax.tree.norm(state.params)))
    draws = [es.ask(s).leaves[0].e for s in (state, following)]
    assert not np.array_equal(*draws)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("group_size", [0, 4])
def test_a_generation_without_finite_fitness_is_skipped(group_size, bad):
    decays = optax.adamw(0.1, weight_decay=0.1)  # would move the parameters without a gradient
    es = es_rl.eggroll(8, group_size=group_size, optimizer=decays)
    state = after_one_update(es)
    following, metrics = es.tell(state, es.ask(state), jnp.full(8, bad))
    assert_skipped(es, state, following, metrics)
    assert int(metrics["nonfinite_members"]) == 8
    assert all(np.isnan(metrics[f"fitness_{name}"]) for name in ("mean", "std", "max", "min"))
    again, metrics = es.tell(following, es.ask(following), jnp.arange(8.0))
    assert int(metrics["update_skipped"]) == 0
    assert not np.array_equal(again.params["kernel"], state.params["kernel"])


@pytest.mark.parametrize(
    ("optimizer", "scale"),
    [
        (optax.adam(0.1), 1e25),  # its square overflows
        (optax.sgd(0.1), 1e38),  # the gradient does
        (optax.sgd(1e38), 1.0),  # the parameters do
    ],
    ids=["second moment", "gradient", "parameters"],
)
def test_an_update_that_overflows_is_skipped(optimizer, scale):
    es = es_rl.eggroll(8, shaping="none", sigma=0.01, optimizer=optimizer)
    state = es.init(jax.random.key(0), PARAMS)
    fitness = jnp.array([1.0, -1, 3, -3, 2, -2, 3, -3]) * scale
    following, metrics = jax.jit(es.tell)(state, es.ask(state), fitness)
    assert_skipped(es, state, following, metrics)
    assert int(metrics["nonfinite_members"]) == 0
    assert float(metrics["fitness_max"]) == pytest.approx(3 * scale)


def test_a_group_without_finite_fitness_leaves_the_update_to_the_others():
    es = es_rl.eggroll(12, group_size=4, group_std="population", optimizer=optax.sgd(0.1))
    state, noise = start(es)
    fitness = jnp.array([*[jnp.nan] * 4, 1.0, 4, 2, 9, 30, 10, 20, 70])
    following, metrics = es.tell(state, noise, fitness)
    others = fitness[4:]
    centred = (others.reshape(2, 4) - others.reshape(2, 4).mean(axis=1, keepdims=True)).ravel()
    std = np.std(others.reshape(2, 4) - others[0])
    shaped = jnp.concatenate([jnp.zeros(4), centred / std])
    want = explicit_gradient(state, noise, shaped)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old + 0.1 * g, rtol=1e-4, atol=1e-4),
        following.params,
        state.params,
        want,
    )
    assert int(metrics["update_skipped"]) == 0
    assert int(metrics["nonfinite_members"]) == 4
    assert float(metrics["fitness_mean"]) == pytest.approx(float(others.mean()))


def test_an_infinity_that_an_optimiser_keeps_on_purpose_skips_nothing():
    watch = optax.GradientTransformation(
        lambda params: jnp.float32(jnp.inf), lambda updates, best, params: (updates, best)
    )
    es = es_rl.eggroll(8, optimizer=optax.chain(optax.sgd(0.1), watch))
    state, noise = start(es)
    following, metrics = es.tell(state, noise, jnp.arange(8.0))
    assert int(metrics["update_skipped"]) == 0
    assert not np.array_equal(following.params["kernel"], state.params["kernel"])


@pytest.mark.parametrize("name", STRATEGIES)
def test_finds_the_optimum_of_a_quadratic(name):
    es = STRATEGIES[name](128, sigma=0.1, optimizer=optax.adam(0.05))
    target = jnp.arange(12.0).reshape(4, 3) / 6

    @jax.jit
    def generation(state):
        noise = es.ask(state)
        members = jax.vmap(lambda m: es_rl.materialize(state.params, noise, m))(jnp.arange(128))
        return es.tell(state, noise, -((members - target[None]) ** 2).sum((1, 2)))[0]

    state = es.init(jax.random.key(0), jnp.zeros((4, 3)))
    for _ in range(200):
        state = generation(state)
    assert float(jnp.abs(state.params - target).max()) < 0.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"population_size": 10, "noise_reuse": 4}, "population_size=10: .*multiple.*8 or 12"),
        ({"population_size": 1}, "population_size=1: .*at least 2"),
        ({"population_size": 8.0}, "population_size=8.0: must be an integer"),
        ({"rank": 0}, "rank=0: .*at least 1"),
        ({"rank": None}, "rank=None: .*at least 1"),
        ({"sigma": 0.0}, "sigma=0.0: .*greater than 0"),
        ({"sigma": float("nan")}, "sigma=nan: .*greater than 0"),
        ({"noise_reuse": 3}, "noise_reuse=3: .*even"),
        ({"noise_reuse": -2}, "noise_reuse=-2: .*at least 0"),
        ({"population_size": 12, "group_size": 5}, "group_size=5: .*one of 2, 4, 6"),
        ({"population_size": 12, "group_size": 3}, "group_size=3: .*multiple of noise_reuse"),
        ({"group_std": "own"}, "group_std='own': .*group, population"),
        ({"full_rank": "all"}, "full_rank='all': .*vectors, tensors"),
        ({"shaping": "rank"}, "shaping='rank': .*zscore, centered_rank, none or a function"),
    ],
)
def test_bad_settings_are_named_with_what_is_accepted(options, says):
    with pytest.raises(ValueError, match=says):
        es_rl.eggroll(**options)


def test_bad_parameters_and_fitness():
    es = es_rl.eggroll(4)
    with pytest.raises(ValueError, match=r"params\['n'\] is int32: every leaf must be a float"):
        es.init(jax.random.key(0), {"n": jnp.arange(3)})
    with pytest.raises(ValueError, match="no leaves"):
        es.init(jax.random.key(0), {})
    state, noise = start(es)
    with pytest.raises(ValueError, match=r"fitness has shape \(3,\): must be \(4,\)"):
        es.tell(state, noise, jnp.zeros(3))


def test_numpys_numbers_are_as_good_as_pythons():
    numbers = {"population_size": 8, "rank": 1, "sigma": 0.5, "noise_reuse": 2, "group_size": 4}
    optimizer = optax.sgd(1.0)
    of_numpy = {name: np.array(value)[()] for name, value in numbers.items()}
    made = es_rl.eggroll(**of_numpy, optimizer=optimizer)
    assert made == es_rl.eggroll(**numbers, optimizer=optimizer)
    assert type(made.population_size) is int
    with pytest.raises(ValueError, match="population_size=True: must be an integer"):
        es_rl.eggroll(population_size=np.bool_(True), optimizer=optimizer)
