"""Env steps are counted where there are more of them than 32 bits hold."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import agents
import envs
from es_rl.play.host_player import HostPlayer
from es_rl.play.rollout import Rollout

LONG = 2**30


@pytest.mark.parametrize(
    ("name", "rollout", "last"),
    [("probe/policy_reward", Rollout, "finish"), ("gymnasium/CartPole-v1", HostPlayer, "play")],
)
def test_env_steps_beyond_32_bits(name, rollout, last, tmp_path, monkeypatch):
    play = getattr(rollout, last)

    def long(self, *arguments):
        played = play(self, *arguments)
        steps = (jnp if rollout is Rollout else np).full_like(played.lengths, LONG)
        return played._replace(lengths=steps)

    monkeypatch.setattr(rollout, last, long)
    agent = agents.make("eggroll", envs.make(name), population_size=8, hidden=(), lanes=8)
    result = agents.train(agent, env_steps=10 * LONG, eval_episodes=2, out=tmp_path / "run")
    assert result.env_steps == 16 * LONG
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["env_steps"] for line in lines] == [8 * LONG, 16 * LONG]
    assert agents.load_policy(tmp_path / "run").training["env_steps"] == 16 * LONG
