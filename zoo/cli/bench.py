"""zoo bench: every entry on every environment that it supports, over several seeds, in one table."""

import json
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from zoo.bench import escape
from zoo.cli.display import console
from zoo.cli.options import Count, NewFile, flag, names
from zoo.cli.output import dispensable_output
from zoo.cli.sweep import announce, list_jobs, tell_failed, train
from zoo.config import build, field_info
from zoo.errors import UserError
from zoo.settings import Run
from zoo.storage.files import Folder, open_folder

if TYPE_CHECKING:
    from zoo.bench.plan import Plan
    from zoo.bench.queue import Queue
    from zoo.bench.store import Store

PRESETS = ["quick", "standard", "full", "twins"]
NAMES = "Comma-separated; all if left out."


def _with_ray(ctx: click.Context, param: click.Parameter, address: str | None) -> str | None:
    if address is not None and ctx.params["engine"] != "ray":
        raise UserError(f"--ray-address {address} is for --engine ray")
    return address


@click.group(invoke_without_command=True)
@click.option("--preset", type=click.Choice(PRESETS), default="quick", help="How much.  [quick]")
@click.option("--algos", metavar="A,B", help=f"Algorithms. {NAMES}")
@click.option("--envs", metavar="A,B", help=f"Environments, the preset's or others. {NAMES}")
@click.option("--seeds", type=Count(min=1, max=1000), help="Seeds of each; the preset says how many.")
@click.option("--jobs", type=Count(min=1), default=2, help="Runs at the same time, one thread each.  [2]")
@click.option("--against", type=click.Choice(["sb3"]), help="Train Stable-Baselines3's twins beside the entries.")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", is_eager=True, help="Where jobs run.  [local]"
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    callback=_with_ray,
    help="An existing Ray cluster; without it one is started here.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench"), metavar="DIR", help="Results.  [bench]")
@click.option("--pair", metavar="A,B", help="Print how likely a run of A is to beat one of B, on each environment.")
@click.option("--dry-run", is_flag=True, help="List the jobs and an estimate of the time, and train nothing.")
@click.option("--no-train", is_flag=True, help="Only write tables, figures and the report of what is done so far.")
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    preset: str,
    algos: str | None,
    envs: str | None,
    seeds: int | None,
    jobs: int,
    against: str | None,
    engine: str,
    ray_address: str | None,
    out: Path,
    pair: str | None,
    dry_run: bool,
    no_train: bool,
    **own: str | None,
) -> None:
    """Train every entry on the environments that it supports, and print one table with intervals.

    Stop it at any moment and start it again: finished jobs are kept. Tables, figures and a report are in --out.
    `zoo bench speed` measures steps a second instead.
    """
    if ctx.invoked_subcommand is not None:
        return
    from zoo.bench.store import Store

    sweep = _plan(preset, names("--algos", algos), names("--envs", envs), seeds, against, own)
    compared = None if pair is None else _pair(pair, sweep)
    with dispensable_output(out) as say, open_folder(out, make=True) as folder:
        store = Store(folder)
        if dry_run:
            list_jobs(sweep, store, jobs)
            return
        with nullcontext() if no_train else folder.locked():  # another sweep may have done some until now
            missing = announce(sweep, store, jobs)
            failed = 0 if no_train or not missing else train(missing, store, _queue(engine, ray_address, jobs), say)
        _publish(sweep, store, preset, folder)
        _compare(sweep, store, compared)
        tell_failed(failed)
        say("at the end")


def _plan(
    preset: str,
    algorithms: list[str],
    envs: list[str],
    seeds: int | None,
    against: str | None,
    given: dict[str, str | None],
) -> "Plan":
    """Plan the sweep; `given` are settings of all runs. Raises UserError for names and values that do not exist."""
    from zoo.bench.plan import plan

    named = {name: value for name, value in given.items() if value is not None}
    run = build(Run, named, "zoo bench")
    own = {name: getattr(run, name) for name in named}
    return plan(preset, algorithms=algorithms, envs=envs, seeds=seeds, against=against, own=own)


# Settings of all runs.
bench.params += [flag(name, field_info(Run)[name]) for name in ("total_steps", "env_kwargs", "wrap", "action_masks")]


