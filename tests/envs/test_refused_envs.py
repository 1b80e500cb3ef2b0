"""What an environment may not return, and exceptions that it raises: told with their place."""

import inspect
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import agents
from agents.policies.spaces import random_actions
from agents.untrained import untrained_policy
from envs.errors import RemoteTraceback, UserError
from es_rl.play.stage import open_stage
from experiments.comparison.results import Task
from experiments.comparison.suites import Contestant, Entry
from experiments.comparison.trials import Trials
from tests.envs import wrong_envs
from tests.envs.odd_base import Base
from tests.envs.odd_runs import ES, make, train

ROOT = Path(__file__).parents[2]


def place(method):
    """Where a method is written, as messages say it."""
    return f"{Path(inspect.getsourcefile(method)).name}:{inspect.getsourcelines(method)[1]}"


BROKEN = {
    "OldReset": (
        "reset(seed=1) returned an array of shape (2,): must be (observation, info), info a dict",
        wrong_envs.OldReset.reset,
    ),
    "OldReset3": (
        "reset(seed=1) returned an array of shape (3,): must be (observation, info)",
        wrong_envs.OldReset.reset,
    ),
    "OldStep": (
        "step 1 of the episode with seed 1 returned 4 values (ndarray, float, bool, dict): must be "
        "(observation, reward, terminated, truncated, info)",
        wrong_envs.OldStep.step,
    ),
    "NoInfo": (
        "step 1 of the episode with seed 1 returned 5 values (ndarray, float, bool, bool, "
        "NoneType): must be (observation, reward, terminated, truncated, info), info a dict",
        wrong_envs.NoInfo.step,
    ),
    "ShortObs": (
        "reset(seed=1) returned an observation of shape (1,) and dtype float32: must be an element "
        "of its observation_space, Box (4,) of float32",
        Base.reset,
    ),
    "ScalarObs": (
        "reset(seed=1) returned an observation of shape () and dtype float64: must be an element "
        "of its observation_space, Box (4,) of float32",
        Base.reset,
    ),
    "LateShortObs": (
        "step 3 of the episode with seed 1 returned an observation of shape (1,)",
        Base.step,
    ),
    "FloatsForInts": (
        "reset(seed=1) returned an observation of shape (2,) and dtype float64: must be an element "
        "of its observation_space, MultiDiscrete([3 3])",
        Base.reset,
    ),
    "NoCategory": ("reset(seed=1) returned the observation 3: must be an", Base.reset),
    "RewardNone": (
        "step 4 of the episode with seed 1 returned the reward None: must be one number",
        Base.step,
    ),
    "RewardPair": (
        "step 1 of the episode with seed 1 returned the reward array([0.5, 0.5]): must be one",
        Base.step,
    ),
    "EndNone": (
        "step 1 of the episode with seed 1 returned truncated=None: must be True or False",
        wrong_envs.EndNone.step,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_gymnasiums_interface_is_told_with_its_place(name):
    message, method = BROKEN[name]
    env = make(name)
    with open_stage(env, lanes=1) as stage, pytest.raises(UserError) as error:
        stage.check_repeats(random_actions(env.spec.action_space, 200))
    said = str(error.value)
    assert said.startswith(f"gymnasium/{name}-v0: ")
    assert message in said
    assert said.endswith(place(method) + ")")


@pytest.mark.parametrize("agent", ["ppo", pytest.param("eggroll", marks=pytest.mark.slow)])
def test_it_ends_a_run_at_once(agent):
    with pytest.raises(UserError, match=r"reset\(seed=1\) returned an array of shape \(2,\)"):
        train(make("OldReset"), agent)


def test_it_ends_an_evaluation_at_once():
    policy = untrained_policy("random", make("SameArray").spec)
    with pytest.raises(UserError, match=r"reset\(seed=\d+\) returned an array of shape \(2,\)"):
        agents.evaluate(policy, make("OldReset"), episodes=2)


def shown(error):
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "agent", ["eggroll", "random", pytest.param("ppo", marks=pytest.mark.slow)]
)
def test_an_exception_of_a_users_step_shows_the_users_line(agent, caplog):
    with pytest.raises(RuntimeError, match="and none ended.*KeyError: 'speed'") as error:
        train(make("Missing"), agent)
    assert isinstance(error.value.__cause__, RemoteTraceback)
    line = inspect.getsourcelines(wrong_envs.Missing.step)[1] + 1
    assert f'wrong_envs.py", line {line}, in step' in shown(error.value)
    assert f"wrong_envs.py:{line}" in str(error.value)
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_the_command_shows_the_users_line_and_ends_with_1():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "replay", "gymnasium/Missing-v0"]
        + ["--agent", "zero", "--import", "tests.envs.odd_envs", "--workers", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 1
    line = inspect.getsourcelines(wrong_envs.Missing.step)[1] + 1
    assert f'wrong_envs.py", line {line}, in step' in done.stderr
    assert "KeyError: 'speed'" in done.stderr.splitlines()[-1]


def test_compare_names_the_line_and_shows_the_traceback(tmp_path, capsys):
    task = Task(**{**TASK, "env": "gymnasium/Missing-v0"})
    eggroll = Contestant("eggroll", "eggroll", ES)
    settings = Entry(task).settings_of(eggroll)
    (run,) = Trials(task, make("Missing"), eggroll, settings, tmp_path).runs(1)
    line = inspect.getsourcelines(wrong_envs.Missing.step)[1] + 1
    assert "KeyError: 'speed'" in run.error
    assert f"wrong_envs.py:{line}" in run.error
    assert "\n" not in run.error
    assert f'wrong_envs.py", line {line}, in step' in capsys.readouterr().err


TASK = {
    "env": "gymnasium/SameArray-v0",
    "env_kwargs": {},
    "env_steps": 80,
    "seconds": 60.0,
    "threshold": 10.0,
    "stop_when_solved": True,
    "evaluations": 1,
    "evaluation_episodes": 2,
}


def test_an_exception_of_a_users_constructor_passes_as_it_is():
    with pytest.raises(KeyError, match="speed") as error:
        make("Unmade")
    assert "wrong_envs.py" in shown(error.value)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Unmade", {"colour": 1}, "unexpected keyword argument 'colour'"),
        ("Kw", {}, "missing 1 required positional argument: 'df'"),
    ],
)
def test_arguments_that_a_constructor_does_not_take_are_one_line(name, kwargs, message):
    with pytest.raises(UserError, match=message) as error:
        make(name, **kwargs)
    assert "\n" not in str(error.value)
