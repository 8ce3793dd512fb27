"""Keep a training going when standard streams are missing, cannot encode a text, or are closed by their reader."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, cast

from zoo.errors import UserError
from zoo.storage.files import NOTES, open_folder


class Output:
    """A stream that drops what cannot be written; `lost` is the reason of the first loss."""

    def __init__(self, stream: TextIO, lost: str = "") -> None:
        self.stream, self.lost = stream, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write `text`, or drop it."""
        try:
            return self.stream.write(text)
        except (OSError, ValueError) as error:  # a ValueError of one that is closed
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost = self.lost or f"cannot be written ({error})"
        with suppress(OSError, ValueError):  # the buffer is flushed once more when Python ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def _kept(stream: TextIO | None) -> TextIO:
    """Wrap the stream in an Output, which stands for a TextIO here."""
    if isinstance(stream, Output):
        return cast(TextIO, stream)
    if stream is None:
        return cast(TextIO, Output(Path(os.devnull).open("w", encoding="utf-8"), "was closed from the start"))
    return cast(TextIO, Output(stream))


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make standard output and error take any text. Lost error messages are ignored; lost results are an error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a file that is opened later must not become a standard stream
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with redirect_stdout(sys.stdout or _kept(None)), redirect_stderr(_kept(sys.stderr)):
        yield


@contextmanager
def dispensable_output(folder: Path) -> Iterator[Callable[[str], None]]:
    """Go on when standard output or error is lost. The function that is yielded writes it to the folder's notes.

    It writes a line for each lost stream, once, with the moment that it is called with. Call it only while the folder
    is locked.
    """
    said: set[str] = set()
    streams = {"standard output": _kept(sys.stdout), "standard error": _kept(sys.stderr)}

    def say(moment: str) -> None:
        for name, stream in streams.items():
            lost = cast(Output, stream).lost
            if lost and name not in said:
                said.add(name)
                _note(folder, f"{datetime.now():%Y-%m-%d %H:%M:%S}, {moment}: {name} {lost}; the run goes on")

    with redirect_stdout(streams["standard output"]), redirect_stderr(streams["standard error"]):
        try:
            yield say
        finally:  # through the stream that may drop it
            sys.stdout.flush()


def _note(path: Path, line: str) -> None:
    # A note is not worth a training.
    with suppress(OSError, UserError), open_folder(path) as folder, folder.append(NOTES) as notes:
        notes.write(f"{line}\n".encode())
