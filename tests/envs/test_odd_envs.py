"""Environments as people write them: what could go wrong silently is told, the rest works."""

import json
import pathlib
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import agents
import envs
from agents.training.evaluation import evaluation_keys
from envs.errors import UserError
from es_rl.play.host_collector import HostCollector
from es_rl.play.jobs import episode_keys, episode_seeds
from tests.envs.odd_runs import make, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_seeds_of_training_and_evaluation_are_apart_and_of_31_bits():
    keys = jax.random.key_data(episode_keys(jax.random.key(3), 1000))
    training = episode_seeds(keys, evaluation=False)
    evaluation = episode_seeds(evaluation_keys(0, 1000), evaluation=True)
    assert 0 <= training.min() <= training.max() < 2**30
    assert 2**30 <= evaluation.min() <= evaluation.max() < 2**31
    assert training.max() > 2**29, "all of the bits are used"


@pytest.mark.parametrize("name", ["SeedInt32", "SeedJax"])
@pytest.mark.parametrize("agent", ["eggroll", "ppo"])
def test_a_simulator_that_takes_seeds_of_32_bits_is_trained_and_evaluated(name, agent, caplog):
    result, lines = train(make(name), agent)
    assert np.isfinite(result.evaluation.returns).all()
    assert sum(line["failed_episodes"] for line in lines) == 0
    assert caplog.records == []


def test_ppo_trains_on_seeds_of_training_alone(monkeypatch):
    seen = []
    exchange = HostCollector._exchange

    def noted(self, command, seeds, actions):
        seen.extend(seeds[command == envs.base.RESET])
        return exchange(self, command, seeds, actions)

    monkeypatch.setattr(HostCollector, "_exchange", noted)
    train(make("SameArray"), "ppo", env_steps=640)
    assert len(set(seen)) > 32
    assert 2**29 < max(seen) < 2**30


SHARED_RETURN = sum(range(1, 21))


@pytest.mark.parametrize(
    ("agent", "settings"), [("eggroll", {"lanes": 1}), ("ppo", {"num_envs": 1, "num_steps": 30})]
)
def test_one_lane_and_one_worker_are_one_environment_in_the_process(agent, settings, caplog):
    settings = {**settings, "minibatch_size": 10} if agent == "ppo" else settings
    env = make("Shared")
    result, lines = train(env, agent, env_steps=200, **settings)
    assert (result.evaluation.returns == SHARED_RETURN).all()
    known = [line["return_mean"] for line in lines]
    assert [x for x in known if not np.isnan(x)] == [SHARED_RETURN] * len(known)
    replayed = agents.evaluate(result.policy, env, episodes=3, lanes=1)
    assert (replayed.returns == SHARED_RETURN).all()
    assert caplog.records == []


def test_environments_that_share_something_in_their_process_are_named(caplog):
    result, _ = train(make("Shared"))
    assert (result.evaluation.returns != SHARED_RETURN).any(), "which is why"
    (record,) = caplog.records
    assert "gymnasium/Shared-v0 is not the same beside others of its kind" in record.getMessage()
    assert "--lanes 1 --workers 1" in record.getMessage()


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("agent", "settings"),
    [("eggroll", {"lanes": 1}), ("ppo", {"num_envs": 1, "num_steps": 30, "minibatch_size": 10})],
)
def test_an_environment_that_takes_a_port_is_trained_evaluated_and_replayed(agent, settings, port):
    env = make("Port", port=port)
    result, _ = train(env, agent, **settings)
    replayed = agents.evaluate(result.policy, env, episodes=2, lanes=1)
    np.testing.assert_array_equal(replayed.returns, result.evaluation.returns)


def test_the_commands_flags_leave_one_environment(port, tmp_path):
    def es_rl(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "experiments.cli", *map(str, arguments)]
            + ["--import", "tests.envs.odd_envs", "--lanes", "1", "--workers", "1"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    es_rl(
        *("train", "gymnasium/Port-v0", "--env-kwargs", f"port={port}", "--env-steps", 80),
        *("--population-size", 8, "--hidden", 4, "--eval-episodes", 2, "--out", tmp_path / "run"),
    )
    saved = json.loads((tmp_path / "run/policy/policy.json").read_text())
    replayed = es_rl("replay", tmp_path / "run", "--episodes", 2, "--json")
    assert json.loads(replayed)["returns"] == saved["evaluation"]["returns"]


@pytest.mark.parametrize(
    ("name", "lanes", "said"),
    [
        ("Unseeded", 1, "does not repeat itself: with the same seed and actions the observation"),
        ("GlobalRandom", None, "is not the same beside others of its kind in one process"),
        ("GlobalRandom", 1, None),
        ("SameArray", None, None),
    ],
)
def test_an_environment_that_does_not_repeat_itself_is_named_once(name, lanes, said, caplog):
    env = make(name)
    for _ in range(2):
        train(env, lanes=lanes)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (said is not None)
    assert all(f"gymnasium/{name}-v0 {said}" in message for message in messages)


def test_bounds_as_large_as_a_float_are_none():
    result, _ = train(make("Huge"))  # which refuses infinite actions
    assert np.abs(result.policy(np.array([0.3, -0.2], np.float32))) < 1e3
    assert (np.abs(result.evaluation.returns) <= 10).all()


def test_a_path_in_sys_path_is_harmless(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path, pathlib.Path(tmp_path), None])
    result, _ = train(make("SameArray"))
    assert np.isfinite(result.evaluation.returns).all()


