"""Train a sweep for a command: list what is missing and how long it takes, and show progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from zoo.bench import escape
from zoo.cli.display import console

if TYPE_CHECKING:
    from zoo.bench.plan import Job, Plan
    from zoo.bench.queue import JobEnd, Queue
    from zoo.bench.store import Store

GUESS = 2000.0  # steps a second, of an entry that no sweep has timed yet


def find_missing(sweep: "Plan", store: "Store") -> list["Job"]:
    """Return the jobs that are not done."""
    return [job for job in sweep.jobs if (trial := store.find(job)) is None or not trial.finished]


def _seconds(job: "Job", store: "Store") -> float:
    speed = store.speed(job.side, job.algorithm, job.env) or GUESS
    return 5 + job.total_steps / speed


def _estimate(missing: list["Job"], store: "Store", jobs: int) -> str:
    return str(timedelta(seconds=round(sum(_seconds(job, store) for job in missing) / jobs)))


def list_jobs(sweep: "Plan", store: "Store", jobs: int) -> None:
    """Print what is missing, and how long it takes with `jobs` at a time."""
    missing = find_missing(sweep, store)
    for job in missing:
        click.echo(f"{job.title}: {job.total_steps:,} steps, about {_seconds(job, store):,.0f} s")
    left = f"{len(missing)} jobs to do, {len(sweep.jobs) - len(missing)} done before"
    click.echo(f"{left}; about {_estimate(missing, store, jobs)} with {jobs} at a time")


def announce(sweep: "Plan", store: "Store", jobs: int) -> list["Job"]:
    """Print how much there is to do; returns the jobs that are missing."""
    missing = find_missing(sweep, store)
    known = len(sweep.jobs) - len(missing)
    click.echo(f"{len(sweep.jobs)} jobs, {known} of them done before; about {_estimate(missing, store, jobs)}")
    return missing


def train(missing: list["Job"], store: "Store", queue: "Queue", say: Callable[[str], None]) -> int:
    """Run jobs and store what becomes of them; returns how many failed. `say` gets a line after each."""
    failed = 0
    with _progress(len(missing)) as (watch, finish):
        for outcome in queue.run(missing, watch):
            if outcome.error is None:
                store.add(outcome.job, "done", outcome.result or {})
            else:
                store.add(outcome.job, "failed", {"error": outcome.error})
                failed += 1
            finish(outcome)
            say(f"after {outcome.job.title}")
    return failed


def tell_failed(count: int) -> None:
    """Print how many jobs failed, if any did."""
    if count:
        click.echo(f"{count} jobs failed; the table says why. The same command tries them again", err=True)


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[..., None], Callable[["JobEnd"], None]]]:
    """Yield functions that show a job's progress and its end: bars on a terminal, a line for each end elsewhere."""
    screen = console()
    bars = Progress(TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), console=screen)
    overall = bars.add_task("all jobs", total=total)
    tasks: dict[str, Any] = {}
    count = 0

    def watch(job: "Job", row: dict[str, float]) -> None:
        if job.title not in tasks:
            tasks[job.title] = bars.add_task(job.title, total=job.total_steps)
        bars.update(tasks[job.title], completed=row["step"])

    def finish(outcome: "JobEnd") -> None:
        nonlocal count
        count += 1
        if outcome.job.title in tasks:
            bars.remove_task(tasks.pop(outcome.job.title))
        bars.advance(overall)
        ended = f"failed: {outcome.error}" if outcome.result is None else f"{outcome.result['end']:.1f}"
        screen.print(f"{count}/{total} ", escape.terminal(f"{outcome.job.title}: {ended}"))

    if screen.is_terminal:
        with Live(bars, console=screen, refresh_per_second=2):
            yield watch, finish
    else:
        yield watch, finish
