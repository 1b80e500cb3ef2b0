"""The colours of films and of the 3D page."""

import colorsys

from envs.pictures.scene import RGBA

SKY = (0.933, 0.949, 0.965)
"""Red, green and blue of the sky, from 0 to 1."""
GROUND = ((0.765, 0.808, 0.847), (0.867, 0.894, 0.918))
"""The two colours of the ground's tiles."""


def painted(rgba: RGBA, fixed: bool) -> RGBA:
    """Return the colour in which a solid is drawn.

    It has the hue of the model's colour, but is bright where the solid moves, as many models are
    dark brown all over, and dull where it does not.
    """
    hue, saturation, value = colorsys.rgb_to_hsv(*rgba[:3])
    if fixed:
        saturation, value = min(saturation, 0.2), min(max(value, 0.45), 0.65)
    elif saturation < 0.15:  # grey has no hue to strengthen
        value = min(max(value, 0.35), 0.7)
    else:
        saturation, value = min(max(saturation, 0.65), 0.8), 0.85
    return (*colorsys.hsv_to_rgb(hue, saturation, value), rgba[3])
