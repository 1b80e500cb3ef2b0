"""Checks of the paths of files that a command is to write."""

import os
from pathlib import Path

from envs.errors import UserError


def check_output(name: str, path: Path) -> None:
    """Refuse the path of an output file that cannot be written.

    Raises:
      UserError: the path is a folder, or its parent folder cannot be made.
    """
    if os.path.isdir(path) or not can_be_made(path.parent):
        raise UserError(f"{name}={path}: must be a file, in a folder that can be written")


def can_be_made(folder: Path) -> bool:
    """Whether a folder exists or could be made, and files could be written into it."""
    there = next((p for p in (folder, *folder.absolute().parents) if os.path.lexists(p)), folder)
    return os.path.isdir(there) and os.access(there, os.W_OK)
