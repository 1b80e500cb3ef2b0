"""Rollouts on the host: the same returns whatever the workers and lanes, and whatever fails."""

import logging
import os
import signal
import threading
import time

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from es_rl.devices import make_mesh
from es_rl.play.host_player import HostPlayer, lanes_for, with_idle_lanes
from es_rl.play.jobs import Jobs, episode_seeds
from es_rl.play.player import Behaviour

envs.import_module("tests.envs.faulty")

JOBS = Jobs(np.arange(24, dtype=np.int32), np.arange(24, dtype=np.int32) // 2)
SEEDS = np.arange(1, 13)
KEYS = np.stack([np.full(12, 7), SEEDS], axis=1).astype(np.uint32)
"""Key data of which seeds are derived that are easy to name."""
SHARED = jnp.linspace(-1.0, 1.0, 24)


def _act(shared, selected, memory, obs, key):
    vector = obs.astype(jnp.float32)
    # The memory counts the steps, so that one that was not reset shows in the actions.
    push = jnp.tanh(selected * jnp.sum(vector) + 0.3 * jnp.sin(memory) + jax.random.normal(key))
    return jnp.clip(2.0 * push[None], -1.0, 1.0), memory + 1.0, vector


BEHAVIOUR = Behaviour(lambda shared, member: shared[member], jnp.zeros(()), _act)


def test_seeds_come_from_the_keys():
    np.testing.assert_array_equal(episode_seeds(KEYS, evaluation=False), SEEDS)
    np.testing.assert_array_equal(episode_seeds(KEYS, evaluation=True), SEEDS + 2**30)


def play(env, busy=24, jobs=JOBS):
    """The jobs, played once; the workers are gone afterwards."""
    pool = env.open_lanes(with_idle_lanes(busy))
    try:
        player = HostPlayer(env.spec, pool, BEHAVIOUR, jobs, make_mesh(1), busy)
        return player.play(SHARED, KEYS)
    finally:
        pids = pool.pids
        pool.close()
        assert not any(map(_alive, pids))


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_lanes_and_workers_change_no_return():
    wanted = None
    for workers, busy in ((1, 24), (2, 24), (4, 24), (2, 1), (3, 7), (2, 100)):
        env = envs.make("gymnasium/Pendulum-v1", workers=workers, max_episode_steps=50)
        played = play(env, busy)
        assert np.isfinite(played.returns).all()
        assert (played.lengths == 50).all()
        wanted = wanted or played
        for name in ("returns", "obs_sum", "obs_squares"):
            np.testing.assert_array_equal(getattr(played, name), getattr(wanted, name))
        assert played.lane_steps >= played.lengths.sum()
    assert len(np.unique(wanted.returns)) == 24


def test_a_plain_loop_earns_the_same():
    env = envs.make("gymnasium/Pendulum-v1", workers=2, max_episode_steps=20)
    jobs = Jobs(JOBS.member[:5], JOBS.episode[:5])
    played = play(env, 4, jobs)
    # One member in a rollout of its own, on an environment that is stepped here.
    keys = jax.random.wrap_key_data(KEYS)
    act = jax.jit(_act)
    for job in range(5):
        single = gymnasium.make("Pendulum-v1", max_episode_steps=20)
        obs, _ = single.reset(seed=int(SEEDS[jobs.episode[job]]))
        total, memory, sums = 0.0, jnp.zeros(()), np.zeros(3)
        for step in range(20):
            policy_key = jax.random.split(jax.random.fold_in(keys[jobs.episode[job]], step + 1))[0]
            sums += obs
            action, memory, _ = act(SHARED, SHARED[job], memory, obs, policy_key)
            obs, reward, _, truncated, _ = single.step(np.asarray(action))
            total += float(reward)
        assert truncated
        np.testing.assert_allclose(played.returns[job], total, rtol=1e-4)
        np.testing.assert_allclose(played.obs_sum[job], sums, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raise", "ArithmeticError: the sum is wrong"),
        ("exit", "the worker exited with code 3"),
        ("hang", "no sign of life for 1 s"),
    ],
)
def test_a_job_whose_environment_fails_twice_counts_as_not_finite(kind, reason, caplog):
    with caplog.at_level(logging.WARNING, "es_rl"):
        env = envs.make("gymnasium/Faulty-v0", kind=kind, every=12, workers=2, step_timeout=1.0)
        played = play(env)
    wrong = SEEDS[JOBS.episode] % 12 == 0
    assert wrong.sum() == 2
    assert np.isnan(played.returns[wrong]).all()
    assert (played.returns[~wrong] == 20).all()
    np.testing.assert_array_equal(played.lengths, np.where(wrong, 0, 20))
    messages = [record.getMessage() for record in caplog.records]
    said = f"gymnasium/Faulty-v0, seed 12, step 17: {reason}; "
    assert sorted(messages) == sorted(
        2 * [said + "played once more"] + 2 * [said + "failed again, counts as not finite"]
    )


def test_a_job_that_fails_once_is_played_again(tmp_path, caplog):
    once = str(tmp_path / "failed")
    env = envs.make("gymnasium/Faulty-v0", kind="exit", every=12, once=once, workers=2)
    played = play(env)
    assert (played.returns == 20).all()
    assert len(caplog.records) == 1


def test_numbers_that_are_not_finite_stay_with_their_jobs():
    env = envs.make("gymnasium/Faulty-v0", kind="nan", every=4, workers=2)
    played = play(env)
    wrong = SEEDS[JOBS.episode] % 4 == 0
    np.testing.assert_array_equal(np.isfinite(played.returns), ~wrong)
    np.testing.assert_array_equal(np.isfinite(played.obs_sum).all(axis=1), ~wrong)


def test_nothing_but_failures_ends_the_rollout():
    env = envs.make("gymnasium/Faulty-v0", kind="raise", every=1, workers=2)
    with pytest.raises(RuntimeError, match="16 episodes failed and none ended; .* step 17: Arith"):
        play(env)


def test_killed_workers_are_replaced():
    env = envs.make("gymnasium/Pendulum-v1", workers=2, max_episode_steps=2000)
    wanted = play(env)
    pool = env.open_lanes(with_idle_lanes(24))
    player = HostPlayer(env.spec, pool, BEHAVIOUR, JOBS, make_mesh(1), 24)
    player.play(SHARED, KEYS)  # compiles, and starts the workers
    first = pool.pids

    def kill_both():
        for pid in first:
            time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_both)
    killer.start()
    played = player.play(SHARED, KEYS)
    killer.join()
    assert not set(first) & set(pool.pids)
    np.testing.assert_array_equal(played.returns, wanted.returns)
    pool.close()


def test_an_interrupted_rollout_leaves_the_lanes_usable():
    env = envs.make("gymnasium/Faulty-v0", workers=2)
    pool = env.open_lanes(with_idle_lanes(24))
    player = HostPlayer(env.spec, pool, BEHAVIOUR, JOBS, make_mesh(1), 24)
    span = slice(0, 24)
    pool.send(span, np.full(24, envs.base.RESET), np.arange(24), None)
    played = player.play(SHARED, KEYS)
    assert (played.returns == 20).all()
    pool.close()


def test_numbers_of_lanes():
    assert lanes_for(1000, workers=4) == 512
    assert lanes_for(100, workers=4) == 100
    assert lanes_for(1000, workers=4, lanes=3) == 3
    assert [with_idle_lanes(n) for n in (1, 64, 65)] == [64, 64, 128]
