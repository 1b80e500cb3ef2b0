"""What MuJoCo and MJX print and write that helps nobody: a log file, and what MJX lacks."""

import contextlib
import io
import sys
from collections.abc import Callable

_MISSING = ("Failed to import warp", "Failed to import mujoco_warp")
"""How the lines begin that MJX prints without its second implementation, which is optional."""


def import_mjx() -> None:
    """Import MJX without its lines about the optional Warp, and let MuJoCo keep no log file.

    What else the import prints is shown.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            import mujoco.mjx  # noqa: F401
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if not line.startswith(_MISSING):
                sys.stdout.write(line)
    keep_no_log()


def _switch() -> Callable[[], None]:
    # A nested function is pickled by value, so workers need not import this module.
    def off() -> None:
        import sys

        # Versions before 3.10 have no such switch.
        kind = getattr(sys.modules.get("mujoco"), "MjLogConfig", None)
        config = None if kind is None else kind.get()
        if config is not None and config.logfile == "MUJOCO_LOG.TXT":  # not one of the user's
            config.logto_file = False
            config.set()

    return off


keep_no_log = _switch()
"""Let MuJoCo, if it is imported, write no MUJOCO_LOG.TXT to the working directory; its warnings are
still printed. A log file with a name that the user has chosen is kept."""
