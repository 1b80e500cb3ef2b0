"""ClipUp steps as its paper says, and knows its learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import es_rl
from envs.errors import UserError
from es_rl.strategies.optimizers import learning_rate_of

PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(4)}


def algorithm_1(gradients, rate, momentum, max_speed):
    """The velocities of Toklu et al. 2020, algorithm 1, in float64, for gradients (T, n)."""
    velocity, found = np.zeros(gradients.shape[1]), []
    for gradient in np.float64(gradients):
        velocity = momentum * velocity + rate * gradient / np.linalg.norm(gradient)
        speed = np.linalg.norm(velocity)
        if speed > max_speed:
            velocity = max_speed * velocity / speed
        found.append(velocity)
    return np.array(found)


def tree(vector):
    return {"w": jnp.asarray(vector[:6], jnp.float32).reshape(3, 2), "b": jnp.asarray(vector[6:])}


def updates_of(optimizer, gradients):
    """What the optimiser adds to the parameters for gradients of the fitness (T, 10)."""
    state, found = optimizer.init(PARAMS), []
    for gradient in gradients:
        descent = jax.tree.map(jnp.negative, tree(gradient))
        update, state = optimizer.update(descent, state, PARAMS)
        found.append(np.concatenate([update["w"].ravel(), update["b"]]))
    return np.array(found), state


@pytest.mark.parametrize(
    ("given", "max_speed"), [({"max_speed": 0.4}, 0.4), ({"momentum": 0.6, "max_speed": 1.0}, 1.0)]
)
def test_updates_are_the_velocities_of_the_paper(given, max_speed):
    gradients = np.random.default_rng(0).normal(3.0, 2.0, (12, 10)).astype(np.float32)
    gradients *= np.logspace(-3, 3, 12, dtype=np.float32)[:, None]  # their length must not matter
    found, _ = updates_of(es_rl.clip_up(0.3, **given), gradients)
    want = algorithm_1(gradients, 0.3, given.get("momentum", 0.9), max_speed)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    clipped = np.isclose(np.linalg.norm(want, axis=1), max_speed)
    assert clipped.any() == (max_speed < 0.75), "0.3 / (1 - 0.6) is the speed at the most"


def test_the_longest_step_is_twice_the_learning_rate_unless_given():
    found, _ = updates_of(es_rl.clip_up(0.5), np.ones((9, 10), np.float32))
    speeds = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(speeds, [0.5, 0.95, *[1.0] * 7], rtol=1e-5)


def test_a_zero_gradient_lets_the_velocity_coast():
    gradients = np.zeros((4, 10), np.float32)
    gradients[1] = 1.0
    found, _ = updates_of(es_rl.clip_up(0.5), gradients)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [0, 0.5, 0.45, 0.405], rtol=1e-5)


def test_its_learning_rate_is_found_and_may_be_a_schedule():
    schedule = optax.exponential_decay(0.5, 1, 0.5)
    found, state = updates_of(es_rl.clip_up(schedule, momentum=0.0), np.ones((3, 10), np.float32))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [0.5, 0.25, 0.125], rtol=1e-5)
    assert float(learning_rate_of(state)) == 0.125


def test_it_climbs():
    es = es_rl.eggroll(64, sigma=0.1, optimizer=es_rl.clip_up(0.05))
    target = jnp.arange(12.0).reshape(4, 3) / 6

    @jax.jit
    def generation(state):
        noise = es.ask(state)
        members = jax.vmap(lambda m: es_rl.materialize(state.params, noise, m))(jnp.arange(64))
        return es.tell(state, noise, -((members - target[None]) ** 2).sum((1, 2)))

    state = es.init(jax.random.key(0), jnp.zeros((4, 3)))
    for _ in range(100):
        state, metrics = generation(state)
    assert float(jnp.linalg.norm(state.params - target)) < 0.3
    assert float(metrics["learning_rate"]) == pytest.approx(0.05)


def test_an_infinite_gradient_skips_the_update():
    """A velocity of NaN would stay for ever."""
    optimizer = es_rl.clip_up(0.5)
    update, _ = optimizer.update(tree(np.full(10, np.inf)), optimizer.init(PARAMS), PARAMS)
    assert not np.isfinite(update["b"]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be greater than 0"),
        ({"momentum": 1.0}, "momentum=1.0: must be at least 0 and less than 1"),
        ({"momentum": -0.1}, "momentum=-0.1: must be"),
        ({"max_speed": 0.0}, "max_speed=0.0: must be greater than 0"),
        ({"max_speed": float("nan")}, "max_speed=nan: must be"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        es_rl.clip_up(**{"learning_rate": 0.1, **options})
