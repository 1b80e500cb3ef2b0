"""Drawing without a display: what must be chosen before a renderer is imported."""

import ctypes
import importlib
import os
import sys

_CONTEXTS = ("mujoco.rendering.classic.gl_context", "mujoco.gl_context")
"""Where MuJoCo (4, and before) chooses what it draws with."""


def go_headless() -> None:
    """Choose off-screen drawing where there is no display, unless the user has chosen.

    MuJoCo reads its variable when it is imported. `import envs` calls this, so that whatever is
    imported afterwards is ready to draw; a MuJoCo that was there before is made to read it again.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        if "MUJOCO_GL" not in os.environ:
            # MuJoCo cannot even be imported where a library that it is to draw with is missing.
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
