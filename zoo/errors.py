"""The errors that are a user's to mend: one line that says what was wrong, what was expected and the nearest fix."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a command, an argument, the registry or an environment; the command line exits with 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: `; did you mean 'X'?`, or the known names where nothing is near."""
    known = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if matches:
        return f"; did you mean {lowered[matches[0]]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
