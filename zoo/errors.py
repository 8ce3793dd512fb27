"""Errors for people: what was wrong, what was expected and the nearest fix; each kind has an exit code of its own."""

import difflib
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

LIMIT = 600  # characters of a message that quotes what may be a stranger's, or of any length


class UserError(ValueError):
    """A mistake in a command, an argument, the registry or an environment; the command line exits with 2.

    Its message is one line without control characters, whatever it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class RunError(RuntimeError):
    """Something failed under a run, which stopped in good order: its last checkpoint is whole."""

    code = 1


class EnvError(RunError):
    """An environment raised an error, hung, died, or returned what cannot be learned from."""

    code = 3


class DivergedError(RunError):
    """Losses, gradients or weights are NaN or infinite."""

    code = 4


class StorageError(RunError):
    """A run's folder, or a file that a command was to write, cannot be written."""

    code = 5


class ActorError(RunError):
    """Actors failed too often, or sent nothing for too long."""

    code = 6


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop, by Ctrl-C or a signal, and kept a checkpoint."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + number


def told(value: Any, tell: Callable[[Any], str] = str) -> str:
    """Return `str` or `repr` of a value that is somebody else's; if that raises an error, say so instead."""
    try:
        return tell(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"(its {tell.__name__}() raises {type(error).__name__})"


def said(error: BaseException) -> str:
    """Return the kind of an error and its message."""
    return f"{type(error).__name__}: {told(error)}"


def located(error: BaseException) -> str:
    """Return the kind of an error, its message, and the file and line where it was raised, unless that is a library."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [f"{file}:{line}" for file, line in frames if not file.startswith(_libraries())]
    return brief(said(error)) + (f" ({own[-1]})" if own else "")


@cache
def _libraries() -> tuple[str, ...]:
    """Return how files begin that are nobody's own: the zoo's, Python's and those of installed packages."""
    folders = [os.path.dirname(__file__), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))]
    return ("<", *(f"{folder}{os.sep}" for folder in folders))


def printable(text: str) -> str:
    """Return a text as one line in which control characters, which a terminal would obey, are escaped."""
    line = " ".join(filter(None, map(str.strip, text.splitlines())))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def brief(text: str) -> str:
    """Return a text as `printable` does, and of at most `LIMIT` characters: what it quotes may be a stranger's."""
    line = printable(text)
    return line if len(line) <= LIMIT else f"{line[: LIMIT - 150]} ... {line[-130:]}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is near, or else the one whose words begin with these letters (lr: learning_rate)."""
    lowered = {candidate.lower(): candidate for candidate in sorted(known)}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if not matches and len(name) > 1:
        matches = [each for each in lowered if [*name.lower()] == [word[:1] for word in each.split("_")]]
    return lowered[matches[0]] if matches else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: `; did you mean 'X'?`, or the known names if none is near."""
    known = sorted(known)
    match = closest(name, known)
    if match is not None:
        return f"; did you mean {match!r}?"
    return f"; known: {', '.join(known)}" if known else ""
