"""Ending a run in good order, and keeping it on the way."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Protocol, Self

from zoo.errors import DivergedError, Interrupted, UserError
from zoo.machine import SIGNALS, device_of
from zoo.runs.checkpoint import load, save
from zoo.storage.files import Folder
from zoo.training.loop import Learner

EVERY = "5min"


class Interval(NamedTuple):
    """Between two checkpoints: environment steps, or seconds."""

    steps: int | None
    seconds: float | None


def interval(every: str | int) -> Interval:
    """What `10000` or `5min` means; a UserError for anything else."""
    text = str(every).strip().lower()
    number = text.removesuffix("min").removesuffix("m")
    try:
        value = float(number)
        if not 0 < value < 1e15 or (text == number and not value.is_integer()):
            raise ValueError
    except ValueError:
        raise UserError(f"checkpoint_every = {every!r}; expected steps, as 10000, or minutes, as 5min") from None
    return Interval(int(value), None) if text == number else Interval(None, 60 * value)


class Watcher(Protocol):
    """What else belongs to a run's state."""

    def mark(self) -> None:
        """A checkpoint is about to be taken."""


class Stopper:
    """Ends a run that keeps nothing when Ctrl-C is pressed: at once, or after the step if that was lost.

    Python drops what a signal's handler raises in the callback of a weak reference, of which torch's compiler has many.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a handler of the caller's own stays
            self._listen(signal.SIGINT)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def heed(self) -> None:
        """Raises KeyboardInterrupt if a signal came."""
        if self.signal is not None:
            raise KeyboardInterrupt

    def on_step(self) -> None:
        """The same."""
        self.heed()

    def save(self) -> None:
        """Nothing: there is no folder."""

    def _listen(self, *numbers: int) -> None:
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._on_signal) for number in numbers}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        raise KeyboardInterrupt


class Keeper(Stopper):
    """Takes checkpoints of a run: at intervals, when it is told to stop, and whenever it is asked.

    It is told by Ctrl-C, SIGTERM, and the end of its terminal (SIGHUP), unless that was to be ignored, as nohup does.
    """

    def __init__(self, folder: Folder, learner: Learner, recorder: Watcher, every: Interval) -> None:
        super().__init__()
        self.folder, self.learner, self.recorder, self.every = folder, learner, recorder, every
        self.step, self.time = 0, time.monotonic()  # of the last checkpoint

    def __enter__(self) -> Self:
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._listen(*(each for each in SIGNALS if not (nohup and each == signal.SIGHUP)))
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # The second one does not wait for the end of a step; but a closing terminal may send several.
        if self.signal is not None and number != signal.SIGHUP:
            again = f"{signal.Signals(number).name} a second time"
            raise Interrupted(number, f"{again}: no new checkpoint; go on with: zoo run --resume {self.folder.path}")
        self.signal = self.signal or number

    def heed(self) -> None:
        """Take a checkpoint and raise Interrupted if a signal came.

        To be called between steps of an evaluation, while the training stands still: the checkpoint of this step comes
        after it, and none is written twice.
        """
        if self.signal is not None:
            self.save()
            stopped = f"{signal.Signals(self.signal).name} at step {self.learner.step:,}"
            raise Interrupted(self.signal, f"{stopped}; go on with: zoo run --resume {self.folder.path}")

    def on_step(self) -> None:
        """Take a checkpoint if one is due; raises Interrupted after it if a signal came. Called between steps."""
        self.heed()
        steps, seconds = self.every
        due = seconds is not None and time.monotonic() >= self.time + seconds
        if due or (steps is not None and self.learner.step >= self.step + steps):
            self.save()

    def save(self) -> None:
        """Take a checkpoint; a DivergedError error, and none, where weights are not finite."""
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
    """A DivergedError error that names the first parameter that is not finite."""
    algo: Any = learner.algo
    for name, parameter in algo.named_parameters():
        if not parameter.isfinite().all():
            raise DivergedError(
                f"{name} became NaN or infinite by step {learner.step:,}; the last checkpoint is before that"
            )
