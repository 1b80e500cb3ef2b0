"""The settings of the rules for sigma and of ClipUp: they train, resume, and are checked."""

import functools
import json

import jax
import numpy as np
import pytest

import agents
import envs
import es_rl
from agents.evolution.config import EggrollConfig, EvolutionConfig
from envs.errors import UserError
from tests.agents.resuming import Crash, crash_in

SMALL = {"population_size": 16, "hidden": (4,), "learning_rate": 0.1, "sigma": 0.2}


@functools.cache
def env(name="probe/policy_reward", **kwargs):
    return envs.make(name, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("eggroll", {"sigma_rule": "pgpe", "optimizer": "clip_up", "rank": 2}),
        ("open_es", {"sigma_rule": "success", "optimizer": "clip_up", "weight_decay": 0.1}),
    ],
)
def test_a_run_goes_on_with_the_same_bits(name, settings, tmp_path):
    agent = agents.make(name, env(), **SMALL, **settings)
    budget = {"env_steps": 6 * 128, "eval_every": 3, "eval_episodes": 4, "checkpoint_every": 2}
    whole = agents.train(agent, out=tmp_path / "whole", **budget)
    with pytest.raises(Crash):
        agents.train(agent, out=tmp_path / "cut", on_generation=crash_in(3), **budget)
    again = agents.train(agent, out=tmp_path / "cut", resume=True, **budget)
    assert whole.generations == again.generations > 4
    read = [
        (tmp_path / run / "policy/weights.safetensors").read_bytes() for run in ("whole", "cut")
    ]
    assert read[0] == read[1]
    lines = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "cut")
    ]
    sigmas = [[line["sigma"] for line in run] for run in lines]
    assert sigmas[0] == sigmas[1]
    assert len(set(sigmas[0][1:])) > 2, "sigma changes"
    assert {line["learning_rate"] for line in lines[0]} == {np.float32(0.1).item()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"sigma_rule": "pgpe"},
        {"sigma_rule": "success"},
        {"optimizer": "clip_up", "learning_rate": 0.3},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_they_learn(settings):
    agent = agents.make("eggroll", env(), **{**SMALL, "population_size": 64, **settings})
    result = agents.train(agent, env_steps=60_000, target_return=7.5, eval_every=2)
    assert result.evaluation.mean >= 7.5


def test_the_success_rule_compares_returns_in_which_no_constant_was_subtracted():
    """Returns of the host are shifted by one of them, another one in every generation, where the
    update does not see it."""
    returns = np.array([1000.0, 1001.0, 1002.0, 1003.0])
    for rule, want in (("success", 0), ("pgpe", 1000), ("schedule", 1000)):
        settings = {**SMALL, "population_size": 4, "sigma_rule": rule}
        agent = agents.make("eggroll", env(), **settings)
        shifted, offset = agent._as_float32(returns)
        assert (offset, shifted[0]) == (want, 1000 - want)


def test_weight_decay_shrinks_parameters_beside_clip_up():
    """Decoupled, as in AdamW: by the learning rate times the coefficient."""
    params = {"w": np.ones((3, 2), np.float32)}

    def moved(**settings):
        config = EggrollConfig(
            population_size=8, learning_rate=0.5, optimizer="clip_up", **settings
        )
        es = config.strategy()
        state = es.init(jax.random.key(0), params)
        following, metrics = es.tell(state, es.ask(state), np.arange(8.0) ** 2)
        assert float(metrics["learning_rate"]) == 0.5
        return following.params["w"] - params["w"]

    plain = moved()
    assert np.linalg.norm(plain) == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(moved(weight_decay=0.1), plain - 0.05, atol=1e-6)
    assert np.linalg.norm(moved(max_speed=0.2)) == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("kind", [EvolutionConfig, EggrollConfig])
def test_the_rule_chooses_the_strategy(kind):
    made = [kind(sigma_rule=rule).strategy() for rule in ("schedule", "pgpe", "success")]
    wanted = [es_rl.EvolutionStrategy, es_rl.LearnedSigma, es_rl.SuccessSigma]
    assert [type(strategy) for strategy in made] == wanted
    assert kind(sigma_rule="pgpe", sigma_learning_rate=0.3).strategy().learning_rate == 0.3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sigma_rule": "pgpe", "sigma_decay": 0.99}, "sigma_decay=0.99: must be 1.0 with sigma_r"),
        ({"sigma_rule": "success", "shard_update": True}, "shard_update=True: must be False with"),
        ({"sigma_rule": "path"}, "sigma_rule='path': must be"),
        ({"sigma_learning_rate": 0.0}, "sigma_learning_rate=0.0: must be greater than 0"),
        ({"optimizer": "clip_up", "momentum": 1.0}, "momentum=1.0: must be at least 0"),
        ({"optimizer": "clip_up", "max_speed": -1.0}, "max_speed=-1.0: must be greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, says):
    with pytest.raises(UserError, match=says):
        agents.make("eggroll", env(), **settings)