@bench.command()
@click.option("--against", metavar="A,B", default="sb3", help="Peers to measure beside: sb3, sbx; or none.  [sb3]")
@click.option("--algos", metavar="A,B", help=f"Algorithms. {NAMES}")
@click.option("--repeat", type=Count(min=1), default=9, help="Turns of each side.  [9]")
@click.option("--json", "file", type=NewFile(), metavar="FILE", help="Write it there.")
def speed(against: str, algos: str | None, repeat: int, file: Path | None) -> None:
    """Measure env-steps a second while learning, beside peers with the same settings and beside the machine's limits.

    Nothing else should run meanwhile. Sides alternate, each at its own best number of threads.
    """
    from zoo.bench import speed as stopwatch

    peers = [] if against == "none" else names("--against", against)
    for name in peers:
        if name not in ("sb3", "sbx"):
            raise UserError(f"--against {name}: expected sb3, sbx, both with a comma, or none")
    if "sbx" in peers and find_spec("sbx") is None:
        raise UserError("SBX is not installed: pip install sbx-rl")
    table = Table(*stopwatch.header(peers), title="steps a second while learning, median of turns")
    results = []
    say = console(stderr=True).print
    for measured in stopwatch.measure(names("--algos", algos), against=peers, repeat=repeat, say=say):
        table.add_row(*map(escape.terminal, stopwatch.row(measured, peers)))
        results.append(measured.to_json())
        if file is not None:
            with open_folder(file.parent) as folder:
                folder.write_product(file.name, (json.dumps(results, indent=1) + "\n").encode())
    console().print(table)


def _pair(text: str, sweep: "Plan") -> tuple[str, str]:
    """Parse two rows of a sweep's table. Raises UserError if the table has no such rows."""
    pair = names("--pair", text)
    if len(pair) != 2:
        raise UserError(f"--pair {text!r}: expected two rows of the table, as in ppo,a2c or ppo,sb3/ppo")
    one, other = (name if "/" in name or name == "random" else f"zoo/{name}" for name in pair)
    known = [f"{side}/{name}" if name else side for side, name in sweep.rows]
    for name in (one, other):
        if name not in known:
            raise UserError(f"--pair: no row {name!r} in this sweep; there are: {', '.join(known)}")
    return one, other


def _command() -> str:
    """Return the command line of the whole sweep; options that only leave something out this time are not in it."""
    context = click.get_current_context()
    defaults = {param.name: param.default for param in context.command.params}
    flags = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in context.params.items()
        if not isinstance(value, bool | None) and value != defaults.get(name)
    ]
    masks = ["--action-masks"] if context.params["action_masks"] else []
    return " ".join(["zoo bench", *flags, *masks])


def _queue(engine: str, address: str | None, jobs: int) -> "Queue":
    if engine == "ray":
        from zoo.bench.cluster import RayQueue

        return RayQueue(address, jobs)
    from zoo.bench.queue import LocalQueue

    return LocalQueue(jobs)


def _publish(sweep: "Plan", store: "Store", preset: str, folder: Folder) -> None:
    from zoo.bench import figures, report, tables
    from zoo.bench.summary import summarise, to_json

    summary = summarise(sweep, store, title=f"zoo bench, preset {preset}", command=_command())
    console().print(tables.terminal(summary))
    data = to_json(summary)
    files = {
        "summary.json": json.dumps(data, indent=1, ensure_ascii=False),
        "table.md": tables.markdown(summary),
        "table.csv": tables.comma_separated(summary),
        "table.tex": tables.latex(summary),
        "report.html": report.report(data),
    }
    for name, text in files.items():
        folder.write_text(name, text)
    with folder.folder("figures", make=True) as inner:
        figures.draw(summary, inner)
    click.echo(f"tables, figures and report.html in {folder.path}")


def _compare(sweep: "Plan", store: "Store", rows: tuple[str, str] | None) -> None:
    if rows is None:
        return
    from zoo.bench.summary import finals, find_trials
    from zoo.statistics import estimate, probability_of_improvement

    (one, other), ends = rows, finals(find_trials(sweep, store))
    for env in sweep.envs:
        if (one, env) in ends and (other, env) in ends:
            chance = estimate(ends[one, env], ends[other, env], statistic=probability_of_improvement)
            interval = f"{chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}]"
            click.echo(f"{env}: a run of {one} beats one of {other} with probability {interval}")
