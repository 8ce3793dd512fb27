"""zoo list and zoo lookup: the cube, its cells and its algorithms. No torch is imported unless a class is asked for."""

import json
from typing import Any

import click
from rich.table import Table

from zoo import registry
from zoo.cli.display import console
from zoo.errors import UserError, nearest
from zoo.taxonomy import AXES, Cell, Data, Strategy, Target


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """Show the cube: each cell with its algorithms."""
    if as_json:
        click.echo(json.dumps([cell_json(cell) for cell in registry.find()], indent=2, ensure_ascii=False))
        return
    table = Table("strategy", "data", "target Q: Q(s, a)", "target V: V(s)", show_lines=True)
    for strategy in Strategy:
        for data in Data:
            cells = [Cell(f"{strategy}/{data}/{target}") for target in Target]
            table.add_row(strategy, f"{data}-policy", *(_describe(cell) for cell in cells))
    console().print(table)
    click.echo("zoo lookup CELL or ALGORITHM tells more; zoo run ALGORITHM --env ENV trains one.")


def _describe(cell: Cell) -> str:
    entry = registry.find(strategy=cell.strategy, data=cell.data, target=cell.target)[cell]
    return "[bold]" + ", ".join(entry.algorithms) + "[/bold]" + (" [dim]with a model[/dim]" if entry.model else "")


@click.command()
@click.argument("what", required=False)
@click.option("--strategy", metavar="value|policy", help="Cells with this strategy.")
@click.option("--data", metavar="off|on", help="Cells with this data.")
@click.option("--target", metavar="q|v", help="Cells with this target.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lookup(what: str | None, strategy: str | None, data: str | None, target: str | None, as_json: bool) -> None:
    """Look up a cell (policy/on/v), some axes (--data on --target q), or an algorithm (ppo)."""
    axes = {"strategy": strategy, "data": data, "target": target}
    if what is not None and any(axes.values()):
        raise UserError(f"give either {what!r} or axes, not both")
    if what is None and not any(axes.values()):
        raise UserError("what? A cell (policy/on/v), axes (--data on --target q) or an algorithm (ppo)")
    if what is not None and "/" not in what:
        _lookup_algorithm(what, as_json)
        return
    cells = registry.find(**axes) if what is None else {Cell(what): registry.load().cells[str(Cell(what))]}
    if as_json:
        click.echo(json.dumps([cell_json(cell) for cell in cells], indent=2, ensure_ascii=False))
        return
    for cell, entry in cells.items():
        click.echo(f"{cell}")
        for name in entry.algorithms:
            algorithm = registry.get(name)
            click.echo(f"  {name}: {algorithm.title} ({algorithm.paper})\n    {algorithm.equation}")
        if entry.model:
            click.echo(f"  no model-free entry can stand here: {entry.model}")


def _lookup_algorithm(name: str, as_json: bool) -> None:
    known = registry.load().algorithms
    axis = next((axis for axis, cls in AXES.items() if name.lower() in [*cls]), None)
    if name not in known and axis is not None:
        raise UserError(f"{name!r} is one value of an axis; its cells: zoo lookup --{axis} {name.lower()}")
    if name not in known:
        raise UserError(f"{name!r} is neither a cell (strategy/data/target) nor an algorithm{nearest(name, known)}")
    facts = algorithm_json(name)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    click.echo(f"{name}: {facts['title']}")
    for axis, cls in AXES.items():
        value = getattr(registry.load().cell_of(name), axis)
        click.echo(f"  {axis:9} {value:7} {(cls.__doc__ or '').strip()}")
    settings = [env if env in facts["tuned"] else f"{env} (not measured)" for env in facts["settings"]]
    for label, value in (facts | {"settings": settings or "defaults"}).items():
        if label in ("equation", "paper", "source", "actions", "settings"):
            click.echo(f"  {label:9} {', '.join(value) if isinstance(value, list) else value}")
    click.echo(f"  next      zoo run {name} --env {next(iter(facts['settings']), 'ENV')}")


def cell_json(cell: Cell) -> dict[str, Any]:
    """Return a cell as plain data."""
    entry = registry.load().cells[str(cell)]
    return {
        "cell": str(cell),
        **{axis: str(getattr(cell, axis)) for axis in AXES},
        "algorithms": entry.algorithms,
        "model": entry.model,
    }


def algorithm_json(name: str) -> dict[str, Any]:
    """Return an algorithm as plain data; `tuned` are the environments whose settings have a score on record."""
    entry, measured = registry.get(name), registry.scores(name)
    return {
        "algorithm": name,
        "title": entry.title,
        "cell": str(registry.load().cell_of(name)),
        "equation": entry.equation,
        "paper": entry.paper,
        "class": entry.path,
        "source": entry.source,
        "actions": [space.__name__ for space in registry.load_class(name).spaces],
        "settings": list(entry.envs),
        "tuned": [env for env in entry.envs if env in measured],
    }
