"""Files in folders that a stranger may have prepared: no link leads a reader or writer elsewhere.

What is written appears whole under its name, as a new file: whatever had that name before, a link
or another name of a file elsewhere, is replaced and not written through.
"""

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from envs.errors import UserError, one_line

_MOST_ENTRIES = 200_000
"""Files and folders that are looked at: a run has a few, and one for each of its films."""
# Flags that not every system has. Without waiting: a named pipe would keep us for ever.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name once all of it is written.

    Raises:
      OSError: it cannot be written; what was there before is as it was.
    """
    # A name that nobody can have taken, and no file that is there already.
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    with open(partial, "xb") as file:
        try:
            yield file
            file.close()
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
      OSError: it cannot be written; what was there before is as it was.
    """
    with whole(path) as file:
        file.write(data)


def open_own(path: Path, flags: int) -> int:
    """`os.open` of a regular file that has no other name; what was in it is left as it is.

    Raises:
      UserError: it is a link, has another name, or is no regular file.
      OSError: it cannot be opened.
    """
    if path.is_symlink():
        raise UserError(f"{path.name} is a link: must be a file")
    opened = os.open(path, flags | _NO_LINK, 0o666)
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(opened)
        raise UserError(f"{path.name} is no file, or one with other names: must be a file")
    return opened


def check_plain(folder: Path, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Refuse links, pipes and the like among what a folder holds under some names.

    Args:
      folder: may be a link itself: a person has named it.
      files: of those that are there, each must be a regular file.
      folders: of those that are there, each must be a folder of files and such folders.

    Raises:
      UserError: something is not what it must be; the message begins with its name.
    """
    waiting = []
    for names, is_kind, kind in ((files, stat.S_ISREG, "file"), (folders, stat.S_ISDIR, "folder")):
        for name in names:
            with suppress(FileNotFoundError):
                mode = os.lstat(folder / name).st_mode
                if not is_kind(mode):
                    raise UserError(f"{name} is {_kind(mode)}: must be a {kind}")
                waiting += [folder / name] if kind == "folder" else []
    seen = 0
    while waiting:
        parent = waiting.pop()
        with os.scandir(parent) as entries:
            for entry in entries:
                seen += 1
                if seen > _MOST_ENTRIES:
                    raise UserError(f"there are more than {_MOST_ENTRIES} files in it: too many")
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append(Path(entry.path))
                elif not stat.S_ISREG(mode):
                    name = one_line(os.path.relpath(entry.path, folder))
                    raise UserError(f"{name} is {_kind(mode)}: must be a file or a folder")


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"))
    return next((text for is_kind, text in kinds if is_kind(mode)), "a device, a pipe or a socket")
