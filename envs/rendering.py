"""Pictures of accelerator environments, without a display."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.experimental.functional import FuncEnv


def functional_frames(func_env: FuncEnv, states: Sequence[Any]) -> list[np.ndarray]:
    """Gymnasium's own pictures of a functional environment's states.

    Raises:
      RuntimeError: the environment has no picture, or pygame is missing.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
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
    os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        return list(env.render([jax.tree.map(np.asarray, state) for state in states], 360, 480))
    except Exception as error:
        raise RuntimeError(
            f"MuJoCo cannot draw with MUJOCO_GL={os.environ['MUJOCO_GL']} "
            f"({type(error).__name__}: {error}); on Debian or Ubuntu install libegl1"
        ) from error
