"""Recording episodes of a policy, as images or as the poses of moving solids.

Episode i of an evaluation seed is the same as in `agents.evaluate`: bit for bit on the host, and up
to rounding on the accelerator. Chaotic physics amplifies the rounding in long episodes.
"""

from dataclasses import dataclass

import numpy as np

from agents.policies.policy import Policy
from agents.training.evaluation import evaluation_behaviour, evaluation_keys
from envs.base import Env, EnvSpec, HostEnv
from envs.pictures.scene import Scene
from envs.precision import in_32_bits
from es_rl.play.stage import open_stage

_MAX_FPS = 30.0


@dataclass(frozen=True)
class Film:
    """One episode as images."""

    frames: list[np.ndarray]
    """RGB images, (height, width, 3) uint8 each."""
    frames_per_second: float
    episode_return: float
    """The undiscounted return of the episode."""


@dataclass(frozen=True, eq=False)
class Recording:
    """The solids of one episode in T frames, and its return."""

    scene: Scene
    """The solids, and their poses in every frame."""
    returns: np.ndarray
    """(T,) float, the undiscounted return so far: 0 in the first frame, the whole return in the
    last."""
    frames_per_second: float
    """Frames per second of simulated time. The last frame shows the end of the episode, and may
    follow after a shorter time."""
    steps: int
    """The number of env steps of the episode."""


@in_32_bits
def film(
    policy: Policy, env: Env | HostEnv, *, seed: int = 0, max_frames: int | None = None
) -> Film:
    """Film episode 0 of an evaluation seed, in real time, at about 30 frames a second or fewer.

    Args:
      policy: plays the episode, which is always played to its end.
      env: the environment of the policy.
      seed: the evaluation seed.
      max_frames: how many frames the film has at most; all unless given. Others are not drawn.

    Raises:
      NoPicture: the environment has no picture, or the renderer cannot start.
    """
    (key,) = evaluation_keys(seed, 1)
    stride = _stride(env.spec)
    with open_stage(env) as stage:
        behaviour = evaluation_behaviour(policy.actor)
        total, frames = stage.film(behaviour, policy.weights, key, stride, max_frames)
    return Film(frames, env.spec.frames_per_second / stride, total)


@in_32_bits
def record(
    policy: Policy, env: Env | HostEnv, *, episodes: int = 1, seed: int = 0
) -> list[Recording]:
    """Record episodes 0 ... episodes-1 of an evaluation seed, at about 30 frames a second or fewer.

    Raises:
      UserError: the environment has no MuJoCo model, or its joint positions are not finite.
    """
    keys = evaluation_keys(seed, episodes)
    with open_stage(env) as stage:
        played = stage.scenes(evaluation_behaviour(policy.actor), policy.weights, keys)
        return [_recording(env.spec, rewards, scene) for rewards, scene in played]


def _recording(spec: EnvSpec, rewards: np.ndarray, scene: Scene) -> Recording:
    stride, steps = _stride(spec), len(rewards)
    shown = np.append(np.arange(0, steps, stride), steps)
    # The rewards are added one by one, as in an evaluation, for the same rounding.
    returns = np.concatenate([np.zeros(1, rewards.dtype), np.cumsum(rewards)])[shown]
    return Recording(scene.at(shown), returns, spec.frames_per_second / stride, steps)


def _stride(spec: EnvSpec) -> int:
    """The number of env steps from one frame to the next."""
    return max(1, round(spec.frames_per_second / _MAX_FPS))
