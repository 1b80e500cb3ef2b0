"""The benchmark measures what it says, and its contenders do the same work."""

import json

import jax
import numpy as np
import pytest

import agents
import envs
from experiments.benchmarks import suite_loops
from experiments.benchmarks.rollouts import LockstepPlayer
from experiments.benchmarks.timing import Contender, side_by_side
from tests.experiments.test_cli import es_rl

pytestmark = pytest.mark.slow

POPULATION = 32


def played(env, *, lanes=None):
    """What a population earns in its first generation; in lockstep unless lanes are given."""
    settings = {"population_size": POPULATION, "hidden": (8,), "sigma": 0.5}
    agent = agents.make("eggroll", env, lanes=lanes, **settings)
    player = agent.player if lanes else LockstepPlayer(agent.player)
    return player.play(*agent.ask(agent.init(jax.random.key(1))))


@pytest.mark.parametrize(
    ("name", "kwargs", "lanes"),
    [
        ("probe/random_length", {}, (2, POPULATION)),
        ("gymnasium/phys2d/CartPole-v1", {}, (8, POPULATION)),
        ("brax/inverted_pendulum", {"max_episode_steps": 60}, (16,)),
    ],
)
def test_lanes_and_lockstep_play_the_same(name, kwargs, lanes):
    env = envs.make(name, **kwargs)
    lockstep = played(env)
    assert lockstep.lane_steps.sum() == POPULATION * env.spec.max_episode_steps
    assert len(np.unique(lockstep.lengths)) > 2
    for count in lanes:
        ours = played(env, lanes=count)
        np.testing.assert_array_equal(ours.lengths, lockstep.lengths)
        if name.startswith("brax"):  # whose physics are not rounded alike in all batch sizes
            np.testing.assert_allclose(ours.returns, lockstep.returns, rtol=1e-5)
        else:
            np.testing.assert_array_equal(ours.returns, lockstep.returns)
        assert ours.lane_steps.sum() < lockstep.lane_steps.sum()


def test_contenders_take_turns_on_fresh_input():
    calls = []

    def contender(name):
        return Contender(
            name,
            run=lambda given: calls.append((name, given)),
            compile=lambda given: calls.append((name, "compile")),
            prepare=lambda number: 10 * number,
        )

    taken = side_by_side([contender("a"), contender("b")], rounds=2)
    assert [c for c in calls if c[1] == "compile"] == [("a", "compile"), ("b", "compile")]
    assert calls[-4:] == [("a", 0), ("b", 0), ("a", 10), ("b", 10)]
    assert taken["a"][0] < 1


def test_the_command_prints_and_writes_tables(tmp_path):
    done = es_rl("benchmark", "memory", "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    assert "memory, MB a member" in done.stdout
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["command"] == f"es-rl benchmark memory --json {tmp_path / 'b.json'}"
    assert written["versions"]["jax"] == jax.__version__
    (table,) = written["tables"]
    million, *_ = table["rows"]
    # Two vectors a matrix and its bias, against the whole matrix, for each of 128 draws.
    low, full = (million["values"][f"{kind} rank: noise"] for kind in ("low", "full"))
    assert full / low > 100


def test_suites_are_compared_in_env_steps_per_second():
    task = suite_loops._Task("jumanji/Knapsack-v1", limit=50, episodes=64, steps=50)
    table = suite_loops._suite(task, rounds=2)
    ours, theirs = table.rows
    assert ours.name == "our lanes"
    assert theirs.values["ratio to the suite's"] == 1
    rates = [row.values["env steps/s"] for row in table.rows]
    assert np.isclose(ours.values["ratio to the suite's"], rates[0] / rates[1])
    # Idle lanes step too, and with two episodes a lane there are some.
    assert 0.5 < ours.values["busy lanes"] < 1
    assert "Ours play 64 episodes to their ends" in table.notes[0]
