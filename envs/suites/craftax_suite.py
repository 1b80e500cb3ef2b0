"""Adapter of Craftax (https://github.com/MichaelTMatthews/Craftax): an open world to survive in."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import jax
import numpy as np

from envs.adapting.transitions import import_suite
from envs.base import State
from envs.errors import UserError
from envs.pictures.rendering import enlarged, rgb
from envs.suites.gymnax_suite import GymnaxEnv

_NAMES = (
    "Craftax-Symbolic",
    "Craftax-Pixels",
    "Craftax-Classic-Symbolic",
    "Craftax-Classic-Pixels",
)


def names() -> tuple[str, ...]:
    """Return the names of the environments, without importing Craftax."""
    return _NAMES


def make(name: str, max_episode_steps: int | None = None, **kwargs: Any) -> "CraftaxEnv":
    """Build an environment of Craftax.

    Args:
      name: its name, such as "Craftax-Classic-Symbolic".
      max_episode_steps: the steps after which an episode is truncated; Craftax's own limit (10,000
        for Classic, else 100,000) unless given.
      **kwargs: fields of Craftax's `EnvParams`.

    Raises:
      UserError: Craftax is not installed, or an argument is unknown.
    """
    id = f"craftax/{name}"
    with contextlib.redirect_stdout(io.StringIO()):  # it reports that it loads its pictures
        craftax = import_suite(id, "craftax.craftax_env", "craftax")
        env = craftax.make_craftax_env_from_name(f"{name}-v1", auto_reset=False)
    params = env.default_params
    known = [field.name for field in fields(params)]
    for key in kwargs:
        if key not in known:
            raise UserError(f"env={id!r}: {key} must be one of {', '.join(known)}")
    return CraftaxEnv(id, env, params.replace(**kwargs), max_episode_steps)


class CraftaxEnv(GymnaxEnv):
    """A Craftax environment, which has gymnax's interface."""

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        with contextlib.redirect_stdout(io.StringIO()):
            if "Classic" in self.spec.id:
                from craftax.craftax_classic import constants, renderer
            else:
                from craftax.craftax import constants, renderer
            size = constants.BLOCK_PIXEL_SIZE_IMG
            draw = jax.jit(renderer.make_craftax_pixel_renderer(size))
            frames = [np.asarray(draw(state.inner)) for state in states]
        return [enlarged(rgb(self.spec.id, frame.astype(np.uint8))) for frame in frames]