def test_making_an_environment_may_take_its_time_and_one_is_told(monkeypatch, caplog):
    monkeypatch.setattr("envs.host.pool._PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("envs.adapting.making._PATIENCE_SECONDS", 0.3)
    # Longer than a step may take: the second lane's is made while the first is waited for.
    env = make("Slow", seconds=1.0, step_timeout=0.6, start_timeout=60)
    result, _ = train(env, lanes=2)
    assert np.isfinite(result.evaluation.returns).all()
    messages = [record.getMessage() for record in caplog.records]
    assert "gymnasium/Slow-v0: an environment is being made for 0 s" in messages[0]
    assert any("(at most 60: start_timeout)" in message for message in messages)
    assert not any("played once more" in message for message in messages)


def test_a_start_that_takes_too_long_names_the_flag():
    with pytest.raises(UserError, match=r"start_timeout=1: gymnasium/Slow-v0 takes longer"):
        train(make("Slow", seconds=3.0, start_timeout=1))


def test_a_limit_that_nobody_named_is_announced(caplog):
    assert make("Long").spec.max_episode_steps == 1000
    (record,) = caplog.records
    assert "cut after 1000 steps" in record.getMessage()
    assert "--max-episode-steps" in record.getMessage()
    caplog.clear()
    env = make("Long", max_episode_steps=5000)
    result, _ = train(env, "random", episodes=1, env_steps=1)
    assert (result.evaluation.lengths == 3000).all()
    assert caplog.records == []


@pytest.mark.parametrize("shaping", ["zscore", "centered_rank"])
def test_a_large_constant_in_the_rewards_changes_nothing_that_is_learned(shaping):
    plain, offset = (
        train(make(name), env_steps=400, population_size=16, shaping=shaping)
        for name in ("SameArray", "Offset")
    )
    weights = (result.policy.weights for result in (plain[0], offset[0]))
    jax.tree.map(np.testing.assert_array_equal, *weights)
    for name in ("return_mean", "return_max", "return_min", "eval_return_mean"):
        digits = [line[name] - 1e9 for line in offset[1]]
        np.testing.assert_allclose(digits, [line[name] for line in plain[1]], atol=1e-5)


def test_small_moves_of_large_observations_are_learned():
    result, _ = train(
        make("BigOffset"), env_steps=16 * 10 * 15, population_size=16, learning_rate=0.2
    )
    assert result.evaluation.mean >= 8


@pytest.mark.parametrize(
    ("name", "agent", "counts"),
    [
        ("NaNObs", "eggroll", {"nonfinite_observations": 8, "nonfinite_actions": 0}),
        ("NaNAction", "eggroll", {"nonfinite_observations": 8, "nonfinite_actions": 8}),
        ("NaNObs", "ppo", {"nonfinite_steps": 32}),
        ("SameArray", "eggroll", {"nonfinite_observations": 0, "nonfinite_actions": 0}),
        ("SameArray", "ppo", {"nonfinite_steps": 0}),
    ],
)
def test_numbers_that_are_not_finite_are_counted_and_named(name, agent, counts, caplog):
    _, lines = train(make(name), agent, env_steps=160)
    for line in lines:
        assert {key: line[key] for key in counts} == counts
    messages = [record.getMessage() for record in caplog.records]
    said = f"gymnasium/{name}-v0, seed \\d+, step {2 if name == 'NaNAction' else '[01]'}: "
    assert all(re.match(said, message) for message in messages)
    # One of a kind from training, one from evaluation.
    assert len(messages) <= 4
    assert bool(messages) == any(counts.values())


def test_the_command_names_them_at_the_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "train", "gymnasium/NaNObs-v0", "--workers", "1"]
        + ["--import", "tests.envs.odd_envs", "--population-size", "8", "--hidden", "4"]
        + ["--env-steps", "160", "--eval-episodes", "2", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "warning: 16 episodes had an observation that was not finite (nonfinite_observations)"
    )


WORKING = {
    **dict.fromkeys(("SameArray", "DoneNp", "RewardArray0", "RewardInt", "Half", "ScalarBox"), {}),
    **dict.fromkeys(("Disc5", "Ragged", "BigInfo", "Constant", "Tiny", "DictFlat", "Frames"), {}),
    **dict.fromkeys(("Time", "Flag"), {}),
    "Kw": {"df": [1, 2]},
}


@pytest.mark.parametrize("name", WORKING)
def test_what_is_merely_unusual_works(name, caplog):
    env = make(name, **WORKING[name])
    result, lines = train(env)
    assert np.isfinite(result.evaluation.returns).all()
    assert sum(line["failed_episodes"] + line["nonfinite_observations"] for line in lines) == 0
    assert caplog.records == []
