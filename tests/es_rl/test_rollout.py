"""Rollouts: lanes change nothing but time, and statistics count live steps only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from es_rl.devices import lanes_per_device, make_mesh, tail_lanes
from es_rl.play import observations
from es_rl.play.jobs import (
    Jobs,
    as_int,
    as_int32,
    episode_keys,
    make_jobs,
    reset_key,
    step_keys,
    wide_sum,
)
from es_rl.play.player import Behaviour
from es_rl.play.rollout import Rollout

POPULATION, EPISODES = 13, 2
ENV = envs.make("probe/random_length")
JOBS = make_jobs(POPULATION, EPISODES, sharing=2)
KEYS = episode_keys(jax.random.key(4), int(JOBS.episode.max()) + 1)


def act(shared, chance, memory, obs, key):
    """Each member acts by its own chance, and remembers how often it has acted."""
    right = jax.random.uniform(key) < chance
    action = jnp.where(right, obs[0] > 0, memory % 3 == 0).astype(jnp.int32)
    return action, memory + 1, obs * 2


BEHAVIOUR = Behaviour(lambda shared, member: member / shared, jnp.int32(0), act)


def play(jobs, *, lanes, devices=1, tail=0, env=ENV, **bounds):
    rollout = Rollout(env, BEHAVIOUR, jobs, make_mesh(devices), lanes, tail, **bounds)
    return jax.jit(rollout.play)(jnp.float32(POPULATION), KEYS)


def play_one(member, episode):
    """The plain loop: one environment, one episode."""
    key = KEYS[episode]
    state, memory, total, observed = ENV.reset(reset_key(key)), 0, 0.0, []
    while True:
        policy_key, env_key = step_keys(key, state.steps)
        chance = jnp.float32(member) / POPULATION
        action, memory, vector = act(None, chance, memory, state.obs, policy_key)
        observed.append(vector)
        state = ENV.step(state, action, env_key)
        total += float(state.reward)
        if state.terminated or state.truncated:
            return total, int(state.steps), np.stack(observed)


@pytest.fixture(scope="module")
def one_by_one():
    return [play_one(m, e) for m, e in zip(JOBS.member, JOBS.episode, strict=True)]


@pytest.mark.parametrize(
    ("sharing", "devices"),
    [
        (1, 2),
        (POPULATION, 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, 1), (2, 1), (2, 2), (POPULATION, 2))
        ),
    ],
)
def test_start_states_made_in_portions_change_nothing(sharing, devices):
    jobs = make_jobs(POPULATION, 5, sharing=sharing)
    keys = episode_keys(jax.random.key(4), int(jobs.episode.max()) + 1)
    many = Rollout(ENV, BEHAVIOUR, jobs, make_mesh(devices), 3)
    few = Rollout(ENV, BEHAVIOUR, jobs, make_mesh(devices), 3, pool_bytes=1)
    shared = jnp.float32(POPULATION)
    assert jax.eval_shape(many.start, shared, keys)[1].window is None
    window = jax.eval_shape(few.start, shared, keys)[1].window
    assert len(window.starts.steps) == 3 * devices
    expected, found = (jax.jit(rollout.play)(shared, keys) for rollout in (many, few))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


LANES_AND_TAILS = [*((lanes, 0) for lanes in (1, 5, 8, 26, 40)), (8, 3), (26, 1), (40, 40)]


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("lanes", "tail"), LANES_AND_TAILS)
def test_every_number_of_lanes_plays_what_the_plain_loop_plays(lanes, tail, devices, one_by_one):
    played = play(JOBS, lanes=lanes, devices=devices, tail=tail)
    returns, lengths, observed = zip(*one_by_one, strict=True)
    np.testing.assert_array_equal(played.returns, np.float32(returns))
    np.testing.assert_array_equal(played.lengths, lengths)
    np.testing.assert_array_equal(played.obs_sum, [o.sum(0) for o in observed])
    np.testing.assert_array_equal(played.obs_squares, [(o**2).sum(0) for o in observed])
    assert played.lane_steps.shape == (devices,)
    assert played.lane_steps.sum() >= sum(lengths)
    if tail == 0:
        assert (played.lane_steps % lanes == 0).all()
    if lanes == 1:
        np.testing.assert_array_equal(
            played.lane_steps, np.reshape(lengths, (devices, -1)).sum(axis=1)
        )


def test_lanes_that_finish_alone_execute_no_idle_steps():
    together, alone = play(JOBS, lanes=8), play(JOBS, lanes=8, tail=3)
    np.testing.assert_array_equal(together.returns, alone.returns)
    assert alone.lengths.sum() <= alone.lane_steps.sum() < together.lane_steps.sum()


def test_more_devices_than_jobs_and_uneven_shares():
    single = Jobs(JOBS.member[3:4], JOBS.episode[3:4])
    np.testing.assert_array_equal(
        play(single, lanes=2, devices=2).returns, play(JOBS, lanes=8).returns[3:4]
    )
    uneven = Jobs(JOBS.member[:7], JOBS.episode[:7])
    played = play(uneven, lanes=3, devices=2)
    np.testing.assert_array_equal(played.returns, play(JOBS, lanes=8).returns[:7])
    assert played.obs_sum.shape == (7, 1)


def test_busy_lanes_beat_lockstep():
    played = play(JOBS, lanes=6)
    lockstep = 6 * ENV.spec.max_episode_steps * (len(JOBS.member) // 6)
    assert int(played.lane_steps.sum()) < 0.8 * lockstep


def test_lanes_are_chosen_from_the_device_and_the_jobs():
    mesh = make_mesh(2)
    assert lanes_per_device(10_000, mesh) == 64
    assert lanes_per_device(256, mesh) == 32
    assert lanes_per_device(20, mesh) == 10
    assert lanes_per_device(10_000, mesh, lanes=65) == 33
    assert lanes_per_device(21, mesh, lanes=65) == 11
    assert [tail_lanes(n, mesh) for n in (1, 8, 32)] == [0, 1, 4]


def test_too_many_devices():
    with pytest.raises(ValueError, match="devices=3: must be from 1 to 2, the devices here"):
        make_mesh(3)


def test_jobs_share_episodes_within_couples_and_groups():
    jobs = make_jobs(4, 2, sharing=2)
    np.testing.assert_array_equal(jobs.member, [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(jobs.episode, [0, 1, 0, 1, 2, 3, 2, 3])
    everyone = make_jobs(4, 1, sharing=4)
    np.testing.assert_array_equal(everyone.episode, 0)


def test_the_same_episode_gives_the_same_randomness():
    jobs = Jobs(np.array([3, 3, 3], np.int32), np.array([0, 1, 0], np.int32))
    played = play(jobs, lanes=2)
    assert played.lengths[0] == played.lengths[2] != played.lengths[1]
    assert played.returns[0] == played.returns[2]


def test_moments_are_those_of_all_observations():
    rng = np.random.default_rng(0)
    episodes = [rng.normal([3, -200], [2, 50], (n, 2)) for n in (5, 17, 1, 40)]
    moments = observations.empty(2)
    for generation in (episodes[:2], episodes[2:]):
        mean, std = np.asarray(moments.mean), np.asarray(moments.std)
        z = [np.float32(observations.standardize(e, mean, std)) for e in generation]
        moments = observations.merge(
            moments,
            jnp.array([len(e) for e in generation]),
            jnp.array([e.sum(0) for e in z]),
            jnp.array([(e**2).sum(0) for e in z]),
        )
    everything = np.concatenate(episodes)
    assert moments.count == len(everything)
    np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.std, everything.std(0), rtol=1e-4)


def test_an_episode_with_nan_observations_leaves_the_moments_alone():
    moments = observations.empty(1)
    bad = observations.merge(
        moments, jnp.array([4, 2]), jnp.array([[jnp.nan], [2.0]]), jnp.array([[1.0], [4.0]])
    )
    assert bad.count == 2
    np.testing.assert_allclose(bad.mean, 1.0)
    np.testing.assert_allclose(bad.std, 1.0)


def test_before_the_first_observation_nothing_is_scaled():
    moments = observations.empty(3)
    x = jnp.array([1.0, -2.0, 30.0])
    np.testing.assert_array_equal(observations.standardize(x, moments.mean, moments.std), x)
    np.testing.assert_array_equal(observations.clip(x), [1, -2, 10])


def test_steps_are_counted_beyond_32_bits():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 2**31, 800).astype(np.int32)
    lengths[:3] = 0, 255, 2**31 - 1
    total = int(lengths.sum(dtype=np.int64))
    assert 2**39 < total < 2**40
    assert as_int(np.asarray(jax.jit(wide_sum)(lengths))) == total
    assert as_int(np.asarray(wide_sum(np.zeros(0, np.int32)))) == 0


@pytest.mark.parametrize(
    ("lengths", "total"),
    [([3, 255, 256, 10_000], 10_514), ([2**30, 5], 2**30 + 5), ([2**31 - 1] * 300, 2**30 + 212)],
)
def test_a_sum_in_32_bits_is_exact_or_stops_near_2_to_the_30(lengths, total):
    assert as_int32(wide_sum(np.array(lengths, np.int32))) == total
