"""Show the progress of a run: a live panel on a terminal or in a notebook, plain lines elsewhere."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from zoo.settings import Settings
from zoo.storage.untrusted import Row

RETURNS = ("episode_return", "eval_return")
TIMING = ("step", "seconds", "steps_per_second")


def is_watched() -> bool:
    """Whether somebody is likely to see standard error: it is a terminal, or this is a notebook."""
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


@contextmanager
def display(
    settings: Settings, folder: Path | None, *, quiet: bool, stderr: bool = False
) -> Iterator[Callable[[Row], None]]:
    """Yield a function that shows each row of metrics, in the way that suits where the output goes.

    What the package's log says meanwhile is shown, too. A live panel in a notebook needs ipywidgets; without it, there
    are plain lines.
    """
    stream, notebook = sys.stderr if stderr else sys.stdout, _in_notebook()
    if quiet:
        yield lambda row: None
    elif find_spec("ipywidgets") is not None if notebook else stream.isatty():
        panel = _Panel(settings, folder, Console(highlight=False, stderr=stderr))
        with panel.live, _heard(panel.note):
            yield panel.update
    else:
        lines = _Lines(settings, folder, stderr=stderr and not notebook)  # notebooks colour standard error as a warning
        with _heard(lines.note):
            yield lines.update


def _in_notebook() -> bool:
    return Console().is_jupyter


class _Notes(logging.Handler):
    """Hands each message of a log to a function."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self.show = show

    def emit(self, record: logging.LogRecord) -> None:
        self.show(record.getMessage())


@contextmanager
def _heard(show: Callable[[str], None]) -> Iterator[None]:
    """Show what the package's log says."""
    log, notes = logging.getLogger("zoo"), _Notes(show)
    level = log.level
    log.addHandler(notes)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(notes)
        log.setLevel(level)


def _title(settings: Settings, folder: Path | None) -> str:
    steps = f"{settings.run.total_steps:,} steps"
    where = "" if folder is None else f" -> {folder}"
    return f"{settings.algorithm} on {settings.env}, seed {settings.run.seed}, {steps}{where}"


def _time_left(row: Row, total: int) -> str:
    left = row["seconds"] / row["step"] * max(total - row["step"], 0)
    return str(timedelta(seconds=round(left)))


def _format(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4g}"


class _Panel:
    """A bar, and the newest value of each metric under it."""

    def __init__(self, settings: Settings, folder: Path | None, console: Console) -> None:
        self.total, self.title = settings.run.total_steps, _title(settings, folder)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[info]}"),
        )
        self.task = self.progress.add_task(f"{settings.algorithm} {settings.env}", total=self.total, info="")
        self.live = Live(self.progress, console=console, refresh_per_second=4)
        self.latest: Row = {}

    def note(self, text: str) -> None:
        """Show a text in the place of speed and time left, until the next row."""
        self.progress.update(self.task, info=text)

    def update(self, row: Row) -> None:
        """Show a row."""
        if not self.latest:
            self.live.console.print(self.title)
        self.latest.update(row)
        speed = f"{row['step']:,.0f} steps  {row['step'] / row['seconds']:,.0f} steps/s"
        info = f"{speed}  {_time_left(row, self.total)} left"
        self.progress.update(self.task, completed=min(row["step"], self.total), info=info)
        table = Table.grid(padding=(0, 2))
        for key, value in self.latest.items():
            if key not in TIMING:
                table.add_row(f"  {key}", _format(value))
        self.live.update(Group(self.progress, table))


class _Lines:
    """A title, and a line for each tenth of the run."""

    def __init__(self, settings: Settings, folder: Path | None, *, stderr: bool) -> None:
        self.total, self.title, self.stderr = settings.run.total_steps, _title(settings, folder), stderr
        self.latest: Row = {}
        self.shown = 0

    def note(self, text: str) -> None:
        """Print a line."""
        self._begin()
        click.echo(text, err=self.stderr)

    def update(self, row: Row) -> None:
        """Print a line if a tenth is over."""
        self._begin()
        self.latest.update(row)
        tenth = int(10 * row["step"] / self.total)
        if tenth <= self.shown:
            return
        self.shown = tenth
        keys = [key for key in self.latest if key in RETURNS or key.endswith("_loss")]
        metrics = "  ".join(f"{key} {_format(self.latest[key])}" for key in keys)
        done = f"{row['step']:,.0f}/{self.total:,} ({min(row['step'] / self.total, 1):.0%})"
        speed = f"{row['step'] / row['seconds']:,.0f} steps/s  {_time_left(row, self.total)} left"
        click.echo(f"{done}  {speed}  {metrics}", err=self.stderr)

    def _begin(self) -> None:
        if self.title:
            click.echo(self.title, err=self.stderr)
        self.title = ""
