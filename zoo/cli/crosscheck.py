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
from zoo.bench import escape
from zoo.cli.display import console
from zoo.cli.options import Count, NewFile
from zoo.cli.output import dispensable_output
from zoo.cli.sweep import announce, tell_failed, train
from zoo.storage.files import open_folder


@click.command()
@click.argument("algorithms", nargs=-1, metavar="[ALGORITHM]...")
@click.option(
    "--rung",
    type=click.Choice(["1", "2", "3"]),
    help="1: the same data; 2: the same update; 3: the same curve, hours of training.  [1 and 2]",
)
@click.option("--seeds", type=Count(min=2), help="Rung 3: seeds on each side.  [10, on CartPole 30]")
@click.option("--jobs", type=Count(min=1), default=2, help="Rung 3: runs at the same time.  [2]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("crosscheck"),
    metavar="DIR",
    help="Rung 3: where results are kept, and found again when it is started anew.  [crosscheck]",
)
@click.option(
    "--json",
    "file",
    type=NewFile(),
    metavar="FILE",
    help="Write them there too.",
)
@click.option("--mutations", is_flag=True, help="Plant known mistakes in a copy instead, and list which are caught.")
def crosscheck(
    algorithms: tuple[str, ...],
    rung: str | None,
    seeds: int | None,
    jobs: int,
    out: Path,
    file: Path | None,
    mutations: bool,
) -> None:
    """Compare entries, all or some, with Stable-Baselines3, or with an exact oracle where it has no twin.

    Exits with 1 if anything differs by more than its tolerance, or if a planted mistake goes unseen.
    """
    if mutations:
        passed = _mutations(list(algorithms), file)
    elif rung == "3":
        passed = _curves(list(algorithms), seeds, jobs, out)
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
        texts = [check.entry, cell, check.rung, check.reference, check.what, *numbers]
        table.add_row(*map(escape.terminal, texts), verdict)
    console().print(table)
    _write(file, [{**asdict(check), "passed": check.passed} for check in checks])
    failed = sum(not check.passed for check in checks)
    click.echo(f"{len(checks)} checks, {failed} failed" if failed else f"{len(checks)} checks, all equal")
    return not failed


def _curves(names: list[str], num_seeds: int | None, jobs: int, out: Path) -> bool:
    from zoo.bench import equivalence
    from zoo.bench.queue import LocalQueue
    from zoo.bench.store import Store
    from zoo.bench.summary import find_trials, summarise, to_json

    sweep = equivalence.twins(names, num_seeds)
    with dispensable_output(out) as say, open_folder(out, make=True) as folder, folder.locked():
        store = Store(folder)
        missing = announce(sweep, store, jobs)
        failed = train(missing, store, LocalQueue(jobs), say) if missing else 0
        comparisons = equivalence.compare(sweep, find_trials(sweep, store))
        verdicts = [verdict for each in comparisons for verdict in equivalence.judge(each)]
        for each in comparisons:
            equivalence.draw(each, folder)
        folder.write_text("curves.md", equivalence.markdown(verdicts))
        summary = summarise(sweep, store, title="zoo crosscheck, rung 3", command="zoo crosscheck --rung 3")
        folder.write_text("summary.json", json.dumps(to_json(summary), indent=1, ensure_ascii=False))
    table = Table("entry", "env", "measure", "zoo", "SB3", "difference (90%)", "margin", "verdict")
    for verdict in verdicts:
        colour = "[green]equivalent[/green]" if verdict.equivalent else "[bold red]not shown equivalent[/bold red]"
        table.add_row(*map(escape.terminal, equivalence.cells(verdict)), colour)
    console().print(table)
    click.echo(f"results, figures and table in {out}")
    tell_failed(failed)
    return not failed and all(verdict.equivalent for verdict in verdicts)


def _mutations(names: list[str], file: Path | None) -> bool:
    from zoo.crosscheck.mutations import plant

    table = Table("entry", "planted mistake", "caught by")
    outcomes = []
    for outcome in plant(names):
        outcomes.append(outcome)
        found = escape.terminal("; ".join(outcome.caught_by[:2]) or "NOTHING", "" if outcome.caught_by else "bold red")
        table.add_row(*map(escape.terminal, [outcome.entry, outcome.mistake]), found)
    console().print(table)
    _write(file, [asdict(outcome) for outcome in outcomes])
    caught = sum(bool(outcome.caught_by) for outcome in outcomes)
    click.echo(f"{caught} of {len(outcomes)} planted mistakes caught")
    return caught == len(outcomes)


def _write(file: Path | None, data: list[dict[str, Any]]) -> None:
    if file is not None:
        with open_folder(file.parent) as folder:
            folder.write_product(file.name, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())
