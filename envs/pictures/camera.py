"""Where the camera of films and of the 3D page stands, and how large the ground's tiles are."""

import math

import numpy as np

from envs.pictures.scene import Scene, outline

FIELD_OF_VIEW = math.radians(38.0)
"""The vertical angle that the camera sees, in radians."""
MARGIN = 1.12
"""How much farther away the camera stands than where all that it has to show would just be seen."""


def direction(scene: Scene) -> tuple[float, float]:
    """Return the direction from the focus to the camera, as angles about z and upwards in radians.

    What lies flat is looked at from above, with x to the right and y upwards. What stands is looked
    at from the side, so that x runs to the right.
    """
    moving = np.array([not geom.fixed for geom in scene.geoms])
    sides = np.ptp(scene.positions[:, moving], axis=1).max(axis=0, initial=0.0)
    if moving.any() and sides[2] < 0.1 * sides[:2].max():
        return -math.pi / 2, 1.1
    return -1.3, 0.3


def axes(yaw: float, pitch: float) -> np.ndarray:
    """Return (3, 3): the directions to the right of the picture, up and ahead."""
    ahead = -np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    return np.stack([right, np.cross(right, ahead), ahead])


def extent(scene: Scene) -> tuple[float, float, float]:
    """Return how far in metres the solids reach from the focus in any frame.

    The distances are those to the right or left in the picture, up or down, and towards the camera.
    """
    points = (outline(scene) - scene.focus[:, None]).reshape(-1, 3)
    right, up, ahead = axes(*direction(scene)) @ points.T
    return float(np.abs(right).max()), float(np.abs(up).max()), float(-ahead.min())


def distance(scene: Scene, aspect: float) -> float:
    """Return the distance in metres from the focus to the camera.

    Args:
      scene: all of its solids of interest are seen in every frame.
      aspect: the width of the picture divided by its height.
    """
    right, up, near = extent(scene)
    return MARGIN * (max(right / aspect, up) / math.tan(FIELD_OF_VIEW / 2) + near)


def tile_side(reach: float) -> float:
    """Return a round number of metres (1, 2 or 5 times a power of ten) for tiles of the ground."""
    wanted = 0.6 * reach
    power = 10.0 ** math.floor(math.log10(wanted))
    return power * next(times for times in (5, 2, 1) if times * power <= wanted)
