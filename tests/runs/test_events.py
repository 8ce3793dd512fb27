"""TensorBoard's own reader is the judge of what is written for it."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zoo.runs.events import Events
from zoo.storage.files import open_folder


def test_tensorboard_reads_rows_and_drops_those_that_a_resumed_run_writes_anew(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        for values, step in (([(1, 10.0), (2, 20.0), (3, 30.0)], None), ([(2, 21.0), (4, 40.0)], 2)):
            events = Events(folder, step)
            for at, value in values:
                events.add({"step": at, "loss": value})
            events.close()
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert [(each.step, each.value) for each in reader.Scalars("loss")] == [(1, 10.0), (2, 21.0), (4, 40.0)]
