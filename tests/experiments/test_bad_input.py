"""Bad input: a message that names what is wrong, exit code 2, nothing raised, written or compiled.

It is one line of ours, or what tyro prints where it cannot parse the command line.

It is made up from the fields that commands, agents and suites declare, so that a new field is
tested by being there. What is not of a plain type (folders, names) stands in `bad_values.NAMES`.
"""

import sys

import hypothesis
import jax
import pytest
from hypothesis import find
from hypothesis import strategies as st

import envs
from experiments import cli
from tests.experiments.bad_flags import ALL_FIELDS, bad_flag, misspelt_flag
from tests.experiments.bad_suites import suites
from tests.experiments.bad_values import ENV, Case, is_number, misspelt, plain, refused


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind():
    jax.devices()  # before a command sees --devices: others count on those of conftest.py
    path, modules = list(sys.path), set(envs.list_ids())
    yield
    sys.path[:] = path
    assert set(envs.list_ids()) == modules


# What does not go together.


def train(*flags, names, env=ENV):
    return Case(("train", env, *map(str, flags)), names)


def does_not_divide(drawn):
    return drawn[0] % drawn[1] != 0


together = st.one_of(
    st.tuples(st.integers(2, 500).map(lambda n: 2 * n), st.integers(1, 1200))
    .filter(does_not_divide)
    .map(lambda d: train("--population-size", d[0], "--group-size", d[1], names="--group-size")),
    st.integers(1, 10**6).map(lambda n: train("--noise-reuse", 2 * n + 1, names="--noise-reuse")),
    st.tuples(st.integers(2, 2000), st.integers(1, 20).map(lambda n: 2 * n))
    .filter(does_not_divide)
    .map(
        lambda d: train("--population-size", d[0], "--noise-reuse", d[1], names="--population-size")
    ),
    st.tuples(st.sampled_from(["ppo", "sbx_ppo"]), st.integers(65, 2047).map(lambda n: 2 * n + 1))
    .filter(lambda d: 2048 % d[1] != 0)
    .map(lambda d: train("--agent", d[0], "--minibatch-size", d[1], names="--minibatch-size")),
    st.integers(1, 9).map(lambda n: train("--agent", "ppo", "--memory", n, names="--memory")),
    st.sampled_from([3, 5, 6, 7]).map(
        lambda n: train("--agent", "ppo", "--devices", n, names="--devices")
    ),
    st.sampled_from(["--backend", "--workers", "--step-timeout"]).map(
        lambda flag: train(flag, "1", names=flag)
    ),
    st.just(train("brax/ant", names="brax/ant", env="--seed=1")),
    st.just(train("--resume", "full", names="--resume")),
    st.just(train("--env-kwargs", "horizon=3", names="horizon")),
    st.just(train("--env-kwargs", "max_episode_steps=x", names="--env-kwargs")),
    st.just(Case(("replay", "nowhere", "--env-kwargs", "a=1"), "--env-kwargs")),
    st.just(Case(("replay", ENV), ENV)),
    st.just(Case(("replay",), "RUN")),
    st.just(Case(("compare",), "SUITE")),
    st.just(Case(("compare", "classic", "--agents", "ppo", "ppo"), "--agents")),
    misspelt(cli.COMMANDS).map(lambda name: Case((name,), name)),
)


# The tests.


def words_of(field):
    return " ".join((*field.command, field.flag))


@pytest.mark.parametrize("field", ALL_FIELDS, ids=words_of)
def test_every_field_has_values_that_it_does_not_take(field):
    number = plain(field.kind) in (int, float, tuple[int, ...])
    once = hypothesis.settings(derandomize=True, database=None, phases=[hypothesis.Phase.generate])
    # Numbers out of range: text is refused before a command sees it.
    refused(
        find(bad_flag(field), lambda c: not number or is_number(c.arguments[-1]), settings=once)
    )


command_lines = st.sampled_from(ALL_FIELDS).flatmap(bad_flag)
misspelt_flags = st.sampled_from(ALL_FIELDS).flatmap(misspelt_flag)


@hypothesis.settings(derandomize=True, database=None, max_examples=200, deadline=None)
@hypothesis.given(st.one_of(command_lines, command_lines, suites, suites, together, misspelt_flags))
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(case):
    refused(case)
