"""Metrics for TensorBoard."""

import os
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

_FLUSH_SECONDS = 10.0


class EventLog:
    """Writes scalars as they come.

    tensorboardX's SummaryWriter has a thread to do so, which a full disk ends without a word;
    whoever logs on waits for it for ever.
    """

    def __init__(self, folder: Path, purge_from: int | None = None):
        """Start a new file.

        Args:
          folder: of the run's event files.
          purge_from: TensorBoard forgets what earlier files have from this step on.

        Raises:
          OSError: the file cannot be written; so say all methods.
        """
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{time.time_ns()}")
        self._flushed = 0.0
        if purge_from is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(
                Event(wall_time=time.time(), step=purge_from, session_log=start)
            )

    def add(self, scalars: dict[str, float], step: int) -> None:
        """Note the values of a step."""
        values = [Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()]
        now = time.time()
        self._writer.write_event(Event(wall_time=now, step=step, summary=Summary(value=values)))
        if now - self._flushed > _FLUSH_SECONDS:
            self._flushed = now
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
