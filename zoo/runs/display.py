"""Show the progress of a run: a live panel on a terminal or in a notebook, plain lines elsewhere."""

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

RETURNS = {"episode_return": "return (last 100)", "eval_return": "evaluation"}
TIMING = ("step", "seconds", "steps_per_second")


def is_watched() -> bool:
    """Whether somebody is likely to see standard error: it is a terminal, or this is a notebook."""
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


@contextmanager
def display(
    settings: Settings, folder: Path | None, *, quiet: bool, stderr: bool = False
) -> Iterator[Callable[[Row], None]]:
    """Yield a function that shows each row of metrics, in the way that suits where the output goes.

    A live panel in a notebook needs ipywidgets; without it, there are plain lines.
    """
    stream, notebook = sys.stderr if stderr else sys.stdout, _in_notebook()
    if quiet:
        yield lambda row: None
    elif find_spec("ipywidgets") is not None if notebook else stream.isatty():
        with _live(settings, folder, Console(highlight=False, stderr=stderr)) as update:
            yield update
    else:
        yield _plain(settings, folder, stderr=stderr and not notebook)  # notebooks colour standard error as a warning


def _in_notebook() -> bool:
    return Console().is_jupyter


def _title(settings: Settings, folder: Path | None) -> str:
    steps = f"{settings.run.total_steps:,} steps"
    where = "" if folder is None else f" -> {folder}"
    return f"{settings.algorithm} on {settings.env}, seed {settings.run.seed}, {steps}{where}"


def _time_left(row: Row, total: int) -> str:
    left = row["seconds"] / row["step"] * max(total - row["step"], 0)
    return str(timedelta(seconds=round(left)))


def _format(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4g}"


@contextmanager
def _live(settings: Settings, folder: Path | None, console: Console) -> Iterator[Callable[[Row], None]]:
    total = settings.run.total_steps
    progress = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[info]}"),
    )
    task = progress.add_task(f"{settings.algorithm} {settings.env}", total=total, info="")
    latest: Row = {}

    def update(row: Row) -> None:
        if not latest:
            live.console.print(_title(settings, folder))
        latest.update(row)
        info = f"{row['step']:,.0f} steps  {row['step'] / row['seconds']:,.0f} steps/s  {_time_left(row, total)} left"
        progress.update(task, completed=min(row["step"], total), info=info)
        table = Table.grid(padding=(0, 2))
        for key, value in latest.items():
            if key not in TIMING:
                table.add_row(f"  {_label(key)}", _format(value))
        live.update(Group(progress, table))

    with Live(progress, console=console, refresh_per_second=4) as live:
        yield update


def _label(key: str) -> str:
    return RETURNS.get(key, key)


def _plain(settings: Settings, folder: Path | None, *, stderr: bool) -> Callable[[Row], None]:
    """Print a line for each tenth of the run."""
    total = settings.run.total_steps
    latest: Row = {}
    shown = 0

    def update(row: Row) -> None:
        nonlocal shown
        if not latest:
            click.echo(_title(settings, folder), err=stderr)
        latest.update(row)
        tenth = int(10 * row["step"] / total)
        if tenth <= shown:
            return
        shown = tenth
        shown_keys = [key for key in latest if key in RETURNS or key.endswith("_loss")]
        metrics = "  ".join(f"{_label(key)} {_format(latest[key])}" for key in shown_keys)
        done = f"{row['step']:,.0f}/{total:,} ({min(row['step'] / total, 1):.0%})"
        click.echo(
            f"{done}  {row['step'] / row['seconds']:,.0f} steps/s  {_time_left(row, total)} left  {metrics}", err=stderr
        )

    return update
