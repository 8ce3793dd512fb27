"""Show what commands print and begin."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.text import Text


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error; without a terminal it is wide enough for tables."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(width=None if stream.isatty() else 140, highlight=False, stderr=stderr)


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows what a command begins: beside a spinner on a terminal, as a line elsewhere."""
    if sys.stdout.isatty():
        with console().status("") as status:
            yield lambda text: status.update(Text(text))
    else:
        yield click.echo
