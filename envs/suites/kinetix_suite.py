"""Adapter of Kinetix (https://github.com/FlairOx/Kinetix): physics puzzles in hand-drawn levels.

Kinetix pins an older JAX than this project, so pip cannot install both with their dependencies. It
runs with

    pip install --no-deps kinetix-env==3.0.2 jax2d==1.0.2 jaxgl
    pip install grain omegaconf wandb zarr==2.18.3 numcodecs==0.13.1 "es-rl[gymnax]"
"""

from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.base import State
from envs.errors import UserError, one_line
from envs.pictures.rendering import rgb
from envs.suites.gymnax_suite import GymnaxEnv

_PAPER = ("l/hard_pinball", "m/h17_thrustcontrol_left", "s/h1_thrust_over_ball")
"""The levels of the EGGROLL paper (arXiv 2511.16652)."""
_ACTIONS = ("continuous", "discrete")


def names() -> tuple[str, ...]:
    """Return the names of all levels, or if Kinetix is not installed, of those in EGGROLL's paper.

    Kinetix is not imported.
    """
    found = find_spec("kinetix")
    if found is None or not found.submodule_search_locations:
        return _PAPER
    levels = Path(found.submodule_search_locations[0]) / "levels"
    return tuple(sorted(f"{path.parent.name}/{path.stem}" for path in levels.glob("[lms]/*.json")))


def make(
    name: str, max_episode_steps: int | None = None, actions: str = "continuous", **kwargs: Any
) -> "KinetixEnv":
    """Build a level of Kinetix, with observations of the symbols in it as one vector.

    Args:
      name: its name, such as "l/hard_pinball".
      max_episode_steps: the steps after which an episode is truncated; Kinetix's own limit (256)
        unless given.
      actions: "continuous" (a number for each motor and thruster) or "discrete" (one of them at a
        time).
      **kwargs: fields of Kinetix's `EnvParams`, such as `dense_reward_scale`.

    Raises:
      UserError: Kinetix is not installed, or an argument is unknown.
    """
    id = f"kinetix/{name}"
    if actions not in _ACTIONS:
        raise UserError(f"actions={actions!r}: must be one of {', '.join(_ACTIONS)}")
    try:
        from kinetix.environment import ActionType, ObservationType, make_kinetix_env
        from kinetix.util.saving import load_from_json_file
    except ImportError as error:
        raise UserError(
            f"{id}: {one_line(error)} (how to install it: docs/how-to/suites.md)"
        ) from error
    level, static, params = load_from_json_file(name)
    known = [field.name for field in fields(params)]
    for key in kwargs:
        if key not in known:
            raise UserError(f"env={id!r}: {key} must be one of {', '.join(known)}")
    params = params.replace(**kwargs)
    env = make_kinetix_env(
        ActionType.CONTINUOUS if actions == "continuous" else ActionType.DISCRETE,
        ObservationType.SYMBOLIC_FLAT,
        lambda key: level,
        params,
        static,
        auto_reset=False,
    )
    return KinetixEnv(id, _Level(env), params, max_episode_steps)


class _Level:
    """A level with the interface of gymnax, whose `reset_env` takes no start state."""

    def __init__(self, env: Any):
        self.env = env
        self.step_env = env.step_env
        self.action_space = env.action_space
        self.observation_space = env.observation_space

    def reset_env(self, key: jax.Array, params: Any) -> Any:
        return self.env.reset_env(key, params, None)


class KinetixEnv(GymnaxEnv):
    """A level of Kinetix, which always starts in the same state."""

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        from kinetix.render import make_render_pixels

        draw = jax.jit(make_render_pixels(self._params, self._env.env.static_env_params))
        # Its first axis is the horizontal one, and its rows are from the bottom to the top.
        frames = [np.asarray(draw(state.inner)) for state in states]
        return [
            rgb(self.spec.id, np.rot90(frame.clip(0, 255)).astype(np.uint8)) for frame in frames
        ]
