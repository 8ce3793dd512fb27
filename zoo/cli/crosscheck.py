"""zoo crosscheck: entries against Stable-Baselines3 or an exact oracle, in one table."""

import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from zoo import registry
from zoo.cli.display import console


@click.command()
@click.argument("algorithms", nargs=-1, metavar="[ALGORITHM]...")
@click.option("--rung", type=click.Choice(["1", "2"]), help="1: the same data; 2: the same update.  [both]")
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write them there too.",
)
@click.option("--mutations", is_flag=True, help="Plant known mistakes in a copy instead, and list which are caught.")
def crosscheck(algorithms: tuple[str, ...], rung: str | None, file: Path | None, mutations: bool) -> None:
    """Compare entries, all or some, with Stable-Baselines3, or with an exact oracle where it has no twin.

    Exits with 1 if anything differs by more than its tolerance, or if a planted mistake goes unseen.
    """
    if mutations:
        passed = _mutations(list(algorithms), file)
    else:
        passed = _checks(list(algorithms), [int(rung)] if rung else [1, 2], file)
    if not passed:
        sys.exit(1)


def _checks(names: list[str], rungs: list[int], file: Path | None) -> bool:
    from zoo.crosscheck import crosscheck

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs has advice for users
        checks = list(crosscheck(names, rungs))
    table = Table("entry", "cell", "rung", "against", "what", "difference", "tolerance", "verdict")
    for check in checks:
        cell = str(registry.load().cell_of(check.entry))
        verdict = "[green]equal[/green]" if check.passed else "[bold red]DIFFERS[/bold red]"
        numbers = f"{check.difference:.1e}", f"{check.tolerance:.0e}"
        table.add_row(check.entry, cell, str(check.rung), check.reference, check.what, *numbers, verdict)
    console().print(table)
    _write(file, [{**asdict(check), "passed": check.passed} for check in checks])
    failed = sum(not check.passed for check in checks)
    click.echo(f"{len(checks)} checks, {failed} failed" if failed else f"{len(checks)} checks, all equal")
    return not failed


def _mutations(names: list[str], file: Path | None) -> bool:
    from zoo.crosscheck.mutations import plant

    table = Table("entry", "planted mistake", "caught by")
    outcomes = []
    for outcome in plant(names):
        outcomes.append(outcome)
        found = "; ".join(outcome.caught_by[:2]) or "[bold red]NOTHING[/bold red]"
        table.add_row(outcome.entry, outcome.mistake, found)
    console().print(table)
    _write(file, [asdict(outcome) for outcome in outcomes])
    caught = sum(bool(outcome.caught_by) for outcome in outcomes)
    click.echo(f"{caught} of {len(outcomes)} planted mistakes caught")
    return caught == len(outcomes)


def _write(file: Path | None, data: list[dict[str, Any]]) -> None:
    if file is not None:
        file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
