"""Writing films as video files."""

import os
import warnings
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np

from agents.training.filming import Film
from envs.errors import UserError
from es_rl.files import write_whole

FORMATS = (".mp4", ".gif")


def check_name(path: Path) -> None:
    """Refuse a file name whose format `write_video` does not support.

    Raises:
      UserError: the name ends in none of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"video={path}: must end in {' or '.join(FORMATS)}")


def why_not(error: Exception) -> str:
    """One line that says why a film could not be made."""
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(reason.split())


def write_video(path: Path, recorded: Film) -> None:
    """Write a film that plays in real time; the name's suffix selects the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file has another name until it is complete.
    partial = path.with_stem(f"{path.stem}.partial")
    try:
        _write(partial, recorded)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, recorded: Film) -> None:
    frames = np.stack(recorded.frames)
    if path.suffix.lower() == ".gif":
        options: dict[str, Any] = {"duration": 1000 / recorded.frames_per_second, "loop": 0}
    else:
        # H.264 needs even sizes; imageio would otherwise scale to multiples of 16.
        options = {"fps": recorded.frames_per_second, "macro_block_size": 2}
    with warnings.catch_warnings():
        # JAX warns of every fork; this one is safe, as the child runs ffmpeg at once.
        warnings.filterwarnings("ignore", message=r"os\.fork\(\)")
        data = imageio.imwrite("<bytes>", frames, extension=path.suffix.lower(), **options)
    assert data is not None
    write_whole(path, data)
