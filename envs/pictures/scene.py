"""3D scenes of MuJoCo models: simple solids and their poses over time, for drawing elsewhere."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from envs.errors import UserError

if TYPE_CHECKING:
    import gymnasium

Shape: TypeAlias = Literal["plane", "sphere", "capsule", "cylinder", "box", "ellipsoid"]

_LAST_VISIBLE_GROUP = 2  # MuJoCo's viewers hide geoms of higher groups
_NO_COLOUR = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's default, which a geom's material overrides


@dataclass(frozen=True)
class Geom:
    """One solid, described in its own coordinate system with the axes x, y and z."""

    shape: Shape
    """The kind of solid."""
    size: tuple[float, float, float]
    """The size in metres: the radius of a sphere; the radius and half the length (along z, without
    the caps of a capsule) of a capsule or cylinder; half the sides of a box; the half-axes of an
    ellipsoid; half the sides of a plane, 0 for an infinite plane. Unused entries are 0."""
    rgba: tuple[float, float, float, float]
    """Red, green, blue and opacity, each from 0 to 1."""
    fixed: bool
    """Whether the solid is part of the world and never moves."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The poses of G solids in T frames, in world coordinates in which z points upwards."""

    geoms: tuple[Geom, ...]
    """The G solids."""
    positions: np.ndarray
    """(T, G, 3) float32, the centres of the solids in metres."""
    quaternions: np.ndarray
    """(T, G, 4) float32, unit quaternions (w, x, y, z) that rotate a solid's axes into the world's
    axes."""
    focus: np.ndarray
    """(T, 3) float32, the point in metres that the camera looks at in each frame."""
    reach: float
    """The distance in metres from the focus within which the solids of interest stay."""

    def at(self, frames: np.ndarray) -> "Scene":
        """Return the scene with only the frames whose numbers are in `frames`."""
        return replace(
            self,
            positions=self.positions[frames],
            quaternions=self.quaternions[frames],
            focus=self.focus[frames],
        )


def no_scene(env_id: str) -> UserError:
    """Make the error for an environment that is not simulated by a MuJoCo model."""
    return UserError(
        f"{env_id} has no 3D page: environments of a MuJoCo model have one, as brax/ant and "
        "gymnasium/HalfCheetah-v5; a video (--video) works for all that have a picture"
    )


def has_mujoco_model(env: "gymnasium.Env") -> bool:
    """Whether a Gymnasium environment is simulated by MuJoCo, through its own Python bindings."""
    mujoco = sys.modules.get("mujoco")  # such an environment has imported it
    model = getattr(env.unwrapped, "model", None)
    return mujoco is not None and isinstance(model, mujoco.MjModel)


def scene_of(model: Any, qpos: Sequence[np.ndarray]) -> Scene:
    """Return the solids of a `mujoco.MjModel`, in the pose of each vector of joint positions.

    A mesh is drawn as its bounding box. Height fields, sites, tendons and all geoms that MuJoCo's
    viewers hide (groups above 2, transparent geoms) are left out.

    Args:
      model: the model.
      qpos: T vectors (model.nq,) of joint positions.

    Raises:
      UserError: a joint position is not finite, or the model has no visible geom.
    """
    for step, position in enumerate(qpos):
        if not np.isfinite(position).all():
            raise UserError(f"joint positions are not finite in step {step}: no 3D page of them")
    numbers = _visible(model)
    if not numbers:
        raise UserError("nothing of the model can be seen: no 3D page of it")
    geoms = tuple(_geom(model, number) for number in numbers)
    body = _tracked_body(model)
    positions, quaternions, tracked = _poses(model, qpos, numbers, body)
    moving = np.array([not geom.fixed for geom in geoms])
    solid = np.array([geom.shape != "plane" for geom in geoms])
    # If the camera follows a body, show the moving solids; otherwise show all solids but planes.
    shown = moving if body is not None and moving.any() else solid
    shown = shown if shown.any() else np.ones_like(shown)
    seen, radius = positions[:, shown], model.geom_rbound[numbers][shown]
    focus = _focus(seen, tracked if body is not None else None)
    reach = (np.linalg.norm(seen - focus[:, None], axis=-1) + radius).max()
    return Scene(
        geoms,
        positions.astype(np.float32),
        quaternions.astype(np.float32),
        focus.astype(np.float32),
        float(reach) or 1.0,
    )


