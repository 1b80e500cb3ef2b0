"""Films of MuJoCo models before a plain backdrop: a camera that follows the body, and soft light.

The look is that of the 3D page: its colours, its ground and its camera.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from envs.pictures.camera import FIELD_OF_VIEW, axes, direction, distance, tile_side
from envs.pictures.looks import GROUND, SKY, painted
from envs.pictures.scene import Scene, has_ground, rgba_of, scene_of, tracking_modes

Pose: TypeAlias = Mapping[str, np.ndarray]
"""Values of fields of `mujoco.MjData`, of which one is "qpos"."""

HEIGHT, WIDTH = 480, 640
"""The size of a picture in pixels."""

_ENDLESS = 2.5
"""Planes that extend this many times the scene's reach are drawn without an edge."""
_PLAIN = tuple(np.mean(GROUND, axis=0).tolist())
"""The colour of a ground without tiles."""
_FADE = (2.0, 7.0)
"""The distances from the camera, in multiples of that to the focus, at which the ground begins and
ends to fade into the sky."""
_KEY = np.array([0.42, -0.5, 0.9]) / np.linalg.norm([0.42, -0.5, 0.9])
"""The direction from the focus towards the light that casts shadows."""
_FILL = np.array([-0.8, -0.6, 0.35]) / np.linalg.norm([-0.8, -0.6, 0.35])
"""The direction from the focus towards the light that brightens what the other one leaves dark."""


def draw(model: Any, poses: Sequence[Pose]) -> list[np.ndarray]:
    """Draw a `mujoco.MjModel` in some poses, as RGB images (480, 640, 3) uint8.

    Args:
      model: the model, which is left as it is.
      poses: one for each picture, and about 30 for each second.

    Raises:
      UserError: nothing of the model can be seen.
    """
    poses = _finite(model, poses)
    scene = scene_of(model, [pose["qpos"] for pose in poses], frames_per_second=30.0)
    camera, grounded = camera_of(scene), has_ground(model)

    def set_up(picture: Any, data: Any, frame: int) -> None:
        focus = camera.lookat[:] = scene.focus[frame]
        picture.update_scene(data, camera)
        _hang_sky(picture.scene, focus, scene, camera.distance)
        if not grounded:
            _add_ground(picture.scene, focus, scene, camera.distance)
        _light(picture.scene, focus, scene.reach)

    return _drawn(_painted(model, scene, camera.distance), poses, set_up)


def draw_with_own_camera(model: Any, poses: Sequence[Pose]) -> list[np.ndarray]:
    """Draw a model as it is, from its first camera. If that follows a body its height is held."""
    import mujoco

    model, poses = _sized(model), _finite(model, poses)
    data, heights = mujoco.MjData(model), []
    follows = int(model.cam_mode[0]) in tracking_modes()
    for pose in poses if follows else ():
        _set(model, data, pose)
        heights.append(data.cam_xpos[0, 2])

    def set_up(picture: Any, data: Any, frame: int) -> None:
        if follows:
            data.cam_xpos[0, 2] = np.mean(heights)
        picture.update_scene(data, camera=0)

    return _drawn(model, poses, set_up)


def _drawn(
    model: Any, poses: Sequence[Pose], set_up: Callable[[Any, Any, int], None]
) -> list[np.ndarray]:
    """Draw each pose after `set_up(renderer, data, number of the pose)`."""
    import mujoco

    data, frames = mujoco.MjData(model), []
    with mujoco.Renderer(model, HEIGHT, WIDTH) as picture:
        for frame, pose in enumerate(poses):
            _set(model, data, pose)
            set_up(picture, data, frame)
            frames.append(picture.render().copy())
    return frames


def _set(model: Any, data: Any, pose: Pose) -> None:
    import mujoco

    for name, value in pose.items():
        getattr(data, name)[:] = value
    mujoco.mj_forward(model, data)


def _finite(model: Any, poses: Sequence[Pose]) -> list[Pose]:
    """Replace poses that are not finite by the last one that was: diverged physics stands still."""
    kept: list[Pose] = []
    for pose in poses:
        if all(np.isfinite(value).all() for value in pose.values()):
            kept.append(pose)
        else:
            kept.append(kept[-1] if kept else {"qpos": model.qpos0})
    return kept


def camera_of(scene: Scene) -> Any:
    """Return a `mujoco.MjvCamera` from which all of the scene is always seen."""
    import mujoco

    camera = mujoco.MjvCamera()
    yaw, pitch = direction(scene)
    camera.azimuth, camera.elevation = math.degrees(yaw) + 180, -math.degrees(pitch)
    camera.distance = distance(scene, WIDTH / HEIGHT)
    return camera


def _sized(model: Any) -> Any:
    """Return a copy of a model for pictures of our size."""
    model = copy.copy(model)
    model.vis.global_.offheight = max(HEIGHT, model.vis.global_.offheight)
    model.vis.global_.offwidth = max(WIDTH, model.vis.global_.offwidth)
    # Shadows take most of the time: their map has a sixteenth of MuJoCo's default size.
    model.vis.quality.shadowsize = min(1024, model.vis.quality.shadowsize)
    return model


