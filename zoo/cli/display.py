"""Consoles to print tables on."""

import sys

from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error; without a terminal it is wide enough for tables."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(width=None if stream.isatty() else 140, highlight=False, stderr=stderr)
