"""`update_env_steps`: agents gather generations for one update."""

import jax
import numpy as np
import optax
import pytest

import agents
import envs
import es_rl
from agents.evolution.config import EggrollConfig
from envs.errors import UserError

TINY = {"population_size": 4, "hidden": (), "update_env_steps": 50}


STRATEGY = es_rl.eggroll(4, optimizer=es_rl.accumulate(optax.sgd(0.1), 30))


@pytest.mark.parametrize(
    ("settings", "least"),
    [(TINY, 50), ({"hidden": (), "strategy": STRATEGY}, 30)],
    ids=["settings", "strategy"],
)
def test_parameters_move_when_enough_env_steps_are_played(settings, least):
    with agents.make("eggroll", envs.make("probe/recall"), **settings) as agent:
        state = agent.init(jax.random.key(0))
        played, seen = 0, set()
        for _ in range(9):
            before = jax.device_get(state.es.params)
            state, metrics = agent.step(state)
            played += metrics["env_steps"]
            waits = played < least
            assert (metrics["waiting_generations"] > 0) == waits
            same = jax.tree.map(np.array_equal, before, jax.device_get(state.es.params))
            # An update from equal fitness may move nothing.
            seen.add((waits, all(jax.tree.leaves(same))))
            played = played if waits else 0
        assert (
            {(True, True), (False, False)} <= seen <= {(True, True), (False, False), (False, True)}
        )


def test_without_it_nothing_waits():
    with agents.make("eggroll", envs.make("probe/recall"), population_size=4, hidden=()) as agent:
        _, metrics = agent.step(agent.init(jax.random.key(0)))
        assert "waiting_generations" not in metrics


def test_a_sigma_rule_of_a_strategy_that_waits_is_refused():
    with pytest.raises(UserError, match="env_steps=None: must be the env steps"):
        agents.make("eggroll", envs.make("probe/recall"), strategy=es_rl.LearnedSigma(STRATEGY))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"update_env_steps": 0}, "update_env_steps=0: must be from 1 to"),
        (
            {"update_env_steps": 5, "sigma_rule": "pgpe"},
            "update_env_steps=5: must be None with sigma_rule=pgpe",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings, says):
    with pytest.raises(UserError, match=says):
        EggrollConfig(**settings)
