"""Pictures of accelerator environments, without a display."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.experimental.functional import FuncEnv


def go_headless() -> None:
    """Choose off-screen drawing where there is no display, unless the user has chosen.

    MuJoCo reads its variable when it is imported, so this comes before any environment is made.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def functional_frames(func_env: FuncEnv, states: Sequence[Any]) -> list[np.ndarray]:
    """Gymnasium's own pictures of a functional environment's states.

    Raises:
      RuntimeError: the environment has no picture, or pygame is missing.
    """
    try:
        canvas = func_env.render_init()
        frames = []
        for state in states:
            canvas, frame = func_env.render_image(jax.tree.map(np.asarray, state), canvas)
            frames.append(np.array(frame, np.uint8))
        func_env.render_close(canvas)
    except NotImplementedError as error:
        raise RuntimeError(f"{type(func_env).__name__} has no picture") from error
    except DependencyNotInstalled as error:
        raise RuntimeError(str(error)) from error
    return frames


def brax_frames(env: Any, states: Sequence[Any]) -> list[np.ndarray]:
    """Pictures of Brax pipeline states, drawn by MuJoCo with a camera on the first body.

    Raises:
      RuntimeError: no OpenGL context could be made.
    """
    try:
        return list(env.render([jax.tree.map(np.asarray, state) for state in states], 360, 480))
    except Exception as error:
        raise RuntimeError(
            f"MuJoCo cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} "
            f"({type(error).__name__}: {error}); on Debian or Ubuntu install libegl1"
        ) from error
