"""Environments: one interface for all of them, and an adapter for each suite.

Each public name is imported when it is first used. Gymnasium, Brax and MuJoCo take seconds to
import, and the engine alone (`import es_rl`) does not need them.
"""

from importlib import import_module as _import
from typing import TYPE_CHECKING, Any

from envs.pictures.headless import go_headless

if TYPE_CHECKING:
    from envs.base import Env, EnvSpec, HostEnv, LanePool, Received, State
    from envs.errors import NoPicture, UserError
    from envs.pictures.scene import Geom, Scene
    from envs.registry import list_ids, make, register, register_suite
    from envs.suites.brax_suite import from_brax
    from envs.suites.gymnasium_functional import from_func_env
    from envs.suites.gymnasium_suite import from_gymnasium, import_module
    from envs.suites.gymnax_suite import from_gymnax
    from envs.suites.jumanji_suite import from_jumanji
    from envs.suites.playground_suite import from_playground

__all__ = [
    "Env",
    "EnvSpec",
    "Geom",
    "HostEnv",
    "LanePool",
    "NoPicture",
    "Received",
    "Scene",
    "State",
    "UserError",
    "from_brax",
    "from_func_env",
    "from_gymnasium",
    "from_gymnax",
    "from_jumanji",
    "from_playground",
    "import_module",
    "list_ids",
    "make",
    "register",
    "register_suite",
]

_NAMES = {
    "envs.base": ("Env", "EnvSpec", "HostEnv", "LanePool", "Received", "State"),
    "envs.errors": ("NoPicture", "UserError"),
    "envs.pictures.scene": ("Geom", "Scene"),
    "envs.registry": ("list_ids", "make", "register", "register_suite"),
    "envs.suites.brax_suite": ("from_brax",),
    "envs.suites.gymnasium_functional": ("from_func_env",),
    "envs.suites.gymnasium_suite": ("from_gymnasium", "import_module"),
    "envs.suites.gymnax_suite": ("from_gymnax",),
    "envs.suites.jumanji_suite": ("from_jumanji",),
    "envs.suites.playground_suite": ("from_playground",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

go_headless()


if not TYPE_CHECKING:  # otherwise a type checker would accept any name as one of this package

    def __getattr__(name: str) -> Any:
        """Import one of the public names when it is first used (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(_import(_MODULES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
