"""A warning when a run hangs: no progress for long, while the process is idle."""

import logging
import threading
import time
from types import TracebackType

STILL_SECONDS = 90.0
"""The seconds without progress and CPU work after which a run counts as hanging."""
_BUSY_SHARE = 0.05
"""The average number of cores in use above which a process counts as working. Compilation, or a
long step of an accelerator's program, uses at least one core."""

_log = logging.getLogger("es_rl")


class Watchdog:
    """Warns, from a thread of its own, when `progress` is not called and the process is idle.

    A program that waits for an event that will never happen uses no CPU time, and cannot report it
    itself. The warning is given once each time that the run hangs.
    """

    def __init__(self, advice: str, still_seconds: float = STILL_SECONDS):
        """Make a watchdog; a `with` block starts and stops it.

        Args:
          advice: what the user could try, for the warning.
          still_seconds: seconds without progress and work before the warning.
        """
        self._advice = advice
        self._seconds = still_seconds
        self._where = "at the start"
        self._over = threading.Event()
        self._moved = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def progress(self, where: str) -> None:
        """Record that the run has made progress.

        Args:
          where: what the run does now, for the warning.
        """
        self._where = where
        self._moved.set()

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        """Check for progress or CPU work, every tenth of `still_seconds`."""
        since, used, warned = time.monotonic(), time.process_time(), False
        while not self._over.wait(self._seconds / 10):
            now, cpu = time.monotonic(), time.process_time()
            if self._moved.is_set() or cpu - used > _BUSY_SHARE * self._seconds:
                self._moved.clear()
                since, used, warned = now, cpu, False
            elif now - since > self._seconds and not warned:
                warned = True
                _log.warning(
                    "no progress for %.0f s, and nothing computes: %s; %s",
                    now - since,
                    self._where,
                    self._advice,
                )
