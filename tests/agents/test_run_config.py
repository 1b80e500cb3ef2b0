"""The options of a run: what is accepted, and what may change where a run goes on."""

from dataclasses import asdict, fields

import pytest

from agents.training.progress import Progress
from agents.training.run_config import RunConfig
from envs.errors import UserError


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"env_steps": 0}, "env_steps=0: must be at least 1"),
        ({"env_steps": 1e6}, "env_steps=1000000.0: must be a whole number"),
        ({"env_steps": 2**63}, f"env_steps={2**63}: must be at most {2**62}"),
        ({"eval_episodes": 10**9}, "eval_episodes=1000000000: must be at most 100000"),
        ({"seconds": 0}, "seconds=0: must be a number of seconds above 0"),
        ({"seconds": float("nan")}, "seconds=nan: must be finite"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"env_step": 3}, "env_step=3: no such option of a run; did you mean env_steps"),
        ({"xyz": 3}, "xyz=3: no such option of a run: must be of seed, env_steps"),
    ],
)
def test_what_is_out_of_range_is_refused(options, says):
    with pytest.raises(UserError, match=says):
        RunConfig.of(options)


def test_budgets_and_checkpoints_may_change_and_what_happens_may_not():
    saved = RunConfig(eval_episodes=8)
    longer = {"env_steps": 20_000_000, "seconds": 5.0, "target_return": 3.0, "keep": 7}
    assert asdict(saved.going_on(longer)) == {**asdict(saved), **longer}
    assert saved.going_on({"seed": 0}) == saved
    for name, value in {
        "seed": 1,
        "eval_every": 3,
        "evaluations": 2,
        "eval_episodes": 9,
    }.items():
        with pytest.raises(UserError, match=f"{name}={value}: must be .*, as the run began"):
            saved.going_on({name: value})


def test_every_option_has_a_default_and_a_help_text():
    from tyro._docstrings import get_field_docstring

    for field in fields(RunConfig):
        assert getattr(RunConfig(), field.name) == field.default
        assert get_field_docstring(RunConfig, field.name, ())


def test_budgets_end_a_run_and_intervals_come_due():
    config = RunConfig(env_steps=10, seconds=3.0, eval_every=2, checkpoint_every=3)
    assert not config.over(Progress(env_steps=9), 2.9)
    assert config.over(Progress(env_steps=10), 0.0)
    assert config.over(Progress(), 3.0)
    assert [config.evaluates(Progress(generation=g), 0.0) for g in (1, 2, 3)] == [True, False, True]
    assert [config.saves(Progress(generation=g), 0.0) for g in (2, 3)] == [False, True]
    assert config.saves(Progress(generation=1), 60.0)


@pytest.mark.parametrize("per_generation", [(7, 0.1), (1, 2.5), (10, 1.0)])
def test_evaluations_are_spread_over_the_budget_that_ends_first(per_generation):
    config = RunConfig(env_steps=1000, seconds=100.0, evaluations=10)
    progress, seconds, due = Progress(), 0.0, []
    while not config.over(progress, seconds):
        progress.generation += 1
        progress.env_steps += per_generation[0]
        seconds += per_generation[1]
        if config.evaluates(progress, seconds):
            due.append(max(progress.env_steps / 1000, seconds / 100.0))
            progress.evaluated_seconds = seconds
            progress.evaluated_env_steps = progress.env_steps
    first = max(per_generation[0] / 1000, per_generation[1] / 100.0)
    assert due[0] == first
    assert due[1:] == pytest.approx([k / 10 for k in range(1, 11)], abs=1.01 * first)
