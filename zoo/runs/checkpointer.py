"""When checkpoints are taken: at intervals, when a signal stops the run, and at its end."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from zoo.errors import DivergedError, Interrupted, UserError
from zoo.machine import SIGNALS, device_of
from zoo.runs.checkpoint import load, save
from zoo.runs.recorder import Recorder
from zoo.runs.resumed import command
from zoo.runs.stopping import handled
from zoo.storage.files import Folder
from zoo.training.loop import Learner

EVERY = "5min"


class Interval(NamedTuple):
    """Between two checkpoints: environment steps, or seconds."""

    steps: int | None
    seconds: float | None


def interval(every: str | int) -> Interval:
    """Read `10000` as steps and `5min` as minutes. Raises UserError for anything else."""
    text = str(every).strip().lower()
    number = text.removesuffix("min").removesuffix("m")
    try:
        value = float(number)
        if not 0 < value < 1e15 or (text == number and not value.is_integer()):
            raise ValueError
    except ValueError:
        raise UserError(f"checkpoint_every = {every!r}; expected steps, as 10000, or minutes, as 5min") from None
    return Interval(int(value), None) if text == number else Interval(None, 60 * value)


class Checkpointer:
    """Takes checkpoints of a run: at intervals, when it is told to stop, and whenever it is asked.

    It is told by Ctrl-C, SIGTERM, and the end of its terminal (SIGHUP), unless that was to be ignored, as nohup does.
    """

    def __init__(self, folder: Folder, learner: Learner, recorder: Recorder, every: Interval) -> None:
        self.folder, self.learner, self.recorder, self.every = folder, learner, recorder, every
        self.signal: int | None = None
        self.step, self.time = 0, time.monotonic()  # of the last checkpoint

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the signals that stop a run."""
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        with handled([each for each in SIGNALS if not (nohup and each == signal.SIGHUP)], self._on_signal):
            yield

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # The second one does not wait for the end of a step; but a closing terminal may send several.
        if self.signal is not None and number != signal.SIGHUP:
            again = f"{signal.Signals(number).name} a second time"
            raise Interrupted(number, f"{again}: no new checkpoint; go on with: {self._command()}")
        self.signal = self.signal or number

    def heed(self) -> None:
        """Take a checkpoint and raise Interrupted if a signal came.

        Called between steps of an evaluation, too: the training stands still there, and all of its state is whole.
        """
        if self.signal is not None:
            self.save()
            stopped = f"{signal.Signals(self.signal).name} at step {self.learner.step:,}"
            raise Interrupted(self.signal, f"{stopped}; go on with: {self._command()}")

    def _command(self) -> str:
        return command("run --resume", self.folder.path, self.recorder.settings)

    def on_step(self) -> None:
        """Take a checkpoint if one is due, between two steps of training. Raises Interrupted if a signal came."""
        self.heed()
        steps, seconds = self.every
        due = seconds is not None and time.monotonic() >= self.time + seconds
        if due or (steps is not None and self.learner.step >= self.step + steps):
            self.save()

    def save(self) -> None:
        """Take a checkpoint. Raises DivergedError, and takes none, if a weight is not finite."""
        check_finite(self.learner)
        self.recorder.mark()
        save(self.folder, {"learner": self.learner, "recorder": self.recorder}, self.learner.step)
        self.step, self.time = self.learner.step - self.learner.step % (self.every.steps or 1), time.monotonic()

    def resume(self) -> list[str]:
        """Go on from the newest checkpoint; returns warnings."""
        state = {"learner": self.learner, "recorder": self.recorder}
        step, warnings = load(self.folder, state, device_of(self.learner.algo))
        self.step = step - step % (self.every.steps or 1)
        return [*warnings, *(self.learner.source.resume() if step else [])]


def check_finite(learner: Learner) -> None:
    """Raise DivergedError, which names the first parameter that is NaN or infinite, if there is one."""
    algo: Any = learner.algo
    for name, parameter in algo.named_parameters():
        if not parameter.isfinite().all():
            raise DivergedError(
                f"{name} became NaN or infinite by step {learner.step:,}; the last checkpoint is before that"
            )
