"""Where results come from: versions of libraries, and of this code."""

import contextlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "es-rl",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "gymnasium",
    "brax",
    "mujoco",
    "numpy",
    "sbx-rl",
)
_CHECKOUT = Path(__file__).resolve().parents[2]
_GIT_SECONDS = 5.0


def versions() -> dict[str, str]:
    """Python's, and those of the libraries that results depend on, as far as they are there."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_state(checkout: Path = _CHECKOUT) -> dict[str, Any] | None:
    """{"commit": str, "uncommitted": bool} of the checkout that this code lies in.

    None where it lies in none, as when it was installed, or where git cannot tell. Never fails.
    """
    if not (checkout / ".git").exists():  # else git would look in the folders above
        return None
    # What git tells its hooks would lead it to the repository that they are of.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    command = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch"]
    try:
        said = subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_SECONDS,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    commits = [line.split()[-1] for line in said if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return None
    changed = any(not line.startswith("#") for line in said)
    return {"commit": commits[0], "uncommitted": changed}
