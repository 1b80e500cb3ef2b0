"""Adapter of MuJoCo Playground (https://github.com/google-deepmind/mujoco_playground)."""

import contextlib
import io
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, TypeAlias

import jax
import numpy as np

from envs.adapting.mujoco_output import import_mjx
from envs.adapting.transitions import import_suite
from envs.base import State
from envs.errors import UserError, one_line
from envs.pictures.rendering import mujoco_frames
from envs.pictures.scene import Scene, scene_of
from envs.precision import in_32_bits
from envs.suites.brax_suite import BraxEnv

Randomizer: TypeAlias = Callable[[Any, jax.Array], tuple[Any, Any]]
"""(MJX model, keys (n, ...)) -> (the model with n rows in each randomised leaf, a tree like it with
0 in the place of these leaves and None in that of all others)."""

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
_MODEL = "es_rl_model"
"""The key of the drawn leaves of the model in a state's info."""


def names() -> tuple[str, ...]:
    """Return the names of the environments, without importing MuJoCo Playground."""
    return (*_CONTROL, *_ROBOTS)


def make(
    name: str,
    max_episode_steps: int | None = None,
    impl: str | None = None,
    randomize: bool = False,
    **kwargs: Any,
) -> "PlaygroundEnv":
    """Build an environment of MuJoCo Playground.

    Args:
      name: its name, such as "CheetahRun".
      max_episode_steps: the steps after which an episode is truncated; the `episode_length` of its
        configuration unless given.
      impl: the implementation of MJX, "jax" or "warp"; unless given, "jax" on a CPU and the
        environment's own choice on other devices.
      randomize: whether each episode draws a model from the package's domain randomisation, which
        its robots have.
      **kwargs: values that replace those of its configuration, such as `ctrl_dt=0.02`.

    Raises:
      UserError: MuJoCo Playground is not installed, its robots are not downloaded, an argument is
        unknown, there is no domain randomisation for the environment, or the environment does not
        run with the installed versions.
    """
    id = f"playground/{name}"
    import_mjx()
    with contextlib.redirect_stdout(io.StringIO()):  # it may report that parts are missing
        playground = import_suite(id, "mujoco_playground", "playground")
        registry = playground.registry
    randomizer = registry.get_domain_randomizer(name) if randomize else None
    if randomize and randomizer is None:
        raise UserError(f"env={id!r}: has no domain randomisation: randomize must be left out")
    _check_robots(id, name)
    chosen = dict(kwargs)
    if impl is not None or jax.default_backend() == "cpu":
        chosen["impl"] = impl or "jax"
    config = registry.get_default_config(name)
    try:
        env = registry.load(name, config=config, config_overrides=chosen)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"env={id!r}: {type(error).__name__}: {one_line(error)}") from error
    if randomizer is not None:
        env = _Randomized(env, randomizer)
    return PlaygroundEnv(id, env, max_episode_steps or int(config.episode_length))


@in_32_bits
def from_playground(
    env: Any, *, id: str, max_episode_steps: int = 1000, randomizer: Randomizer | None = None
) -> "PlaygroundEnv":
    """Adapt a `mujoco_playground.MjxEnv` of your own, without the package's training wrappers.

    Args:
      env: the environment.
      id: the name of the environment, such as "mine/reacher".
      max_episode_steps: the steps after which an episode is truncated.
      randomizer: a function of domain randomisation in the package's form, by which each episode
        draws its own model. Episodes of the same key, such as those of a couple, draw the same one.

    Raises:
      UserError: the environment does not run, or its observations are not one vector.
    """
    inner = env if randomizer is None else _Randomized(env, randomizer)
    return PlaygroundEnv(id, inner, max_episode_steps)


def _check_robots(id: str, name: str) -> None:
    """Refuse an environment whose robots would have to be downloaded."""
    from mujoco_playground._src.mjx_env import MENAGERIE_PATH

    if name in _ROBOTS and not MENAGERIE_PATH.exists():
        raise UserError(
            f"env={id!r}: needs the robots of MuJoCo Menagerie, which MuJoCo Playground downloads: "
            f'run python -c "from mujoco_playground import registry; registry.load({name!r})" once'
        )


class _Randomized:
    """An environment whose episodes have different models.

    The leaves of the model that the randomizer draws are part of the state's info.
    """

    def __init__(self, env: Any, randomizer: Randomizer):
        self._env, self._randomizer = env, randomizer
        self.action_size, self.dt, self.mj_model = env.action_size, env.dt, env.mj_model
        _, axes = jax.eval_shape(self._drawn, jax.random.PRNGKey(0)[None])
        self._places = [i for i, axis in enumerate(_leaves(axes)) if axis is not None]

    def _drawn(self, keys: jax.Array) -> tuple[Any, Any]:
        return self._randomizer(self._env.mjx_model, keys)

    def reset(self, rng: jax.Array) -> Any:
        rng, key = jax.random.split(rng)
        leaves = _leaves(self._drawn(key[None])[0])
        changed = tuple(leaves[place][0] for place in self._places)
        return self._keeping(self._with_model(changed).reset(rng), changed)

    def step(self, state: Any, action: jax.Array) -> Any:
        changed = state.info[_MODEL]
        return self._keeping(self._with_model(changed).step(state, action), changed)

    def _with_model(self, changed: tuple[jax.Array, ...]) -> Any:
        """The environment with other leaves of its model; a copy, as programs may be traced in
        several threads."""
        env, model = copy(self._env), self._env.mjx_model
        leaves = _leaves(model)
        for place, leaf in zip(self._places, changed, strict=True):
            leaves[place] = leaf
        env._mjx_model = jax.tree.unflatten(jax.tree.structure(model, is_leaf=_is_none), leaves)
        return env

    @staticmethod
    def _keeping(state: Any, changed: tuple[jax.Array, ...]) -> Any:
        return state.replace(info={**state.info, _MODEL: changed})


def _is_none(x: Any) -> bool:
    return x is None


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=_is_none)


class PlaygroundEnv(BraxEnv):
    """An environment of MuJoCo Playground, which has almost the interface of Brax's.

    Of observations in several parts, agents receive the part "state".
    """

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        poses = [{"qpos": np.asarray(state.inner.data.qpos)} for state in states]
        return mujoco_frames(self._inner.mj_model, poses, own_look=True)

    def scene(self, states: Sequence[State]) -> Scene:
        qpos = [np.asarray(state.inner.data.qpos) for state in states]
        return scene_of(self._inner.mj_model, qpos, self.spec.frames_per_second)
