"""Adapter of MuJoCo Playground (https://github.com/google-deepmind/mujoco_playground)."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from envs.base import State
from envs.errors import UserError, one_line
from envs.pictures.rendering import cannot_draw
from envs.pictures.scene import Scene, scene_of
from envs.precision import in_32_bits
from envs.suites.brax_suite import BraxEnv
from envs.suites.transitions import import_suite

_CONTROL = (
    *("AcrobotSwingup", "AcrobotSwingupSparse", "BallInCup", "CartpoleBalance"),
    *("CartpoleBalanceSparse", "CartpoleSwingup", "CartpoleSwingupSparse", "CheetahRun"),
    *("FingerSpin", "FingerTurnEasy", "FingerTurnHard", "FishSwim", "HopperHop", "HopperStand"),
    *("HumanoidStand", "HumanoidWalk", "HumanoidRun", "PendulumSwingup", "PointMass"),
    *("ReacherEasy", "ReacherHard", "SwimmerSwimmer6", "WalkerRun", "WalkerStand", "WalkerWalk"),
)
"""The tasks of the DeepMind Control Suite, which come with the package."""
_ROBOTS = (
    *("ApolloJoystickFlatTerrain", "BarkourJoystick", "BerkeleyHumanoidJoystickFlatTerrain"),
    *("BerkeleyHumanoidJoystickRoughTerrain", "G1JoystickFlatTerrain", "G1JoystickRoughTerrain"),
    *("Go1JoystickFlatTerrain", "Go1JoystickRoughTerrain", "Go1Getup", "Go1Handstand"),
    *("Go1Footstand", "H1InplaceGaitTracking", "H1JoystickGaitTracking", "Op3Joystick"),
    *("SpotFlatTerrainJoystick", "SpotGetup", "SpotJoystickGaitTracking"),
    *("T1JoystickFlatTerrain", "T1JoystickRoughTerrain", "AlohaHandOver", "PandaPickCube"),
    *("PandaPickCubeOrientation", "PandaPickCubeCartesian", "PandaOpenCabinet"),
    *("LeapCubeReorient", "LeapCubeRotateZAxis", "AeroCubeRotateZAxis"),
)
"""The tasks of version 0.2 whose robots the package downloads. Those that repeat actions
(AlohaSinglePegInsertion and PandaRobotiqPushCube) are left out."""


def names() -> tuple[str, ...]:
    """Return the names of the environments, without importing MuJoCo Playground."""
    return (*_CONTROL, *_ROBOTS)


def make(
    name: str, max_episode_steps: int | None = None, impl: str | None = None, **kwargs: Any
) -> "PlaygroundEnv":
    """Build an environment of MuJoCo Playground.

    Args:
      name: its name, such as "CheetahRun".
      max_episode_steps: the steps after which an episode is truncated; the `episode_length` of its
        configuration unless given.
      impl: the implementation of MJX, "jax" or "warp"; unless given, "jax" on a CPU and the
        environment's own choice on other devices.
      **kwargs: values that replace those of its configuration, such as `ctrl_dt=0.02`.

    Raises:
      UserError: MuJoCo Playground is not installed, its robots are not downloaded, an argument is
        unknown, or the environment does not run with the installed versions.
    """
    id = f"playground/{name}"
    with contextlib.redirect_stdout(io.StringIO()):  # it may report that parts are missing
        playground = import_suite(id, "mujoco_playground", "playground")
        registry = playground.registry
    _check_robots(id, name)
    chosen = dict(kwargs)
    if impl is not None or jax.default_backend() == "cpu":
        chosen["impl"] = impl or "jax"
    config = registry.get_default_config(name)
    try:
        env = registry.load(name, config=config, config_overrides=chosen)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"env={id!r}: {type(error).__name__}: {one_line(error)}") from error
    return PlaygroundEnv(id, env, max_episode_steps or int(config.episode_length))


@in_32_bits
def from_playground(env: Any, *, id: str, max_episode_steps: int = 1000) -> "PlaygroundEnv":
    """Adapt a `mujoco_playground.MjxEnv` of your own, without the package's training wrappers.

    Args:
      env: the environment.
      id: the name of the environment, such as "mine/reacher".
      max_episode_steps: the steps after which an episode is truncated.

    Raises:
      UserError: the environment does not run, or its observations are not one vector.
    """
    return PlaygroundEnv(id, env, max_episode_steps)


def _check_robots(id: str, name: str) -> None:
    """Refuse an environment whose robots would have to be downloaded."""
    from mujoco_playground._src.mjx_env import MENAGERIE_PATH

    if name in _ROBOTS and not MENAGERIE_PATH.exists():
        raise UserError(
            f"env={id!r}: needs the robots of MuJoCo Menagerie, which MuJoCo Playground downloads: "
            f'run python -c "from mujoco_playground import registry; registry.load({name!r})" once'
        )


class PlaygroundEnv(BraxEnv):
    """An environment of MuJoCo Playground, which has almost the interface of Brax's.

    Of observations in several parts, agents receive the part "state".
    """

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        import mujoco

        model = self._inner.mj_model
        data = mujoco.MjData(model)
        try:
            with mujoco.Renderer(model, height=360, width=480) as renderer:
                frames = []
                for state in states:
                    data.qpos[:] = np.asarray(state.inner.data.qpos)
                    mujoco.mj_forward(model, data)
                    renderer.update_scene(data, camera=0 if model.ncam else -1)
                    frames.append(renderer.render().copy())
        except Exception as error:
            raise cannot_draw(f"{type(error).__name__}: {error}") from error
        return frames

    def scene(self, states: Sequence[State]) -> Scene:
        qpos = [np.asarray(state.inner.data.qpos) for state in states]
        return scene_of(self._inner.mj_model, qpos)
