"""Which environments are there and run as things are installed, known without building any."""

import importlib
import sys
from importlib.util import find_spec
from typing import Any

import gymnasium

_NEEDS = {"gymnasium.envs.box2d": ("Box2D", "box2d"), "gymnasium.envs.mujoco": ("mujoco", "mujoco")}
"""Modules of Gymnasium's -> what they import, and our extra that installs it."""
_REGISTER = {"ale_py": ("atari", ("ALE/",)), "minigrid": ("minigrid", ("MiniGrid-", "BabyAI-"))}
"""Packages that register environments as they are imported -> our extra that installs them, and how
the names of their environments begin."""
_OBSTACLES = {"Pusher-v4": "needs mujoco before 3"}


def register_installed() -> None:
    """Import the packages that register environments with Gymnasium, as far as they are there."""
    for package in _REGISTER:
        if package not in sys.modules and find_spec(package) is not None:
            gymnasium.register_envs(importlib.import_module(package))


def exists(env_id: str) -> bool:
    """Whether an id stands for an environment: Gymnasium keeps some that only say where it went."""
    entry = _entry_point(env_id)
    return not (callable(entry) and getattr(entry, "__name__", "").startswith("_raise"))


def obstacle(env_id: str) -> str | None:
    """Why an environment does not run here, in a few words; None where nothing is known of."""
    entry, name = _entry_point(env_id), env_id.partition("/")[2]
    for package, (extra, starts) in _REGISTER.items():
        if name.startswith(starts) and find_spec(package) is None:
            return f'needs {package}: pip install "es-rl[{extra}]"'
    if not isinstance(entry, str):
        return None
    for module, (package, extra) in _NEEDS.items():
        if entry.startswith(f"{module}.") and find_spec(package) is None:
            return f'needs {package}: pip install "es-rl[{extra}]"'
    package = entry.partition(":")[0].partition(".")[0]
    if find_spec(package) is None:
        return f"needs the module {package}, which is not found"
    return _OBSTACLES.get(name)


def _entry_point(env_id: str) -> Any:
    """Where Gymnasium finds an environment; None for other suites."""
    suite, _, name = env_id.partition("/")
    known = suite == "gymnasium" and name in gymnasium.registry
    return gymnasium.registry[name].entry_point if known else None
