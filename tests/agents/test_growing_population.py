"""`update_env_steps`: agents gather generations for one update."""

import jax
import numpy as np
import pytest

import agents
import envs
from agents.evolution.config import EggrollConfig
from envs.errors import UserError

TINY = {"population_size": 4, "hidden": (), "update_env_steps": 30}


def test_parameters_move_when_enough_env_steps_are_played():
    with agents.make("eggroll", envs.make("probe/recall"), **TINY) as agent:
        state = agent.init(jax.random.key(0))
        played, moved, waits = 0, [], 0
        for _ in range(9):
            before = jax.device_get(state.es.params)
            state, metrics = agent.step(state)
            played += metrics["env_steps"]
            after = jax.device_get(state.es.params)
            same = jax.tree.map(np.array_equal, before, after)
            moved.append(not all(jax.tree.leaves(same)))
            assert moved[-1] == (played >= 30)
            waits += not moved[-1]
            played = 0 if moved[-1] else played
        assert any(moved)
        assert waits


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
