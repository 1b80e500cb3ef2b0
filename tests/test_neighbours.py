"""Beside a user's own folders `envs/` and `agents/`: our packages, or an error that tells."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from es_rl.neighbours import check

ROOT = Path(__file__).parent.parent
ENV = """
import gymnasium, numpy as np
from gymnasium import spaces

class Mine(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {}

gymnasium.register("Mine-v0", "my_task:Mine", max_episode_steps=5)
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "my_task.py").write_text(ENV)
    (tmp_path / "needs_its_own.py").write_text("from envs.mine import Mine\n")
    for name in ("envs", "agents"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "mine.py").write_text("Mine = 1\n")
    return tmp_path


def python(project, *arguments):
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=project, env=path)


@pytest.mark.parametrize("package", ["agents", "es_rl", "experiments.commands"])
def test_a_folder_in_the_way_is_named(project, package):
    if package == "agents":  # else it is the user's own that is imported
        (project / "agents").rename(project / "others")
    done = python(project, "-c", f"import {package}")
    assert done.stderr.strip().splitlines()[-1] == (
        f"ImportError: es-rl needs its own package 'envs', {ROOT / 'envs'}, but Python finds "
        f"{project / 'envs'} first: rename that, or run from another folder"
    )


def test_a_folder_without_an_init_hides_an_installed_package_too(tmp_path, monkeypatch):
    # An editable installation is found by a finder that comes after the path.
    (tmp_path / "theirs" / "plain_folder").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "theirs")
    with pytest.raises(ImportError, match=f"finds {tmp_path}/theirs/plain_folder first"):
        check(str(tmp_path / "ours" / "agents" / "__init__.py"), "plain_folder")
    check(str(tmp_path / "theirs" / "agents" / "__init__.py"), "plain_folder")
    with pytest.raises(ImportError, match="finds nothing first"):
        check(str(tmp_path / "ours" / "agents" / "__init__.py"), "no_such_folder")


def test_the_command_imports_a_module_beside_them(project):
    # As an installed command does, without the working directory on the path.
    command = ("-P", "-m", "experiments.cli", "replay", "gymnasium/Mine-v0", "--agent", "zero")
    done = python(project, *command, "--episodes", "1", "--json", "--import", "my_task")
    assert done.returncode == 0, done.stderr
    assert '"returns": [1.0]' in done.stdout
    done = python(project, *command, "--import", "needs_its_own")
    assert done.returncode == 2
    assert "No module named 'envs.mine'" in done.stderr
    says = f"{project / 'envs'} has the name of a package of es-rl, which comes first: rename it"
    assert says in done.stderr
