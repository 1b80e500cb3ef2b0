"""A warning where a run stands still: no progress for long, and nothing that computes."""

import logging
import threading
import time
from types import TracebackType

STILL_SECONDS = 90.0
"""How long there may be neither progress nor work."""
_BUSY_SHARE = 0.05
"""Cores in use, on average, from which on a process counts as working: compilation, or a long step
of an accelerator's program, uses at least one."""

_log = logging.getLogger("es_rl")


class Watchdog:
    """Warns, from a thread of its own, when `progress` is not called and the process is idle.

    A program that waits for something that will never come uses no CPU time, and cannot tell
    anybody itself. The warning comes once each time that the run stands still.
    """

    def __init__(self, advice: str, still_seconds: float = STILL_SECONDS):
        """Start to watch.

        Args:
          advice: what to try, for the warning.
          still_seconds: how long nothing may happen.
        """
        self._advice = advice
        self._seconds = still_seconds
        self._where = "at the start"
        self._over = threading.Event()
        self._moved = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def progress(self, where: str) -> None:
        """Note that something was done.

        Args:
          where: what the run is busy with now, for the warning.
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
        """Look at a tenth of the time allowed whether there was progress, or work."""
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
