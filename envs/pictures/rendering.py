"""Images of environments, drawn without a display."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.experimental.functional import FuncEnv

from envs.errors import NoPicture
from envs.pictures import studio
from envs.pictures.scene import has_mujoco_model


def functional_frames(func_env: FuncEnv, states: Sequence[Any]) -> list[np.ndarray]:
    """Draw the states of a functional environment with its own renderer.

    Raises:
      NoPicture: the environment has no picture, or pygame is missing.
    """
    name = type(func_env).__name__
    try:
        canvas = func_env.render_init()
        frames = []
        for state in states:
            canvas, frame = func_env.render_image(jax.tree.map(np.asarray, state), canvas)
            frames.append(rgb(name, frame))
        func_env.render_close(canvas)
    except Exception as error:
        raise no_picture(name, error) from error
    return frames


def mujoco_frames(
    model: Any, poses: Sequence[Mapping[str, np.ndarray]], *, own_look: bool = False
) -> list[np.ndarray]:
    """Draw a `mujoco.MjModel` in some poses, about 30 for each second.

    Args:
      model: the model.
      poses: for each picture the values of fields of `mujoco.MjData`, of which one is "qpos".
      own_look: whether the picture has the model's own colours, lights and first camera, instead of
        those of `envs.pictures.studio`. The latter are used if the model has no camera.

    Raises:
      NoPicture: no OpenGL context could be made, or nothing of the model can be seen.
    """
    # Checked first, as MuJoCo's half-made renderer prints errors when it is destroyed.
    if os.environ.get("MUJOCO_GL") == "disable":
        raise cannot_draw("drawing is off")
    try:
        if own_look and model.ncam:
            return studio.draw_with_own_camera(model, poses)
        return studio.draw(model, poses)
    except Exception as error:
        raise cannot_draw(f"{type(error).__name__}: {error}") from error


def host_frame(env: gymnasium.Env) -> np.ndarray:
    """Draw the present state of a Gymnasium environment.

    Raises:
      NoPicture: the environment has no picture, drawing it fails, or pygame is missing.
    """
    name = type(env.unwrapped).__name__
    mujoco = has_mujoco_model(env)
    # Checked first, as Gymnasium's half-made MuJoCo viewer prints errors when it is destroyed.
    if mujoco and os.environ.get("MUJOCO_GL") == "disable":
        raise cannot_draw("drawing is off")
    try:
        frame = env.render()
    except Exception as error:
        if mujoco:
            raise cannot_draw(f"{type(error).__name__}: {error}") from error
        raise no_picture(name, error) from error
    return rgb(name, frame)


def rgb(name: str, frame: Any) -> np.ndarray:
    """Convert an image to (height, width, 3) uint8.

    Args:
      name: the name of the environment, for the error message.
      frame: a grey image (height, width), or an image (height, width, channels) with 1, 3 or 4
        channels, of which the fourth (opacity) is dropped. Values are integers from 0 to 255, or
        floats from 0 to 1 or from 0 to 255.

    Raises:
      NoPicture: `frame` is not such an image.
    """
    try:
        pixels = np.asarray(frame)
    except ValueError:  # rows of different lengths
        pixels = np.zeros(0)
    numbers = np.issubdtype(pixels.dtype, np.number) or pixels.dtype == bool
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if not numbers or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        found = f"{pixels.dtype} of shape {pixels.shape}" if frame is not None else "None"
        raise NoPicture(
            f"{name} has no picture: its render returned {found}, must be (height, width) or "
            "(height, width, channels) with 1, 3 or 4 channels"
        )
    pixels = np.broadcast_to(pixels[..., :3], (*pixels.shape[:2], 3))
    if pixels.dtype == np.uint8:
        return pixels.copy()
    whole = np.issubdtype(pixels.dtype, np.integer)
    pixels = np.nan_to_num(pixels.astype(np.float32), posinf=255.0)
    # Floats with a maximum of at most 2 are on the scale 0 to 1 (rounding may exceed 1 slightly):
    # on the scale 0 to 255 such an image would be black.
    scale = 1.0 if whole or pixels.max() > 2 else 255.0
    return np.clip(np.rint(pixels * scale), 0, 255).astype(np.uint8)


def enlarged(frame: np.ndarray, least: int = 256) -> np.ndarray:
    """Repeat the pixels of an image (height, width, 3) until it is at least this high and wide."""
    factor = -(-least // min(frame.shape[:2]))
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


def no_picture(name: str, error: Exception) -> NoPicture:
    """Make the error that says in one line why an environment cannot be drawn."""
    if isinstance(error, NoPicture):
        return error
    if isinstance(error, DependencyNotInstalled):
        return NoPicture(" ".join(str(error).split()))
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return NoPicture(f"{name} has no picture ({reason})")


def cannot_draw(reason: str) -> NoPicture:
    """Make the error that says why MuJoCo cannot draw."""
    return NoPicture(
        f"MuJoCo cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({reason}); "
        "without a display it must be egl: on Debian or Ubuntu install libegl1"
    )
