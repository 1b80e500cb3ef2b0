"""Each suite's own loop, beside which the benchmark puts our lanes, resets and steps."""

import jax
import pytest

import envs
from agents.policies.actors import RandomActor
from envs.available import obstacle
from experiments.benchmarks import suite_loops


@pytest.mark.filterwarnings("ignore:Brax System")
@pytest.mark.parametrize("task", suite_loops._TASKS, ids=lambda task: task.id)
def test_a_suites_own_loop_can_be_traced(task):
    if (why := obstacle(task.id)) is not None:
        pytest.skip(why)
    suite, _, name = task.id.partition("/")
    actor = RandomActor(envs.make(task.id).spec.action_space)
    loop = suite_loops._LOOPS[suite](name, task.limit, **task.kwargs)
    run = suite_loops._own_loop(loop, actor, 2).run
    state, _ = jax.eval_shape(run, jax.random.key(0))
    assert all(leaf.shape[:1] == (suite_loops._LANES,) for leaf in jax.tree.leaves(state))
