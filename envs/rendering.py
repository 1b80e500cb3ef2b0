"""Pictures of accelerator environments, without a display."""

import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.experimental.functional import FuncEnv

from envs.errors import NoPicture
from envs.scene import has_mujoco_model


def go_headless() -> None:
    """Choose off-screen drawing where there is no display, unless the user has chosen.

    MuJoCo reads its variable when it is imported, so this comes before any environment is made.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        # MuJoCo cannot even be imported where a library that it is to draw with is missing.
        os.environ.setdefault("MUJOCO_GL", "egl" if _has_library("libEGL.so.1") else "disable")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def functional_frames(func_env: FuncEnv, states: Sequence[Any]) -> list[np.ndarray]:
    """Gymnasium's own pictures of a functional environment's states.

    Raises:
      NoPicture: the environment has no picture, or pygame is missing.
    """
    try:
        canvas = func_env.render_init()
        frames = []
        for state in states:
            canvas, frame = func_env.render_image(jax.tree.map(np.asarray, state), canvas)
            frames.append(np.array(frame, np.uint8))
        func_env.render_close(canvas)
    except NotImplementedError as error:
        raise NoPicture(f"{type(func_env).__name__} has no picture") from error
    except DependencyNotInstalled as error:
        raise NoPicture(str(error)) from error
    return frames


def brax_frames(env: Any, states: Sequence[Any]) -> list[np.ndarray]:
    """Pictures of Brax pipeline states, drawn by MuJoCo with a camera on the first body.

    Raises:
      NoPicture: no OpenGL context could be made.
    """
    try:
        return list(env.render([jax.tree.map(np.asarray, state) for state in states], 360, 480))
    except Exception as error:
        raise _cannot_draw(f"{type(error).__name__}: {error}") from error


def host_frame(env: gymnasium.Env) -> np.ndarray:
    """The picture of an environment as it stands.

    Raises:
      NoPicture: the environment has no picture, the renderer cannot start, or pygame is missing.
    """
    mujoco = has_mujoco_model(env)
    # Gymnasium's viewer, once begun, complains on stderr when it is thrown away.
    if mujoco and os.environ.get("MUJOCO_GL") == "disable":
        raise _cannot_draw("drawing is off")
    try:
        frame = env.render()
    except DependencyNotInstalled as error:
        raise NoPicture(str(error)) from error
    except Exception as error:
        if not mujoco:
            raise
        raise _cannot_draw(f"{type(error).__name__}: {error}") from error
    if not isinstance(frame, np.ndarray):
        raise NoPicture(f"{type(env.unwrapped).__name__} has no picture")
    return np.asarray(frame, np.uint8)


def _cannot_draw(reason: str) -> NoPicture:
    return NoPicture(
        f"MuJoCo cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({reason}); "
        "on Debian or Ubuntu install libegl1"
    )
