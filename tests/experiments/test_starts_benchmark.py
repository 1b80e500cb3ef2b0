"""The benchmark of starts measures the wait for the first generation of a run."""

import time

import pytest

from experiments.benchmarks import starts

CARTPOLE = "gymnasium/phys2d/CartPole-v1"
SMALL = ("--population-size", "8", "--hidden", "4", "--eval-episodes", "2", "--devices", "1")


def test_it_ends_the_run_after_its_first_generation(tmp_path):
    began = time.perf_counter()
    endless = ("--env-steps", "1000000000", "--target-return", "None")
    seconds = starts._first_generation(["train", CARTPOLE, *SMALL, *endless], str(tmp_path))
    assert 0 < seconds <= time.perf_counter() - began
    assert list(tmp_path.rglob("*jit*")), "what was compiled is kept for a second start"


def test_a_run_that_ends_before_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="did you mean gymnasium/CartPole-v1"):
        starts._first_generation(["train", "gymnasium/CartPol-v1"], str(tmp_path))
