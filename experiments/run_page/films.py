"""The films in a run's folder, for its page: the files themselves, and a poster of each."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from es_rl.files import open_own
from experiments.markup import uri_of
from experiments.run_page.run import is_folder

FOLDER = "videos"
_NAME = re.compile(r"generation-(\d{6,15})\.mp4")
_MOST = 8
"""The most films on a page: the first, the last, and some between."""
_LARGEST = 4 << 20
"""The largest film on a page, in bytes."""
_POSTER_SECONDS = 20.0
"""A film whose poster takes longer has none."""
_WIDTH = 480
"""The width of posters in pixels."""


@dataclass(frozen=True)
class ShownFilm:
    """A film on the page."""

    generation: int
    """The generation after which it was made."""
    video: str | None
    """The film as a data URI; None if the file is too large for the page, or no film."""
    poster: str | None
    """A frame of it as a data URI; None if it cannot be read."""


@dataclass(eq=False)
class Films:
    """The films of a run; each file is read once."""

    folder: Path
    """The run's folder."""
    _read: dict[tuple[int, int, int], ShownFilm] = field(default_factory=dict)
    """By generation, size and time of change."""

    def shown(self, generations: int) -> tuple[list[ShownFilm], int]:
        """The films for the page, in order, and how many there are in all.

        Args:
          generations: films of later generations are left out, as a resumed run replaces them.

        Raises:
          UserError: the folder of films or one of its films is a link.
          OSError: a film cannot be read.
        """
        folder = self.folder / FOLDER
        if not is_folder(folder):
            return [], 0
        found = (_NAME.fullmatch(entry) for entry in os.listdir(folder))
        numbers = sorted({int(name[1]): name[0] for name in found if name is not None}.items())
        numbers = [(number, name) for number, name in numbers if number < generations]
        few = np.linspace(0, len(numbers) - 1, min(len(numbers), _MOST)).round().astype(int)
        chosen = [numbers[place] for place in few]
        return [self._film(number, folder / name) for number, name in chosen], len(numbers)

    def _film(self, generation: int, path: Path) -> ShownFilm:
        with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
            status = os.fstat(file.fileno())
            key = (generation, status.st_size, status.st_mtime_ns)
            if key not in self._read:
                data = file.read(_LARGEST + 1)
                self._read[key] = _film_of(generation, data)
        return self._read[key]


def _film_of(generation: int, data: bytes) -> ShownFilm:
    # The bytes name the format: ffmpeg would open other files if one of its playlists asked so.
    if len(data) > _LARGEST or data[4:8] != b"ftyp":
        return ShownFilm(generation, None, None)
    poster = _poster(data)
    return ShownFilm(
        generation,
        uri_of("video/mp4", data),
        None if poster is None else uri_of("image/jpeg", poster),
    )


def _poster(data: bytes) -> bytes | None:
    """A typical frame of the first 50 of an MP4 film as JPEG; None if it cannot be decoded."""
    # A file, as the index of such a film is at its end, and a pipe cannot be wound back.
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(data)
        file.flush()
        command = [
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error"),
            *("-f", "mp4", "-i", f"file:{file.name}"),
            *("-vf", f"thumbnail=50,scale={_WIDTH}:-2", "-frames:v", "1"),
            *("-f", "image2pipe", "-c:v", "mjpeg", "-q:v", "4", "pipe:1"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_POSTER_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
    return done.stdout or None
