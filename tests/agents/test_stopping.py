"""Stopping within a generation, standing still, and what a run leaves while it goes on."""

import logging
import signal
import time

import jax
import numpy as np
import pytest

import agents
import envs
from agents.training.watchdog import Watchdog
from es_rl.play import device_player
from tests.agents.test_resume import ES, evaluator_of, metrics_of, weights_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def agent():
    """Plays episodes of 50 steps, at first 64 steps of its lanes to a call."""
    return agents.make("eggroll", envs.make("probe/random_length"), **ES, lanes=4)


@pytest.fixture(scope="module")
def budget(agent):
    evaluator = evaluator_of(agent)
    return {"env_steps": 1500, "eval_every": 2, "eval_episodes": 4, "evaluator": evaluator}


@pytest.fixture(autouse=True)
def short_calls(agent, monkeypatch):
    """As if a call of 8 steps took half a second."""
    monkeypatch.setattr(device_player, "PACE_SECONDS", 0.0)
    agent.player._steps = 8


def test_a_generation_in_parts_is_the_generation_in_one_go(agent, monkeypatch):
    told = []
    state = agent.init(jax.random.key(1))
    _, parts = agent.step(agent.init(jax.random.key(1)), lambda *now: told.append(now))
    agent.player._steps = 10**6
    _, whole = agent.step(state, lambda *now: pytest.fail("it was one call"))
    assert jax.device_get(parts) == jax.device_get(whole)
    assert len(told) > 10
    ended, totals = zip(*told, strict=True)
    assert set(totals) == {ES["population_size"]}
    assert list(ended) == sorted(ended)
    assert 0 < ended[-1] < totals[0]


def test_a_generation_that_is_given_up_leaves_the_state_as_it_was(agent):
    def give_up(ended, total):
        raise KeyboardInterrupt

    state = agent.init(jax.random.key(1))
    with pytest.raises(KeyboardInterrupt):
        agent.step(state, give_up)
    _, again = agent.step(state)
    _, expected = agent.step(agent.init(jax.random.key(1)))
    assert jax.device_get(again) == jax.device_get(expected)


@pytest.mark.parametrize("in_generation", [0, 2])
def test_a_signal_gives_the_generation_up_and_resume_plays_it(
    agent, budget, in_generation, tmp_path
):
    whole = agents.train(agent, out=tmp_path / "whole", **budget)

    def interrupt(what, ended, total):
        if what == f"generation {in_generation}":
            signal.raise_signal(signal.SIGINT)

    run = tmp_path / "run"
    stopped = agents.train(agent, out=run, on_progress=interrupt, **budget)
    assert stopped.stopped_by == signal.SIGINT
    assert stopped.generations == in_generation == len(metrics_of(run))
    assert stopped.checkpoint == run / "checkpoints" / str(in_generation)
    resumed = agents.train(agent, out=run, resume=True, **budget)
    assert metrics_of(run) == metrics_of(tmp_path / "whole")
    assert weights_of(run) == weights_of(tmp_path / "whole")
    assert resumed.new_generations == whole.generations - in_generation


def test_on_the_host_a_signal_gives_the_generation_up_too(tmp_path, monkeypatch):
    env = envs.make("gymnasium/CartPole-v1", max_episode_steps=30, workers=1)
    agent = agents.make("eggroll", env, **ES)
    monkeypatch.setattr("es_rl.play.host_player.PACE_SECONDS", 0.0)
    options = {"env_steps": 1000, "eval_every": 100, "eval_episodes": 4}
    agents.train(agent, out=tmp_path / "whole", **options)

    def interrupt(what, ended, total):
        assert total == (4 if what == "evaluation" else ES["population_size"])
        if what == "generation 1":
            signal.raise_signal(signal.SIGINT)

    run = tmp_path / "run"
    assert agents.train(agent, out=run, on_progress=interrupt, **options).generations == 1
    agents.train(agent, out=run, resume=True, **options)
    assert weights_of(run) == weights_of(tmp_path / "whole")
    agent.close()


def test_every_evaluation_leaves_policies_to_replay(agent, budget, tmp_path):
    def look(metrics, snapshot):
        if "eval_return_mean" not in metrics:
            return
        policy, best = (agents.load_policy(tmp_path / "run" / n) for n in ("policy", "best"))
        assert policy.training["generations"] == metrics["generation"] + 1
        assert np.mean(policy.evaluation["returns"]) == metrics["eval_return_mean"]
        seen.append(metrics["eval_return_mean"])
        assert np.mean(best.evaluation["returns"]) == max(seen)

    seen = []
    agents.train(agent, out=tmp_path / "run", on_generation=look, **budget)
    assert len(seen) > 2


def test_a_run_that_had_ended_has_no_new_generations(agent, budget, tmp_path):
    first = agents.train(agent, out=tmp_path / "run", **budget)
    assert first.new_generations == first.generations > 1
    again = agents.train(agent, out=tmp_path / "run", resume=True, **budget)
    assert (again.new_generations, again.generations) == (0, first.generations)


def test_the_watchdog_warns_where_nothing_is_done(caplog):
    with caplog.at_level(logging.WARNING, "es_rl"), Watchdog("try less", 0.2) as dog:
        dog.progress("generation 7")
        time.sleep(0.7)
    assert len(caplog.records) == 1
    assert "nothing computes: generation 7; try less" in caplog.text


def test_the_watchdog_is_silent_while_there_is_progress_or_work(caplog):
    with caplog.at_level(logging.WARNING, "es_rl"), Watchdog("try less", 0.3) as dog:
        for _ in range(6):
            time.sleep(0.1)
            dog.progress("generation 7")
        end = time.process_time() + 0.7
        while time.process_time() < end:
            pass
    assert not caplog.records


def test_training_is_watched(agent, budget, caplog, monkeypatch):
    monkeypatch.setattr(
        "agents.training.train.Watchdog", lambda advice: Watchdog(advice, still_seconds=0.2)
    )

    def stand_still(what, ended, total):
        if what == "generation 1" and ended == 0:
            time.sleep(0.7)

    with caplog.at_level(logging.WARNING, "es_rl"):
        agents.train(agent, on_progress=stand_still, **budget)
    (said,) = {record.getMessage().split(": ", 1)[1] for record in caplog.records}
    assert said.startswith("generation 1, 0 of 16 episodes ended; ")
    assert said.endswith("try --devices 1")
