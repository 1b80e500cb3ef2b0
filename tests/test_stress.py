"""The short form of `make stress`: real runs, really killed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


def test_killed_runs_end_as_the_one_left_alone():
    command = [sys.executable, "-m", "tests.stress", "evolution=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "evolution: 2 of 2 killed runs ended as the one left alone" in done.stdout
