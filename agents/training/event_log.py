"""Metrics for TensorBoard."""

import math
import os
import socket
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from agents.training.loggers import grouped

_FLUSH_SECONDS = 10.0


class EventLog:
    """A logger that writes TensorBoard's event files in the thread that calls it.

    tensorboardX's SummaryWriter writes in a thread of its own. If the disk is full, that thread
    ends without a message, and the next call waits for it forever. Its EventsWriter then leaves
    the file open.
    """

    def __init__(self, folder: Path, purge_from: int | None = None):
        """Start a new file.

        Args:
          folder: the folder of the run's event files.
          purge_from: TensorBoard discards the points of earlier files from this step on.

        Raises:
          OSError: the file cannot be written; all methods raise the same.
        """
        folder.mkdir(exist_ok=True)
        now = time.time()
        # TensorBoard sorts files by their names.
        name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(str(folder / f"{name}.{time.time_ns()}"))
        self._flushed = 0.0
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        if purge_from is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=now, step=purge_from, session_log=start))

    def log(self, metrics: dict[str, float]) -> None:
        """Write the finite metrics in groups, with the generation's env steps as the x value."""
        values = [
            Summary.Value(tag=tag, simple_value=x)
            for tag, x in grouped(metrics).items()
            if math.isfinite(x) and tag not in ("time/generation", "time/env_steps")
        ]
        now, step = time.time(), int(metrics["env_steps"])
        self._write(Event(wall_time=now, step=step, summary=Summary(value=values)))
        if now - self._flushed > _FLUSH_SECONDS:
            self._flushed = now
            self._writer.flush()

    def close(self) -> None:
        """Write the remaining data and close the file, which is closed whatever is raised."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
