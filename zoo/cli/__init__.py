"""The command line: zoo run | eval | watch | list | lookup | diff | show | crosscheck | bench."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from zoo.cli.bench import bench
from zoo.cli.crosscheck import crosscheck
from zoo.cli.diff import diff
from zoo.cli.output import standard_streams
from zoo.cli.taxonomy import list_, lookup
from zoo.cli.train import evaluate, run, show, watch
from zoo.errors import Interrupted, RunError, UserError, closest

# What other programs call these commands.
WORDS = {"train": "run", "learn": "run", "play": "watch", "enjoy": "watch", "benchmark": "bench"}


class Commands(click.Group):
    """The commands; an unknown one is refused with the nearest."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            match = closest(args[0], {*self.commands, *WORDS})
            known = f"known: {', '.join(sorted(self.commands))}"
            hint = known if match is None else f"did you mean {WORDS.get(match, match)!r}?"
            raise UserError(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="actor-critic-zoo", prog_name="zoo")
def cli() -> None:
    """Actor-critic algorithms on a cube of three questions: strategy x data x target.

    Start with: zoo run ppo --env Pendulum
    """


for command in (run, evaluate, watch, list_, lookup, diff, show, crosscheck, bench):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit.

    0 done; 1 a failure of this package; 2 the user's mistake; 3 an environment failed; 4 training diverged; 5 the
    run's folder cannot be written; 6 actors failed; 129, 130 and 143 stopped by SIGHUP, Ctrl-C and SIGTERM.
    """
    with standard_streams():
        code = _main(sys.argv[1:] if arguments is None else arguments)
    sys.exit(code)


def _main(arguments: Sequence[str]) -> int:
    """The exit code of a command; what went wrong is said on standard error."""
    try:
        check_text(arguments)
        cli.main(args=arguments, prog_name="zoo", standalone_mode=False)
        code = 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        code = 2
    except click.ClickException as error:
        click.echo(f"zoo: {error.format_message()}", err=True)
        code = 2
    except UserError as error:
        click.echo(f"zoo: {error}", err=True)
        code = 2
    except RunError as error:
        click.echo(f"zoo: {error}", err=True)
        code = error.code
    except (click.Abort, KeyboardInterrupt) as error:
        stopped = error.__cause__ if isinstance(error, click.Abort) else error  # click makes an Abort of it
        click.echo(f"zoo: {stopped if isinstance(stopped, Interrupted) else 'interrupted'}", err=True)
        code = stopped.code if isinstance(stopped, Interrupted) else 130
    return code


def check_text(arguments: Sequence[str]) -> None:
    """Raise UserError for an argument that cannot name a file: no text of the terminal, or with a NUL byte."""
    for argument in arguments:
        if "\0" in argument:
            raise UserError(f"the argument {argument!r} has a NUL byte; choose another name")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UserError(f"the argument {argument!r} is not UTF-8; choose another name") from None