def _shapes() -> dict[int, Shape]:
    """Map the numbers of MuJoCo's drawable geom types to shapes."""
    import mujoco

    kinds = mujoco.mjtGeom
    return {
        int(kinds.mjGEOM_PLANE): "plane",
        int(kinds.mjGEOM_SPHERE): "sphere",
        int(kinds.mjGEOM_CAPSULE): "capsule",
        int(kinds.mjGEOM_CYLINDER): "cylinder",
        int(kinds.mjGEOM_BOX): "box",
        int(kinds.mjGEOM_ELLIPSOID): "ellipsoid",
        int(kinds.mjGEOM_MESH): "box",
    }


_SIZES: dict[Shape, int] = {
    "plane": 2,
    "sphere": 1,
    "capsule": 2,
    "cylinder": 2,
    "box": 3,
    "ellipsoid": 3,
}
"""The number of MuJoCo's three size entries that each shape uses."""


def _visible(model: Any) -> list[int]:
    shapes = _shapes()
    return [
        number
        for number in range(model.ngeom)
        if int(model.geom_type[number]) in shapes
        and model.geom_group[number] <= _LAST_VISIBLE_GROUP
        and _rgba(model, number)[3] > 0
    ]


def _geom(model: Any, number: int) -> Geom:
    shape = _shapes()[int(model.geom_type[number])]
    size = model.geom_aabb[number, 3:] if _is_mesh(model, number) else model.geom_size[number]
    x, y, z = (float(s) if i < _SIZES[shape] else 0.0 for i, s in enumerate(size))
    fixed = bool(model.body_weldid[model.geom_bodyid[number]] == 0)
    return Geom(shape, (x, y, z), _rgba(model, number), fixed)


def _is_mesh(model: Any, number: int) -> bool:
    import mujoco

    return int(model.geom_type[number]) == int(mujoco.mjtGeom.mjGEOM_MESH)


def _rgba(model: Any, number: int) -> tuple[float, float, float, float]:
    rgba, material = model.geom_rgba[number], int(model.geom_matid[number])
    if material >= 0 and tuple(rgba) == _NO_COLOUR:
        rgba = model.mat_rgba[material]
    r, g, b, a = map(float, rgba)
    return r, g, b, a


def _tracked_body(model: Any) -> int | None:
    """Return the body that a camera of the model follows, or else a free-floating body, or None."""
    import mujoco

    # MuJoCo's enumerations do not equal the integers of its arrays.
    modes = [int(mujoco.mjtCamLight.mjCAMLIGHT_TRACK), int(mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM)]
    for camera in range(model.ncam):
        if int(model.cam_mode[camera]) in modes:
            return int(model.cam_bodyid[camera])
    floating = np.flatnonzero(model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE))
    return int(model.jnt_bodyid[floating[0]]) if len(floating) else None


def _poses(
    model: Any, qpos: Sequence[np.ndarray], numbers: list[int], body: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the geoms' positions (T, G, 3) and quaternions (T, G, 4), and the body's (T, 3)."""
    import mujoco

    data = mujoco.MjData(model)
    positions = np.zeros((len(qpos), len(numbers), 3))
    quaternions = np.zeros((len(qpos), len(numbers), 4))
    tracked = np.zeros((len(qpos), 3))
    offsets = [model.geom_aabb[n, :3] * _is_mesh(model, n) for n in numbers]
    for frame, position in enumerate(qpos):
        data.qpos[:] = position
        mujoco.mj_kinematics(model, data)
        tracked[frame] = data.xpos[body or 0]
        for i, number in enumerate(numbers):
            turned = data.geom_xmat[number].reshape(3, 3) @ offsets[i]
            positions[frame, i] = data.geom_xpos[number] + turned
            mujoco.mju_mat2Quat(quaternions[frame, i], data.geom_xmat[number])
    return positions, quaternions, tracked


def _focus(seen: np.ndarray, tracked: np.ndarray | None) -> np.ndarray:
    """Return (T, 3): the tracked body's positions, or else the middle of all visible solids.

    The height is the same in all frames: a camera that hops with a body would hide its hops.
    """
    if tracked is None:
        flat = seen.reshape(-1, 3)
        return np.tile((flat.min(0) + flat.max(0)) / 2, (len(seen), 1))
    focus = tracked.copy()
    focus[:, 2] = tracked[:, 2].mean()
    return focus
