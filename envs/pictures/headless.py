"""Drawing without a display: settings that must be made before a renderer is imported."""

import ctypes
import importlib
import os
import sys

_CONTEXTS = ("mujoco.rendering.classic.gl_context", "mujoco.gl_context")
"""The modules in which MuJoCo (version 4, and earlier versions) chooses its renderer."""


def go_headless() -> None:
    """Choose off-screen drawing where there is no display, unless the user has chosen.

    MuJoCo reads the variable MUJOCO_GL when it is imported. `import envs` calls this function, so
    that renderers that are imported later can draw. If MuJoCo was imported before, the module that
    reads the variable is reloaded.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        if "MUJOCO_GL" not in os.environ:
            # MuJoCo cannot even be imported if the chosen renderer's library is missing.
            os.environ["MUJOCO_GL"] = "egl" if _has_library("libEGL.so.1") else "disable"
            for name in _CONTEXTS:
                if name in sys.modules:
                    importlib.reload(sys.modules[name])


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
