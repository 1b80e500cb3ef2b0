"""The versions of libraries and of this code, which are saved with results."""

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
    """The versions of Python and of the installed libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_state(checkout: Path = _CHECKOUT) -> dict[str, Any] | None:
    """{"commit": str, "uncommitted": bool} of the git checkout that contains this code.

    None if there is no checkout (for an installed package) or git fails. Never raises.
    """
    if not (checkout / ".git").exists():  # otherwise git would search the parent folders
        return None
    # Variables that git sets for its hooks would make it use the repository of the hook.
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
