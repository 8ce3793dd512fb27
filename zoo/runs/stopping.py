"""Signals: how a run is told to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Stopper(Protocol):
    """Stops a run in good order; called between its steps, and at its end."""

    def on_step(self) -> None:
        """Do what is due between two steps of training. Raises KeyboardInterrupt if a signal came."""

    def heed(self) -> None:
        """Raise KeyboardInterrupt if a signal came: between two steps of an evaluation, while training stands still."""

    def save(self) -> None:
        """Keep all of the run's state, if it is kept at all."""


class Interrupter:
    """Stops a run that keeps nothing when Ctrl-C is pressed: at once, or after the step if the interruption was lost.

    Python drops what a signal's handler raises in the callback of a weak reference, of which torch's compiler has many.
    """

    def __init__(self) -> None:
        self.pressed = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to Ctrl-C, unless the caller has a handler for it."""
        numbers = [signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.default_int_handler else []
        with handled(numbers, self._on_signal):
            yield

    def on_step(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        self.heed()

    def heed(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.pressed:
            raise KeyboardInterrupt

    def save(self) -> None:
        """Do nothing: there is no folder."""

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise KeyboardInterrupt


@contextmanager
def handled(numbers: list[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle these signals; outside of the main thread, where Python allows no handlers, do nothing."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
