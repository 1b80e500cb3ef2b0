"""Rollouts: lanes change nothing but time, and statistics count live steps only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from es_rl import observations
from es_rl.rollout import Jobs, episode_keys, make_jobs, play, reset_key, step_keys

POPULATION, EPISODES = 12, 2
ENV = envs.make("probe/random_length")
# Each member acts by its own threshold, so that members differ on the same episode.
JOBS = make_jobs(POPULATION, EPISODES, sharing=2)
KEYS = episode_keys(jax.random.key(4), int(JOBS.episode.max()) + 1)


def act(member, obs, key):
    chance = jax.random.uniform(key)
    return jnp.where(chance < member / POPULATION, obs[0] > 0, 0).astype(jnp.int32), obs * 2


def play_one(member, episode):
    """The plain loop: one environment, one episode."""
    key = KEYS[episode]
    state, total, observed = ENV.reset(reset_key(key)), 0.0, []
    while True:
        policy_key, env_key = step_keys(key, state.steps)
        action, vector = act(member, state.obs, policy_key)
        observed.append(vector)
        state = ENV.step(state, action, env_key)
        total += float(state.reward)
        if state.terminated or state.truncated:
            return total, int(state.steps), np.stack(observed)


@pytest.fixture(scope="module")
def one_by_one():
    return [play_one(m, e) for m, e in zip(JOBS.member, JOBS.episode, strict=True)]


@pytest.mark.parametrize("lanes", [1, 5, 8, 24, 40])
def test_every_number_of_lanes_plays_what_the_plain_loop_plays(lanes, one_by_one):
    played = jax.jit(lambda keys: play(ENV, act, JOBS, keys, lanes=lanes))(KEYS)
    returns, lengths, observed = zip(*one_by_one, strict=True)
    np.testing.assert_array_equal(played.returns, np.float32(returns))
    np.testing.assert_array_equal(played.lengths, lengths)
    np.testing.assert_array_equal(played.obs_sum, [o.sum(0) for o in observed])
    np.testing.assert_array_equal(played.obs_squares, [(o**2).sum(0) for o in observed])
    assert int(played.lane_steps) % lanes == 0
    assert int(played.lane_steps) >= sum(lengths)
    if lanes == 1:
        assert int(played.lane_steps) == sum(lengths)


def test_busy_lanes_beat_lockstep():
    played = jax.jit(lambda keys: play(ENV, act, JOBS, keys, lanes=6))(KEYS)
    lockstep = 6 * ENV.spec.max_episode_steps * (len(JOBS.member) // 6)
    assert int(played.lane_steps) < 0.8 * lockstep


def test_jobs_share_episodes_within_couples_and_groups():
    jobs = make_jobs(4, 2, sharing=2)
    np.testing.assert_array_equal(jobs.member, [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(jobs.episode, [0, 1, 0, 1, 2, 3, 2, 3])
    everyone = make_jobs(4, 1, sharing=4)
    np.testing.assert_array_equal(everyone.episode, 0)


def test_the_same_episode_gives_the_same_randomness():
    jobs = Jobs(jnp.array([3, 3, 3]), jnp.array([0, 1, 0]))
    played = play(ENV, act, jobs, KEYS, lanes=2)
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
