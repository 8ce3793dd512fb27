"""zoo run, eval, watch and show."""

import json
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from zoo import registry
from zoo.cli.display import console, stages
from zoo.cli.options import AlgorithmGroup, Count, Folder, NewFile, RunCommand, flag, require_env
from zoo.cli.output import dispensable_output
from zoo.config import field_info
from zoo.errors import UserError
from zoo.settings import Run, Settings, resolve

if TYPE_CHECKING:
    from zoo.envs.task import Task
    from zoo.runs.recorder import Result
    from zoo.storage.untrusted import Row
    from zoo.training.evaluation import Evaluation

PRESET = click.Option(["--preset"], metavar="NAME", help="Settings of the registry under the tuned ones: sb3.")
CHECKPOINT = click.Option(
    ["--checkpoint-every"], metavar="STEPS|Nmin", help="How often to keep all of a run's state.  [5min]"
)
QUIET = click.Option(["--quiet"], is_flag=True, help="Print the run's folder and nothing else.")
ENV = click.Option(
    ["--env"], metavar="ENV", help="Gymnasium id (without a version the newest), package:Id-v0 or file.py:make_env."
)


def _run(
    algorithm: str,
    overrides: dict[str, Any],
    env: str | None = None,
    preset: str | None = None,
    out: Path | None = None,
    init: Path | None = None,
    checkpoint_every: str | None = None,
    quiet: bool = False,
) -> None:
    from zoo import runs
    from zoo.runs.checkpointer import EVERY

    env = require_env(algorithm, env)
    settings = runs.prepare(algorithm, env, overrides, source="command line", preset=preset)
    folder = out or runs.default_folder(settings)
    runs.check_new(folder)
    every = EVERY if checkpoint_every is None else checkpoint_every
    train = partial(runs.run, settings, env, out=folder, init=init, checkpoint_every=every)
    _watched(train, settings, folder, quiet=quiet)


@click.pass_context
def _resume(
    ctx: click.Context,
    /,
    resume: Path | None,
    env: str | None,
    total_steps: str | None,
    checkpoint_every: str | None,
    quiet: bool,
    **repeated: str | None,
) -> None:
    given: dict[str, Any] = {name: value for name, value in repeated.items() if value is not None}
    if resume is None and env is not None:
        name = ctx.invoked_subcommand or "ALGORITHM"
        raise UserError(f"which algorithm? Put it first: zoo run {name} --env {shlex.quote(env)}")
    if resume is None:
        if total_steps or checkpoint_every or quiet or given:
            raise UserError("put the algorithm first: zoo run ALGORITHM --env ENV [SETTINGS]...; or add --resume RUN")
        return
    if ctx.invoked_subcommand is not None:
        raise UserError("--resume takes everything from the run's folder, but --total-steps: leave out the algorithm")
    from zoo import runs
    from zoo.runs.checkpointer import EVERY

    settings = runs.resumed_settings(resume, total_steps, given, env=env)
    every = EVERY if checkpoint_every is None else checkpoint_every
    train = partial(runs.resume, resume, env, total_steps=settings.run.total_steps, checkpoint_every=every, **given)
    _watched(train, settings, resume, quiet=quiet)


