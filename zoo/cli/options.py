"""Flags made from the fields of the settings, one for each, with the field's own help text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic.fields import FieldInfo

from zoo import registry
from zoo.config import describe, field_info
from zoo.errors import UserError
from zoo.settings import Run


def flag(name: str, field: FieldInfo) -> click.Option:
    """The option for a field; text is checked where all settings are, so that messages are the same everywhere."""
    dashed = name.replace("_", "-")
    default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    description = f"{field.description}  [{'none' if default in ('', {}) else str(default).lower()}]"
    kind = describe(field)
    if kind.type is bool:
        return click.Option([f"--{dashed}/--no-{dashed}"], default=None, help=description)
    if kind.choices and not kind.optional:
        return click.Option([f"--{dashed}"], type=click.Choice(kind.choices), help=description)
    if kind.type is tuple:
        metavar = "N,N,..." if field.default else "A,B,..."
        return click.Option([f"--{dashed}"], metavar=metavar, multiple=True, callback=_joined, help=description)
    metavar = {int: "N", float: "X", dict: "JSON"}.get(kind.type, "TEXT")
    return click.Option([f"--{dashed}"], metavar=metavar, help=description)


def _joined(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> str | None:
    """A flag that is repeated says the same as one with commas."""
    return ",".join(values) if values else None


class NewFile(click.Path):
    """A file that a command writes, in a folder that is there: a typing error is found before any work is done."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        path = Path(str(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"{path} cannot be written: there is no folder {path.parent}", param, ctx)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            self.fail(f"{path} is no plain file, and would be replaced by one; name a new file", param, ctx)
        return path


class AlgorithmCommand(click.Command):
    """A command for one algorithm: the flags of the run, then those of the algorithm's Config, made when needed."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        config = registry.load_class(str(self.name)).Config
        settings = [flag(name, field) for cls in (Run, config) for name, field in field_info(cls).items()]
        return [*self.params, *settings, *([self.get_help_option(ctx)] if self.get_help_option(ctx) else [])]  # type: ignore[list-item]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        config = field_info(registry.load_class(str(self.name)).Config)
        groups: dict[str, list[tuple[str, str]]] = {"Run": [], f"{str(self.name).upper()} settings": []}
        run_rows, config_rows = groups.values()
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (config_rows if param.name in config else run_rows).append(record)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


class AlgorithmGroup(click.Group):
    """`zoo run ALGO`, `zoo show ALGO`: a subcommand for each algorithm of the registry."""

    def __init__(self, *args: Any, action: Callable[..., None], extra: list[click.Option], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.action, self.extra = action, extra

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(registry.load().algorithms)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        entry = registry.get(cmd_name)

        def callback(**values: Any) -> None:
            given = {key: value for key, value in values.items() if value is not None}
            self.action(cmd_name, **_split(given, {option.name for option in self.extra}))

        text = f"{entry.title}. {entry.paper}\n\n{entry.equation}"
        return AlgorithmCommand(cmd_name, params=list(self.extra), callback=callback, help=text, short_help=entry.title)


def _split(given: dict[str, Any], own: set[str | None]) -> dict[str, Any]:
    return {
        **{key: value for key, value in given.items() if key in own},
        "overrides": {key: value for key, value in given.items() if key not in own},
    }


def require_env(algorithm: str, env: str | None) -> str:
    """The environment, or a UserError that lists those with tuned settings."""
    if env is None:
        tuned = ", ".join(registry.get(algorithm).envs)
        raise UserError(f"which environment? Add --env ENV, for example one that {algorithm} is tuned for: {tuned}")
    return env
