"""Safe reading and writing in folders that an untrusted person may have prepared.

No link can lead a reader or a writer to another place. A written file appears under its name only
once it is complete. It is always a new file: if its name was a symbolic or hard link to a file
elsewhere, the link is replaced and that file is not changed.
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
"""The most files and folders that are checked. A run has a few, and one for each of its films."""
# Not every system has these flags. O_NONBLOCK: opening a named pipe would block for ever.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name once it is complete.

    Raises:
      OSError: the file cannot be written; an older file of this name is unchanged.
    """
    # The random name cannot be guessed, and mode "x" refuses a file that exists already.
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
    """Write a file completely or not at all.

    Raises:
      OSError: the file cannot be written; an older file of this name is unchanged.
    """
    with whole(path) as file:
        file.write(data)


def open_own(path: Path, flags: int) -> int:
    """Open a regular file that has no other name with `os.open`, without truncating it.

    Raises:
      UserError: the path is a link, has another name (hard link), or is not a regular file.
      OSError: the file cannot be opened.
    """
    if path.is_symlink():
        raise UserError(f"{path.name} is a link: must be a file")
    opened = os.open(path, flags | _NO_LINK, 0o666)
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(opened)
        raise UserError(f"{path.name} is no file, or one with other names: must be a file")
    return opened


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is missing; one process at a time can.

    The kernel releases the lock when the process ends for any reason.

    Raises:
      BlockingIOError: another process holds it.
      UserError: the path is a link, has another name (hard link), or is not a regular file.
      OSError: the file cannot be opened.
    """
    import fcntl  # which not every system has

    lock = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file.

    Nothing is written. A process that asks for the lock during this call, which takes
    microseconds, would find it taken.

    Raises:
      UserError: the path is a link, has another name (hard link), or is not a regular file.
      OSError: the file cannot be opened.
    """
    import fcntl  # which not every system has

    if not os.path.lexists(path):
        return False
    lock = open_own(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def check_plain(folder: Path, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Refuse links, pipes and other special files among some entries of a folder.

    Args:
      folder: the folder. It may be a link itself, as the user has named it.
      files: names in the folder. Each of them that exists must be a regular file.
      folders: names in the folder. Each of them that exists must be a folder that contains, at any
        depth, only regular files and folders.

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
