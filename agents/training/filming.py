"""Episodes of a policy as pictures, or as solids in motion.

Episode i of an evaluation seed is the one that `agents.evaluate` plays: on the host bit by bit, on
the accelerator but for rounding, which chaotic physics amplifies in a long episode.
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
    """What one episode looked like."""

    frames: list[np.ndarray]
    """RGB images (height, width, 3) uint8."""
    frames_per_second: float
    episode_return: float


@dataclass(frozen=True, eq=False)
class Recording:
    """What moved in one episode, in T frames, and what it earned."""

    scene: Scene
    returns: np.ndarray
    """(T,) float, the undiscounted return so far; 0 in the first frame, the whole in the last."""
    frames_per_second: float
    """In the simulated world. The last frame may follow sooner than the others: where it ends."""
    steps: int
    """Env steps of the episode."""


@in_32_bits
def film(policy: Policy, env: Env | HostEnv, *, seed: int = 0) -> Film:
    """Film episode 0 of an evaluation seed, in real time and at no more than 30 frames a second.

    Raises:
      NoPicture: the environment has no picture, or the renderer cannot start.
    """
    (key,) = evaluation_keys(seed, 1)
    stride = _stride(env.spec)
    with open_stage(env) as stage:
        behaviour = evaluation_behaviour(policy.actor)
        total, frames = stage.film(behaviour, policy.weights, key, stride)
    return Film(frames, env.spec.frames_per_second / stride, total)


@in_32_bits
def record(
    policy: Policy, env: Env | HostEnv, *, episodes: int = 1, seed: int = 0
) -> list[Recording]:
    """Record episodes 0 ... episodes-1 of an evaluation seed, at no more than 30 frames a second.

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
    # Added up one by one, as an evaluation does.
    returns = np.concatenate([np.zeros(1, rewards.dtype), np.cumsum(rewards)])[shown]
    return Recording(scene.at(shown), returns, spec.frames_per_second / stride, steps)


def _stride(spec: EnvSpec) -> int:
    """Env steps from one frame to the next."""
    return max(1, round(spec.frames_per_second / _MAX_FPS))
