"""Recorded episodes as an interactive 3D page: one self-contained HTML file.

`page` makes the whole file. Other pages include `head` once in their head, and a `figure` anywhere
in their body.
"""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

import numpy as np

from agents.training.filming import Recording
from envs.errors import UserError
from envs.pictures import camera
from envs.pictures.looks import painted
from envs.pictures.scene import Geom, Scene
from experiments.markup import asset

MAX_PANELS = 4
"""The most episodes side by side; more would be too small to see."""

_LARGEST = np.iinfo(np.int16).max


@dataclass(frozen=True)
class Panel:
    """One episode and its label."""

    label: str
    recording: Recording


def page(title: str, panels: Sequence[Panel]) -> str:
    """An HTML page of 1 to 4 episodes side by side, which plays at once.

    Raises:
      UserError: there are no panels, or too many.
    """
    return Template(asset("viewer.html")).substitute(
        title=html.escape(title), head=head(), figure=figure(panels, autoplay=True)
    )


def head() -> str:
    """HTML that a page needs once in its head to show figures."""
    return f"<style>\n{asset('viewer.css')}</style>\n<script>\n{asset('viewer.js')}</script>"


def figure(panels: Sequence[Panel], *, autoplay: bool = False) -> str:
    """An HTML element that shows 1 to 4 episodes side by side.

    Args:
      panels: the episodes.
      autoplay: for a page that consists of this figure only: play at once, and react to the wheel
        and the keys before the user has selected the figure.

    Raises:
      UserError: there are no panels, or too many.
    """
    if not 1 <= len(panels) <= MAX_PANELS:
        raise UserError(f"panels={len(panels)}: must be from 1 to {MAX_PANELS}")
    models: list[list[dict[str, Any]]] = []
    described = [_panel(panel, models) for panel in panels]
    data = json.dumps({"models": models, "panels": described}, allow_nan=False)
    # The data must not contain the end of the element that holds them.
    data = data.replace("<", "\\u003c")
    return (
        f'<div class="viewer" tabindex="0" data-count="{len(panels)}"'
        f"{' data-autoplay' if autoplay else ''}>\n"
        f'<script type="application/json">{data}</script>\n'
        '<noscript><p class="message">This picture needs JavaScript.</p></noscript>\n</div>'
    )


def _panel(panel: Panel, models: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The data of a panel. Its model is added to `models` unless an earlier panel has the same
    one."""
    recording, scene = panel.recording, panel.recording.scene
    model = [_geom(scene, number) for number in range(len(scene.geoms))]
    if model not in models:
        models.append(model)
    span, poses = _quantised(scene)
    return {
        "label": panel.label,
        "model": models.index(model),
        "fps": recording.frames_per_second,
        "reach": scene.reach,
        "follows": scene.follows,
        "direction": camera.direction(scene),
        "extent": [camera.MARGIN * length for length in camera.extent(scene)],
        "tile": camera.tile_side(scene.reach),
        "span": span,
        "returns": _base64(recording.returns.astype("<f4")),
        "focus": _base64(scene.focus.astype("<f4")),
        "poses": _base64(poses),
    }


def _geom(scene: Scene, number: int) -> dict[str, Any]:
    geom: Geom = scene.geoms[number]
    described = {"shape": geom.shape, "size": geom.size, "rgba": painted(geom.rgba, geom.fixed)}
    if not geom.fixed:
        return described
    pose = [*scene.positions[0, number].tolist(), *scene.quaternions[0, number].tolist()]
    return {**described, "pose": pose}


def _quantised(scene: Scene) -> tuple[float, np.ndarray]:
    """The largest distance from the focus in metres, and the poses of moving solids as integers.

    Poses are (T, moving, 7) int16: x, y and z relative to the focus, then the quaternion w, x, y,
    z. The precision of positions is a fifteen-thousandth of the largest distance. This takes a
    quarter of the space of numbers as text.
    """
    moving = np.array([not geom.fixed for geom in scene.geoms])
    relative = scene.positions[:, moving] - scene.focus[:, None]
    span = float(np.abs(relative).max(initial=0.0)) or 1.0
    poses = np.concatenate([relative / span, scene.quaternions[:, moving]], axis=-1)
    return span, np.rint(poses * _LARGEST).astype("<i2")


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
