"""3D scenes of MuJoCo models: simple solids and their poses over time, for drawing elsewhere."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from envs.errors import UserError

if TYPE_CHECKING:
    import gymnasium

RGBA: TypeAlias = tuple[float, float, float, float]
"""Red, green, blue and opacity, each from 0 to 1."""
Shape: TypeAlias = Literal["plane", "sphere", "capsule", "cylinder", "box", "ellipsoid"]

_SMOOTHING = 0.25
"""The standard deviation in seconds of the weights that smooth the way of the camera."""
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
    rgba: RGBA
    """The colour that the model gives it."""
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
    follows: bool
    """Whether the focus is a body that travels; otherwise it is the same in all frames."""

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


def has_ground(model: Any) -> bool:
    """Whether a `mujoco.MjModel` has a plane or a height field."""
    import mujoco

    kinds = [int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD)]
    return bool(np.isin(model.geom_type, kinds).any())


def scene_of(model: Any, qpos: Sequence[np.ndarray], frames_per_second: float) -> Scene:
    """Return the solids of a `mujoco.MjModel`, in the pose of each vector of joint positions.

    A mesh is drawn as its bounding box. A model without a ground gets one below all its
    solids, as the last solid, for shadows to fall on. Height fields, sites, tendons and all geoms
    that MuJoCo's viewers hide (groups above 2, transparent geoms) are left out.

    Args:
      model: the model.
      qpos: T vectors (model.nq,) of joint positions.
      frames_per_second: how many of them there are for each second.

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
    shown = _shown(geoms, follows=body is not None)
    seen, radius = positions[:, shown], model.geom_rbound[numbers][shown]
    focus = _focus(seen, tracked if body is not None else None, frames_per_second)
    reach = float((np.linalg.norm(seen - focus[:, None], axis=-1) + radius).max()) or 1.0
    scene = Scene(geoms, positions, quaternions, focus, reach, body is not None)
    if not has_ground(model):
        scene = _with_ground(scene)
    return replace(
        scene,
        positions=scene.positions.astype(np.float32),
        quaternions=scene.quaternions.astype(np.float32),
        focus=focus.astype(np.float32),
    )


def _shown(geoms: Sequence[Geom], follows: bool) -> np.ndarray:
    """Return (G,) bool, the solids that a picture has to show.

    If the camera follows a body these are the moving solids, otherwise all solids but planes.
    """
    moving = np.array([not geom.fixed for geom in geoms])
    solid = np.array([geom.shape != "plane" for geom in geoms])
    shown = moving if follows and moving.any() else solid
    return shown if shown.any() else np.ones_like(shown)


def outline(scene: Scene) -> np.ndarray:
    """Return (T, P, 3), the corners in metres of the boxes around the solids to be shown."""
    return _corners(scene)[:, _shown(scene.geoms, scene.follows)].reshape(len(scene.focus), -1, 3)


def _corners(scene: Scene) -> np.ndarray:
    """Return (T, G, 8, 3), the corners of the boxes around the solids; the middle for planes."""
    half = np.array([_half_sides(geom) for geom in scene.geoms])
    signs = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3, indexing="ij"), axis=-1).reshape(8, 3)
    own = half[:, None] * signs
    w, v = scene.quaternions[:, :, None, :1], scene.quaternions[:, :, None, 1:]
    turned = own + 2 * np.cross(v, np.cross(v, own) + w * own)
    return scene.positions[:, :, None] + turned


def _half_sides(geom: Geom) -> tuple[float, float, float]:
    x, y, z = geom.size
    match geom.shape:
        case "plane":
            return 0.0, 0.0, 0.0
        case "sphere":
            return x, x, x
        case "capsule":
            return x, x, y + x
        case "cylinder":
            return x, x, y
        case _:
            return x, y, z


def _with_ground(scene: Scene) -> Scene:
    """Add an endless plane, somewhat below the lowest point of the solids."""
    frames = len(scene.positions)
    height = _corners(scene)[..., 2].min() - 0.15 * scene.reach
    pose = np.tile([0.0, 0.0, height], (frames, 1, 1)), np.tile([1.0, 0, 0, 0], (frames, 1, 1))
    return replace(
        scene,
        geoms=(*scene.geoms, Geom("plane", (0.0, 0.0, 0.0), _NO_COLOUR, True)),
        positions=np.concatenate([scene.positions, pose[0]], axis=1),
        quaternions=np.concatenate([scene.quaternions, pose[1]], axis=1),
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
        and rgba_of(model, number)[3] > 0
    ]


def _geom(model: Any, number: int) -> Geom:
    shape = _shapes()[int(model.geom_type[number])]
    size = model.geom_aabb[number, 3:] if _is_mesh(model, number) else model.geom_size[number]
    x, y, z = (float(s) if i < _SIZES[shape] else 0.0 for i, s in enumerate(size))
    fixed = bool(model.body_weldid[model.geom_bodyid[number]] == 0)
    return Geom(shape, (x, y, z), rgba_of(model, number), fixed)


def _is_mesh(model: Any, number: int) -> bool:
    import mujoco

    return int(model.geom_type[number]) == int(mujoco.mjtGeom.mjGEOM_MESH)


def rgba_of(model: Any, number: int) -> RGBA:
    """Return the colour of a geom of a `mujoco.MjModel`, or that of its material."""
    rgba, material = model.geom_rgba[number], int(model.geom_matid[number])
    if material >= 0 and tuple(rgba) == _NO_COLOUR:
        rgba = model.mat_rgba[material]
    r, g, b, a = map(float, rgba)
    return r, g, b, a


def tracking_modes() -> list[int]:
    """Return the modes of a model's cameras that follow a body."""
    import mujoco

    # MuJoCo's enumerations do not equal the integers of its arrays.
    kinds = mujoco.mjtCamLight
    return [int(kinds.mjCAMLIGHT_TRACK), int(kinds.mjCAMLIGHT_TRACKCOM)]


def _tracked_body(model: Any) -> int | None:
    """Return the body that a camera of the model follows, or else a free-floating body, or None."""
    import mujoco

    for camera in range(model.ncam):
        if int(model.cam_mode[camera]) in tracking_modes():
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


def _focus(seen: np.ndarray, tracked: np.ndarray | None, frames_per_second: float) -> np.ndarray:
    """Return (T, 3): the tracked body's smoothed way, or else the middle of all visible solids.

    The height is the same in all frames, the middle between the lowest and the highest solid: a
    camera that hops with a body would hide its hops.
    """
    if tracked is None:
        flat = seen.reshape(-1, 3)
        return np.tile((flat.min(0) + flat.max(0)) / 2, (len(seen), 1))
    focus = _smooth(tracked, _SMOOTHING * frames_per_second)
    focus[:, 2] = (seen[..., 2].min() + seen[..., 2].max()) / 2
    return focus


def _smooth(path: np.ndarray, deviation: float) -> np.ndarray:
    """Average a path (T, 3) with Gaussian weights, whose deviation counts in frames.

    The path is continued at both ends by its reflection in the end point, so that the average of a
    straight way at a constant speed is the way itself.
    """
    far = min(math.ceil(3 * deviation), len(path) - 1)
    weights = np.exp(-0.5 * (np.arange(-far, far + 1) / max(deviation, 1e-6)) ** 2)
    before, after = path[far:0:-1], path[-2 : -2 - far : -1]
    padded = np.concatenate([2 * path[0] - before, path, 2 * path[-1] - after])
    weights /= weights.sum()
    return np.stack([np.convolve(column, weights, "valid") for column in padded.T], axis=-1)
