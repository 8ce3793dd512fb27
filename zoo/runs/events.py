"""TensorBoard's events of a run, written through an open folder rather than a path."""

import time

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from zoo.storage.files import Folder


class Events:
    """A new file of events in `folder`; with `step`, TensorBoard drops what earlier files have from that step on."""

    def __init__(self, folder: Folder, step: int | None = None) -> None:
        self.file = folder.create(f"events.out.tfevents.{time.time_ns()}.zoo")
        self.writer = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        if step is not None:
            self._write(step=step, session_log=SessionLog(status=SessionLog.START))

    def add(self, row: dict[str, float]) -> None:
        """Write all numbers of a row of metrics, under its step."""
        values = [Summary.Value(tag=key, simple_value=value) for key, value in row.items()]
        self._write(step=int(row["step"]), summary=Summary(value=values))

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, **fields: object) -> None:
        self.writer.write(Event(wall_time=time.time(), **fields).SerializeToString())
        self.writer.flush()