def _watched(train: Callable[..., "Result"], settings: Settings, folder: Path, *, quiet: bool) -> None:
    """Train, and show rows and result until standard output goes away."""
    from zoo.runs.display import display

    with dispensable_output(folder) as say, _warnings_as_lines():
        with display(settings, folder, quiet=quiet) as update:

            def on_row(row: "Row") -> None:
                update(row)
                say(f"step {row['step']:,}")

            result = train(on_row=on_row)
        _report(result, folder, quiet=quiet)
        say("at the end")


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        click.echo(f"zoo: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _report(result: "Result", folder: Path, *, quiet: bool) -> None:
    if quiet:
        click.echo(folder)
    else:
        _summarise(result, folder)


def _summarise(result: "Result", folder: Path) -> None:
    from zoo.runs import command

    click.echo(f"trained in   {timedelta(seconds=round(result.seconds))} ({result.seconds:.1f} s)")
    if result.stopped is not None:
        click.echo(f"stopped at   {result.stopped}")
    if result.evaluation is not None:
        click.echo(f"evaluation   {_describe(result.evaluation)}")
    click.echo(f"saved in     {folder}")
    watch, again = (command(name, folder, result.settings) for name in ("watch", "eval"))
    click.echo(f"next         {watch}   or   {again} --episodes 1000")


def _describe(evaluation: "Evaluation") -> str:
    episodes = f"{len(evaluation.returns)} fixed-seed episodes"
    return f"return {evaluation.mean:.1f} ± {evaluation.std:.1f} (mean ± std of {episodes})"


def repeated(name: str) -> click.Option:
    """Return the flag by which `--resume` is told a setting that the run's folder has, too."""
    option = flag(name, field_info(Run)[name])
    option.help = "With --resume: repeats what the run's folder says, where that leads to code or other machines."
    return option


run = AlgorithmGroup(
    "run",
    action=_run,
    extra=[
        ENV,
        PRESET,
        click.Option(["--out"], type=Folder(), metavar="DIR", help="The run's folder, a new one."),
        click.Option(
            ["--from", "init"],
            type=Folder(),
            metavar="RUN",
            help="Start from a saved agent's weights.",
        ),
        CHECKPOINT,
        QUIET,
    ],
    callback=_resume,
    invoke_without_command=True,
    no_args_is_help=True,
    params=[
        click.Option(["--resume"], type=Folder(), metavar="RUN", help="Go on with a run that was interrupted."),
        click.Option(["--total-steps"], metavar="N", help="With --resume: train for so many steps in all."),
        click.Option(["--env"], metavar="ENV", help="With --resume: an environment of your own, as it is named now."),
        *(repeated(name) for name in ("engine", "ray_address", "actors", "num_envs", "wrap", "env_kwargs")),
        CHECKPOINT,
        QUIET,
    ],
    help="Train an algorithm: zoo run ppo --env Pendulum. Every setting is a flag: zoo run ppo --help.",
    subcommand_metavar="ALGORITHM --env ENV [SETTINGS]...",
)


def _show(
    algorithm: str,
    overrides: dict[str, Any],
    env: str | None = None,
    preset: str | None = None,
    json: bool = False,
) -> None:
    if env is not None:
        from zoo.envs.ids import resolve_id

        env = resolve_id(env)
    settings = resolve(algorithm, env or "", overrides, preset=preset)
    for name in settings.run.wrap:
        from zoo.envs.ids import load_name

        load_name(name, "wrap")
    if json:
        click.echo(_dump(settings.to_json()))
        return
    known = registry.get(algorithm).envs
    title = f"{algorithm} on {env}" if env else algorithm
    if env not in known:
        title += f": defaults (the registry has settings for {', '.join(known) or 'no environment'})"
    table = Table("setting", "value", "from", "what it is", title=title, title_justify="left")
    for owner in (settings.run, settings.config):
        for name, field in field_info(type(owner)).items():
            value = getattr(owner, name)
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            source = settings.sources[name]
            style = "" if source == "default" else "bold"
            table.add_row(name, text, source, field.description, style=style)
        table.add_section()
    console().print(table)
    score = registry.scores(algorithm).get(env or "")
    if score is not None and set(settings.sources.values()) <= {"default", "registry"}:
        click.echo(f"expect a return of about {score}")


def _dump(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


show = AlgorithmGroup(
    "show",
    action=_show,
    extra=[ENV, PRESET, click.Option(["--json"], is_flag=True, help="Print JSON.")],
    help="Show an algorithm's settings on an environment, and where each came from.",
    subcommand_metavar="ALGORITHM [--env ENV] [SETTINGS]...",
)

RUN = click.argument("run", type=Folder(), metavar="RUN")
WHICH = click.option("--which", type=click.Choice(["final", "best", "last"]), help="Which agent of the run.  [final]")
SEED = click.option("--seed", type=Count(min=0), default=0, help="Seed of the episodes.  [0]")


@click.command("eval", cls=RunCommand)
@RUN
@click.option("--episodes", type=Count(min=1), default=100, help="How many episodes.  [100]")
@SEED
@WHICH
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    run: Path, episodes: int, seed: int, which: str | None, as_json: bool, env: str | None, **given: Any
) -> None:
    """Evaluate a saved run again: the same figure for the same seed."""
    from zoo import runs
    from zoo.training.evaluation import evaluate

    record, task = _recorded(run, env, given)
    result = evaluate(runs.load(run, which), task, episodes=episodes, seed=seed)
    if as_json:
        click.echo(_dump(result.to_json()))
    else:
        click.echo(f"{record['algorithm']} on {env or record['env']}: {_describe(result)}")


def _recorded(run: Path, env: str | None, given: dict[str, Any]) -> tuple[dict[str, Any], "Task"]:
    """Return the record of a run's folder and what makes its environment."""
    from zoo import runs

    folder = runs.run_of(run)
    record, named = runs.settings_of(folder), {key: value for key, value in given.items() if value is not None}
    return record, runs.recorded_task(folder, record, env, named)


@click.command(cls=RunCommand)
@RUN
@click.option("--episodes", type=Count(min=1), default=1, help="How many episodes.  [1]")
@SEED
@WHICH
@click.option("--video", type=NewFile(), metavar="FILE", help="Write a .gif or .mp4 file instead.")
def watch(
    run: Path, episodes: int, seed: int, which: str | None, video: Path | None, env: str | None, **given: Any
) -> None:
    """Watch a saved run play, in a window or as a video."""
    from zoo import runs
    from zoo.runs.video import play, write

    (_, task), agent = _recorded(run, env, given), runs.load(run, which)
    if video is not None:
        with stages() as say:
            returns = write(agent, task, video, episodes=episodes, seed=seed, say=say)
    else:
        returns = play(agent, task, episodes=episodes, seed=seed)
    click.echo(f"return {', '.join(f'{value:.1f}' for value in returns)}{f' -> {video}' if video else ''}")


# What a run's environment is, where its folder does not say so, or must not.
for command in (evaluate, watch):
    command.params += [
        click.Option(["--env"], metavar="ENV", help="An environment of your own, or another one with the same spaces."),
        *(flag(name, field_info(Run)[name]) for name in ("env_kwargs", "wrap")),
    ]
