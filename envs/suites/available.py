"""Which environments run as things are installed, known without building any."""

from importlib.util import find_spec
from typing import Any

import gymnasium

_NEEDS = {"gymnasium.envs.box2d": ("Box2D", "box2d"), "gymnasium.envs.mujoco": ("mujoco", "mujoco")}
"""Modules of Gymnasium's -> what they import, and our extra that installs it."""
_NOT_YET = {
    "CarRacing-v3": "images are not supported yet",
    "Blackjack-v1": "Tuple observations are not supported yet",
    "Pusher-v4": "needs mujoco before 3",
}


def exists(env_id: str) -> bool:
    """Whether an id stands for an environment: Gymnasium keeps some that only say where it went."""
    entry = _entry_point(env_id)
    return not (callable(entry) and getattr(entry, "__name__", "").startswith("_raise"))


def obstacle(env_id: str) -> str | None:
    """Why an environment does not run here, in a few words; None where nothing is known of."""
    entry, name = _entry_point(env_id), env_id.partition("/")[2]
    if not isinstance(entry, str):
        return None
    for module, (package, extra) in _NEEDS.items():
        if entry.startswith(f"{module}.") and find_spec(package) is None:
            return f'needs {package}: pip install "es-rl[{extra}]"'
    package = entry.partition(":")[0].partition(".")[0]
    if find_spec(package) is None:
        return f"needs the module {package}, which is not found"
    return _NOT_YET.get(name)


def _entry_point(env_id: str) -> Any:
    """Where Gymnasium finds an environment; None for other suites."""
    suite, _, name = env_id.partition("/")
    known = suite == "gymnasium" and name in gymnasium.registry
    return gymnasium.registry[name].entry_point if known else None
