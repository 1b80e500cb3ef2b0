"""Environments: one contract, and the adapters to each suite."""

from envs.base import Env, EnvSpec, HostEnv, Lanes, Received, State
from envs.errors import NoPicture, UserError
from envs.pictures.rendering import go_headless
from envs.pictures.scene import Geom, Scene
from envs.registry import list_ids, make, register, register_suite
from envs.suites.brax_suite import from_brax
from envs.suites.gymnasium_suite import from_func_env, from_gymnasium, import_module

__all__ = [
    "Env",
    "EnvSpec",
    "Geom",
    "HostEnv",
    "Lanes",
    "NoPicture",
    "Received",
    "Scene",
    "State",
    "UserError",
    "from_brax",
    "from_func_env",
    "from_gymnasium",
    "import_module",
    "list_ids",
    "make",
    "register",
    "register_suite",
]

go_headless()
