"""MuJoCo leaves no log file in the working directory, and MJX says nothing of what it lacks."""

import subprocess
import sys

import pytest

BRAX = """
import sys
sys.modules["warp"] = None  # as if it were not installed
import envs
envs.make("brax/inverted_pendulum")
print("mujoco.mjx" in sys.modules)
"""
HALF_CHEETAH = """
import numpy as np
import envs
from envs.base import RESET
pool = envs.make("gymnasium/HalfCheetah-v5", workers=1).open_lanes(1)
pool.send(slice(0, 1), np.array([RESET]), np.array([1]), None)
assert not pool.receive(slice(0, 1)).lost[0]
pool.close()
"""
WARNS = """
import mujoco
from envs.adapting.mujoco_output import keep_no_log
if {chosen}:
    config = mujoco.MjLogConfig.get()
    config.logfile = "mine.txt"
    config.set()
keep_no_log()
mujoco.MjModel.from_xml_string('<mujoco><compiler settotalmass="1"/><worldbody/></mujoco>')
"""


def run(code, folder):
    """Run Python code in a process of its own, in an empty folder."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_brax_says_nothing_of_what_mjx_lacks(tmp_path):
    assert run(BRAX, tmp_path).stdout == "True\n"
    assert [*tmp_path.iterdir()] == []


def test_other_lines_of_the_import_are_shown(tmp_path):
    (tmp_path / "warp.py").write_text("print('Failed to import nothing')\nraise ImportError\n")
    code = "from envs.adapting.mujoco_output import import_mjx; import_mjx()"
    assert set(run(code, tmp_path).stdout.splitlines()) == {"Failed to import nothing"}


def test_environments_on_the_host_leave_no_log(tmp_path):
    done = run(HALF_CHEETAH, tmp_path)
    assert "settotalmass" in done.stderr, "a warning of MuJoCo's, which is still shown"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("chosen", [False, True])
def test_only_a_log_that_nobody_asked_for_is_left_out(tmp_path, chosen):
    assert "settotalmass" in run(WARNS.format(chosen=chosen), tmp_path).stderr or chosen
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"] * chosen
