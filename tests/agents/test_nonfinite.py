"""Training survives numbers that go wrong: rewards, observations and parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import agents
from agents.evolution.config import EggrollConfig
from agents.ppo.update import Transitions, generalized_advantages, without_nonfinite
from envs.probes import Probe
from es_rl.play import observations

pytestmark = pytest.mark.slow

ES = {"population_size": 16, "hidden": (4,), "learning_rate_decay": 0.5}
PPO = {
    "num_envs": 16,
    "num_steps": 16,
    "minibatch_size": 64,
    "num_epochs": 2,
    "hidden": (4,),
    "normalize_rewards": True,
    "anneal_steps": 4 * 16 * 16,
}


class Broken(Probe):
    """An episode of 8 steps, of which a share is not finite in its rewards or its observations."""

    def __init__(self, what, share):
        reward = lambda obs, action, last: jnp.where(action == 1, 1.0, -0.5)  # noqa: E731
        super().__init__("broken", reward, horizon=8, best=8.0, resample=True)
        self.what, self.share = what, share

    def reset(self, key):
        state = super().reset(key)
        breaks = jax.random.uniform(jax.random.fold_in(key, 1)) < self.share
        return state.replace(inner={**state.inner, "breaks": breaks})

    def step(self, state, action, key):
        state = super().step(state, action, key)
        broken = jnp.where(state.inner["breaks"], jnp.nan, 1.0)
        return state.replace(**{self.what: getattr(state, self.what) * broken})


@functools.cache
def trained(name, what, share, **settings):
    """The state before training, that after three steps, and the metrics of each."""
    defaults = PPO if name == "ppo" else ES
    agent = agents.make(name, Broken(what, share), **{**defaults, **settings})
    state = agent.init(jax.random.key(0))
    before, seen = jax.device_get(state), []
    for _ in range(3):
        state, metrics = agent.step(state)
        seen.append(jax.device_get(metrics))
    return before, jax.device_get(state), seen


def learned(state):
    """What training changes: parameters, and the state of the optimiser."""
    return (state.params, state.opt_state) if hasattr(state, "params") else learned(state.es)


def assert_finite(tree):
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


def differ(one, other):
    pairs = zip(*map(jax.tree.leaves, (one, other)), strict=True)
    return any(not np.array_equal(*pair) for pair in pairs)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_members_with_bad_rewards_are_the_worst_and_the_rest_learns():
    before, after, metrics = trained("eggroll", "reward", 0.3)
    assert_finite((learned(after), after.moments))
    assert differ(learned(before), learned(after))
    for line in metrics:
        assert 0 < line["nonfinite_members"] < 16
        assert line["update_skipped"] == 0
        assert np.isfinite([line[k] for k in ("return_mean", "return_std", "return_max")]).all()
    assert after.moments.count == 3 * 16 * 8, "their observations are as good as any"


def test_generations_of_bad_rewards_alone_are_skipped():
    before, after, metrics = trained("eggroll", "reward", 1.0)
    assert_same(learned(before), learned(after))
    assert after.es.generation == 3
    for line in metrics:
        assert (line["nonfinite_members"], line["update_skipped"]) == (16, 1)
        assert np.isnan(line["return_mean"])
        assert line["learning_rate"] == metrics[0]["learning_rate"], "none of its decay is spent"


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_bad_observations_cost_no_member_its_return_and_never_enter_the_moments(share):
    before, after, metrics = trained("eggroll", "obs", share)
    assert_finite((learned(after), after.moments))
    assert differ(learned(before), learned(after))
    assert all(line["nonfinite_members"] == line["update_skipped"] == 0 for line in metrics)
    rates = [line["learning_rate"] for line in metrics]
    np.testing.assert_allclose(rates, rates[0] * np.array([1.0, 0.5, 0.25]), rtol=1e-6)
    counted = after.moments.count / 8
    assert counted == 0 if share == 1 else 0 < counted < 3 * 16


def test_bad_observations_are_counted_where_nothing_is_standardised():
    _, after, metrics = trained("eggroll", "obs", 0.3, normalize_observations=False)
    assert after.moments.mean.shape == after.moments.std.shape == (0,)
    assert after.moments.count == 0
    assert all(0 < line["nonfinite_observations"] < 16 for line in metrics)
    _, _, sound = trained("eggroll", "obs", 0.0, normalize_observations=False)
    assert all(line["nonfinite_observations"] == 0 for line in sound)


@pytest.mark.parametrize("what", ["reward", "obs"])
def test_ppo_leaves_bad_transitions_out_and_learns_from_the_rest(what):
    before, after, metrics = trained("ppo", what, 0.3)
    assert_finite((learned(after), after.moments, after.discounted_moments, after.discounted))
    assert differ(learned(before), learned(after))
    assert all(line["update_skipped"] == 0 for line in metrics)
    left_out = [line["nonfinite_steps"] for line in metrics]
    assert all(0 < n < 256 for n in left_out)
    assert after.moments.count == 3 * 256 - sum(left_out)
    assert np.isfinite([metrics[-1][k] for k in ("policy_loss", "value_loss", "return_mean")]).all()
    rates = [line["learning_rate"] for line in metrics]
    np.testing.assert_allclose(rates, rates[0] * np.array([1.0, 0.75, 0.5]), rtol=1e-5)


@pytest.mark.parametrize("what", ["reward", "obs"])
def test_ppo_skips_batches_that_are_bad_throughout(what):
    before, after, metrics = trained("ppo", what, 1.0)
    assert_same(learned(before), learned(after))
    assert_same(before.moments, after.moments)
    assert_same(before.discounted_moments, after.discounted_moments)
    assert after.iteration == 3
    for line in metrics:
        assert (line["nonfinite_steps"], line["update_skipped"]) == (256, 1)
        assert line["learning_rate"] == metrics[0]["learning_rate"]


def test_ppo_skips_updates_that_overflow():
    before, after, metrics = trained("ppo", "reward", 0.0, learning_rate=1e38, anneal_steps=None)
    assert_same(learned(before), learned(after))
    assert_same(before.moments, after.moments)
    assert_same(before.discounted_moments, after.discounted_moments)
    assert all((x["nonfinite_steps"], x["update_skipped"]) == (0, 1) for x in metrics)


def transitions(count):
    """A batch (count, 1) of two actions and an observation of one number."""
    rng = np.random.default_rng(0)
    ones, false = np.ones((count, 1), np.float32), np.zeros((count, 1), bool)
    return Transitions(
        vector=rng.normal(size=(count, 1, 1)).astype(np.float32),
        raw=rng.integers(2, size=(count, 1, 1)),
        log_prob=-0.7 * ones,
        reward=rng.normal(size=(count, 1)).astype(np.float32),
        terminated=false,
        ended=false,
        next_vector=rng.normal(size=(count, 1, 1)).astype(np.float32),
    )


@pytest.mark.parametrize("field", ["vector", "log_prob", "reward", "next_vector"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_transition_ends_its_episode_as_a_truncation_before_it(field, bad):
    batch = transitions(5)
    values, next_values = np.arange(5.0)[:, None], np.arange(5.0, 10.0)[:, None]
    getattr(batch, field)[2] = bad
    clean, usable = without_nonfinite(jax.tree.map(jnp.asarray, batch))
    np.testing.assert_array_equal(usable[:, 0], [True, True, False, True, True])
    assert_finite(clean)
    found = generalized_advantages(clean, values * usable, next_values, 0.9, 0.8)
    ended = np.arange(5)[:, None] == 1
    truncated = generalized_advantages(
        transitions(5)._replace(ended=ended), values, next_values, 0.9, 0.8
    )
    np.testing.assert_allclose(found[:2], truncated[:2], rtol=1e-6)
    np.testing.assert_allclose(found[3:], truncated[3:], rtol=1e-6)
    assert float(found[2, 0]) == 0


def test_the_loss_is_that_of_the_usable_transitions():
    learner = agents.make("ppo", Broken("reward", 0.0), **PPO).learner
    params = learner.init(jax.random.key(0), 0.0)
    rows = jax.tree.map(lambda x: jnp.asarray(x[:, 0]), transitions(6))
    advantages, returns = jnp.arange(6.0), jnp.arange(6.0) ** 2
    usable = jnp.array([True, False, True, True, False, True])
    # A probability as small as this makes the ratio of a row that is not left out overflow.
    rows = rows._replace(log_prob=jnp.where(usable, rows.log_prob, -1e3))
    grad = jax.grad(learner._loss, has_aux=True)
    found = grad(params, rows, usable, advantages, returns)
    kept = jax.tree.map(lambda x: x[usable], (rows, usable, advantages, returns))
    wanted = grad(params, *kept)
    jax.tree.map(lambda f, w: np.testing.assert_allclose(f, w, rtol=1e-5, atol=1e-6), found, wanted)
    nothing, _ = grad(params, rows, jnp.zeros(6, bool), advantages, returns)
    assert all((x == 0).all() for x in jax.tree.leaves(nothing))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_moments_leave_out_episodes_that_are_not_finite(bad):
    rng = np.random.default_rng(0)
    total, squares = rng.normal(size=(3, 2)), 5 + rng.random((3, 2))
    known = observations.merge(
        observations.empty(2), np.array([4, 6]), *(x[[0, 2]] for x in (total, squares))
    )
    for sums in (total, squares):
        spoiled = sums.copy()
        spoiled[1, 0] = bad
        args = (spoiled, squares) if sums is total else (total, spoiled)
        found = observations.merge(observations.empty(2), np.array([4, 5, 6]), *args)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, known)


def test_moments_survive_sums_that_overflow_only_together():
    before = observations.Moments(jnp.float32(5), jnp.ones(2), jnp.full(2, 0.8), jnp.bool_(False))
    huge = np.full((4, 2), 3e38, np.float32)
    merge = jax.jit(observations.merge)
    assert_same(merge(before, np.full(4, 8), np.ones((4, 2), np.float32), huge), before)


def test_the_step_is_clipped_after_the_optimizer():
    params = {"w": jnp.ones((6, 4)), "b": jnp.zeros(4)}

    def step(**settings):
        es = EggrollConfig(population_size=8, learning_rate=0.1, **settings).strategy()
        state = es.init(jax.random.key(0), params)
        following, metrics = es.tell(state, es.ask(state), jnp.arange(8.0) ** 2)
        moved = jax.tree.map(jnp.subtract, following.params, params)
        assert float(optax.tree.norm(moved)) == pytest.approx(
            float(metrics["update_norm"]), rel=1e-3
        )
        return moved, float(metrics["update_norm"])

    free, length = step()
    assert length > 0.3, "Adam makes steps of the learning rate, however large the gradient is"
    clipped, short = step(max_update_norm=0.05)
    assert short == pytest.approx(0.05)
    jax.tree.map(
        lambda c, f: np.testing.assert_allclose(c, f * 0.05 / length, atol=1e-6), clipped, free
    )
    assert step(max_update_norm=10.0)[1] == length


@pytest.mark.parametrize("norm", [0.0, -1.0])
def test_a_trust_region_has_a_size(norm):
    with pytest.raises(ValueError, match=f"max_update_norm={norm}: must be greater than 0"):
        EggrollConfig(max_update_norm=norm)