def _painted(model: Any, scene: Scene, distance: float) -> Any:
    """Return a copy of a model in the colours of the page."""
    model = _sized(model)
    model.vis.global_.fovy = np.degrees(FIELD_OF_VIEW)
    # Lengths of the visual settings count in multiples of the extent.
    model.stat.extent = scene.reach
    model.vis.map.znear, model.vis.map.zfar = 0.02, 2 * _FADE[1] * distance / scene.reach
    model.vis.map.fogstart, model.vis.map.fogend = np.array(_FADE) * distance / scene.reach
    model.vis.map.shadowclip, model.vis.map.shadowscale = 1.3, 1.0
    model.vis.rgba.fog = (*SKY, 1.0)
    model.vis.headlight.active = 1
    model.vis.headlight.ambient[:] = 0.55
    model.vis.headlight.diffuse[:] = 0.1
    model.vis.headlight.specular[:] = 0.0
    _paint_geoms(model, scene)
    return model


def _paint_geoms(model: Any, scene: Scene) -> None:
    import mujoco

    plane, mesh = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_MESH)
    for number in range(model.ngeom):
        kind = int(model.geom_type[number])
        fixed = bool(model.body_weldid[model.geom_bodyid[number]] == 0)
        if kind == plane and fixed:
            _lay_ground(model, number, scene.reach)
        elif kind not in (plane, mesh):
            model.geom_rgba[number] = painted(rgba_of(model, number), fixed)
            model.geom_matid[number] = -1


def _lay_ground(model: Any, number: int, reach: float) -> None:
    import mujoco

    sides = model.geom_size[number]
    sides[:2][sides[:2] > _ENDLESS * reach] = 0.0
    material = int(model.geom_matid[number])
    texture = -1
    if material >= 0:
        texture = int(model.mat_texid[material, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)])
    flat = int(mujoco.mjtTexture.mjTEXTURE_2D)
    if texture < 0 or int(model.tex_type[texture]) != flat:
        model.geom_matid[number] = -1
        model.geom_rgba[number] = (*_PLAIN, 1.0)
        return
    height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
    channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 2 // width
    tiles = np.rint(255 * np.array(GROUND))[(rows[:, None] + columns) % 2]
    image = model.tex_data[start : start + height * width * channels].reshape(height, width, -1)
    image[..., :3] = tiles[..., :channels]
    model.mat_texuniform[material] = 1
    model.mat_texrepeat[material] = 1 / (2 * tile_side(reach))
    model.mat_rgba[material] = model.geom_rgba[number] = 1.0
    for quality in (model.mat_specular, model.mat_shininess, model.mat_reflectance):
        quality[material] = 0.0
    model.mat_emission[material] = 0.0


def _hang_sky(picture: Any, focus: np.ndarray, scene: Scene, distance: float) -> None:
    """Put a wall behind a `mujoco.MjvScene`, to which the fog gives the colour of the sky."""
    import mujoco

    right, up, ahead = axes(*direction(scene))
    far = 1.1 * _FADE[1] * distance
    turn = np.stack([right, up, -ahead], axis=-1)
    size = (far, far, 0.01 * far)
    _add(picture, mujoco.mjtGeom.mjGEOM_BOX, size, focus + far * ahead, turn, SKY)


def _add_ground(picture: Any, focus: np.ndarray, scene: Scene, distance: float) -> None:
    """Put the ground of a scene, its last solid, into a `mujoco.MjvScene`."""
    import mujoco

    far = 2 * _FADE[1] * distance
    place = np.array([*focus[:2], scene.positions[0, -1, 2]])
    _add(picture, mujoco.mjtGeom.mjGEOM_PLANE, (far, far, 1.0), place, np.eye(3), _PLAIN)


def _add(
    scene: Any,
    kind: Any,
    size: tuple[float, float, float],
    place: np.ndarray,
    turn: np.ndarray,
    colour: tuple[float, float, float],
) -> None:
    import mujoco

    mujoco.mjv_initGeom(
        scene.geoms[scene.ngeom],
        kind,
        size=np.array(size),
        pos=place.astype(float),
        mat=turn.ravel(),
        rgba=np.array([*colour, 1.0], np.float32),
    )
    scene.ngeom += 1


def _light(scene: Any, focus: np.ndarray, reach: float) -> None:
    """Light a `mujoco.MjvScene` from above and, without shadows, from the left."""
    import mujoco

    for flag in (mujoco.mjtRndFlag.mjRND_SKYBOX, mujoco.mjtRndFlag.mjRND_REFLECTION):
        scene.flags[flag] = 0
    scene.flags[mujoco.mjtRndFlag.mjRND_FOG] = 1
    for geom in scene.geoms[: scene.ngeom]:
        # A ground that casts shadows on itself is speckled.
        geom.castshadow = geom.type != int(mujoco.mjtGeom.mjGEOM_PLANE)
    head = 1  # the first light is the one at the camera
    scene.nlight = head + 2
    for i, (towards, strength, shadow) in enumerate([(_KEY, 0.45, 1), (_FILL, 0.15, 0)]):
        light = scene.lights[head + i]
        light.type = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        light.pos[:] = focus + 4 * reach * towards
        light.dir[:] = -towards
        light.ambient[:] = 0.0
        light.diffuse[:] = strength
        light.specular[:] = 0.25 * strength
        light.attenuation[:] = (1.0, 0.0, 0.0)
        light.headlight = 0
        light.castshadow = shadow
