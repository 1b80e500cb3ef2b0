"""Which environments exist and can run with the installed packages, without building any."""

import importlib
import sys
from importlib.util import find_spec
from typing import Any

import gymnasium

from envs.installing import pip_install

_NEEDS = {"gymnasium.envs.box2d": ("Box2D", "box2d")}
"""Maps modules of Gymnasium to the package that they need and to es-rl's extra that installs it."""
_REGISTER = {"ale_py": ("atari", ("ALE/",)), "minigrid": ("minigrid", ("MiniGrid-", "BabyAI-"))}
"""Maps packages that register environments on import to es-rl's extra that installs them and to the
prefixes of their environments' names."""
_SUITES = {
    "craftax": ("craftax", "craftax"),
    "gymnax": ("gymnax", "gymnax"),
    "jumanji": ("jumanji", "jumanji"),
    "navix": ("navix", "navix"),
    "pgx": ("pgx", "pgx"),
    "playground": ("mujoco_playground", "playground"),
}
"""Maps suites to the package that they need and to es-rl's extra that installs it."""
_OBSTACLES = {"Pusher-v4": "needs mujoco before 3"}
"""Maps names of Gymnasium environments that cannot run here to the reason."""


def register_installed() -> None:
    """Import the installed ones of the packages that register environments with Gymnasium."""
    for package in _REGISTER:
        if package not in sys.modules and find_spec(package) is not None:
            gymnasium.register_envs(importlib.import_module(package))


def exists(env_id: str) -> bool:
    """Whether an id has an environment behind it.

    Gymnasium keeps some ids whose constructor only raises an error that says where the environment
    has moved.
    """
    entry = _entry_point(env_id)
    return not (callable(entry) and getattr(entry, "__name__", "").startswith("_raise"))


def obstacle(env_id: str) -> str | None:
    """Return the known reason why an environment cannot run here, in a few words, or None."""
    entry, (suite, _, name) = _entry_point(env_id), env_id.partition("/")
    if suite == "kinetix" and find_spec("kinetix") is None:
        return "needs kinetix, which pip cannot install beside this JAX: see docs/how-to/suites.md"
    if suite in _SUITES and find_spec(_SUITES[suite][0]) is None:
        package, extra = _SUITES[suite]
        return f"needs {package}: {pip_install(extra)}"
    for package, (extra, starts) in _REGISTER.items():
        if name.startswith(starts) and find_spec(package) is None:
            return f"needs {package}: {pip_install(extra)}"
    if not isinstance(entry, str):
        return None
    for module, (package, extra) in _NEEDS.items():
        if entry.startswith(f"{module}.") and find_spec(package) is None:
            return f"needs {package}: {pip_install(extra)}"
    package = entry.partition(":")[0].partition(".")[0]
    if find_spec(package) is None:
        return f"needs the module {package}, which is not found"
    return _OBSTACLES.get(name)


def _entry_point(env_id: str) -> Any:
    """Return the entry point of a registered Gymnasium environment; None for other ids."""
    suite, _, name = env_id.partition("/")
    known = suite == "gymnasium" and name in gymnasium.registry
    return gymnasium.registry[name].entry_point if known else None
