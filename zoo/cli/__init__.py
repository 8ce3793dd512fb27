"""The command line: zoo run | eval | watch | list | lookup | show | crosscheck | bench."""

import sys
from collections.abc import Sequence

import click

from zoo.cli.bench import bench
from zoo.cli.crosscheck import crosscheck
from zoo.cli.taxonomy import list_, lookup
from zoo.cli.train import evaluate, run, show, watch
from zoo.errors import UserError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="actor-critic-zoo", prog_name="zoo")
def cli() -> None:
    """Actor-critic algorithms on a cube of three questions: strategy x data x target.

    Start with: zoo run ppo --env Pendulum
    """


for command in (run, evaluate, watch, list_, lookup, show, crosscheck, bench):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 the user's mistake (one line on stderr), 130 interrupted, 1 a failure."""
    try:
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
    except (click.Abort, KeyboardInterrupt):
        click.echo("zoo: interrupted", err=True)
        code = 130
    sys.exit(code)
