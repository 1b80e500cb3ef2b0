"""Each suite's own loop, beside which the benchmark puts our lanes, resets and steps."""

import jax
import pytest

import envs
from agents.policies.actors import RandomActor
from envs.suites.available import obstacle
from experiments.benchmarks import suite_loops


@pytest.mark.filterwarnings("ignore:Brax System")
@pytest.mark.parametrize(("id", "limit"), [task[:2] for task in suite_loops._TASKS])
def test_a_suites_own_loop_can_be_traced(id, limit):
    if (why := obstacle(id)) is not None:
        pytest.skip(why)
    suite, _, name = id.partition("/")
    actor = RandomActor(envs.make(id).spec.action_space)
    loop = suite_loops._own_loop(suite_loops._LOOPS[suite](name, limit), actor, 2)
    state, _ = jax.eval_shape(loop.run, jax.random.key(0))
    assert all(leaf.shape[:1] == (suite_loops._LANES,) for leaf in jax.tree.leaves(state))
