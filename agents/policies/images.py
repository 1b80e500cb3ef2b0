"""Which observations are images, and how they are laid out for convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

_MOST_FRAMES = 16
"""A first axis of at most this size, before two larger axes, holds frames or channels, such as the
4 in (4, 84, 84)."""


def is_image(space: spaces.Space) -> bool:
    """Whether a space holds images: a Box of uint8 with 2 to 4 axes."""
    if not isinstance(space, spaces.Box):
        return False
    return space.dtype == np.uint8 and 2 <= len(space.shape) <= 4


def layout(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The shape (height, width, channels) that `arrange` returns; None if it cannot take the array.

    Args:
      shape: the shape of the array.
    """
    match shape:
        case (height, width):
            return height, width, 1
        case (channels, height, width) if _channels_first(shape):
            return height, width, channels
        case (height, width, channels):
            return height, width, channels
        case (frames, height, width, channels):
            return height, width, frames * channels
    return None


def arrange(x: jax.Array) -> jax.Array:
    """One image as (height, width, channels), the layout that Flax's convolutions read.

    Args:
      x: (height, width), (height, width, channels) or (frames, height, width, channels). An array
        (n, height, width) is taken as n frames, as Gymnasium's FrameStackObservation stacks them,
        if n is at most 16 and both other axes are longer than 16. Frames become channels.
    """
    if x.ndim == 2:
        return x[:, :, None]
    if x.ndim == 3:
        return jnp.moveaxis(x, 0, -1) if _channels_first(x.shape) else x
    frames, height, width, channels = x.shape
    return jnp.moveaxis(x, 0, 2).reshape(height, width, frames * channels)


def _channels_first(shape: tuple[int, ...]) -> bool:
    return shape[0] <= _MOST_FRAMES < min(shape[1:])
