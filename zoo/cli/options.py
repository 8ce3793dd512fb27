"""Flags made from the fields of the settings, one for each, with the field's own help text."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic.fields import FieldInfo

from zoo import registry
from zoo.config import describe, field_info, whole_number
from zoo.errors import UserError, closest
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


class Folder(click.Path):
    """A folder, which has a name."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("'' names no folder", param, ctx)
        return super().convert(value, param, ctx)


class Count(click.IntRange):
    """A whole number, which may be written as 1e3 or 1k."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number: Any = whole_number(value) if isinstance(value, str) else value
        return super().convert(number, param, ctx)


def names(flag: str, text: str | None) -> list[str]:
    """Return the names in `A,B`; none if the flag was left out. Raises UserError if it was given without a name."""
    found = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not found:
        raise UserError(f"{flag} {text!r} names nothing; expected names with commas between them, or leave it out")
    return found


class RunCommand(click.Command):
    """A command on a saved run."""

    allow_extra_args = True  # they are refused with a better hint than click's

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            usage = f"{ctx.command_path} {shlex.quote(str(ctx.params['run']))} --env {shlex.quote(extra[0])}"
            raise UserError(f"unexpected argument {extra[0]!r}; an environment is named by --env: {usage}")
        return extra


class AlgorithmCommand(click.Command):
    """A command for one algorithm: the flags of the run, then those of the algorithm's Config, made when needed."""

    allow_extra_args = True  # they are refused with a better hint than click's

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            extra = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name == "--resume":
                raise UserError("the folder of a run names its algorithm: zoo run --resume RUN") from None
            raise UserError(f"no such option {error.option_name}{self._hint(ctx, error.option_name)}") from None
        if extra and not ctx.resilient_parsing:
            usage = f"an environment is named by --env: {ctx.command_path} --env {shlex.quote(extra[0])}"
            settings = f"settings are flags: {ctx.command_path} --help"
            raise UserError(f"unexpected argument {extra[0]!r}; {settings if ctx.params['env'] else usage}")
        return extra

    def _hint(self, ctx: click.Context, flag: str) -> str:
        """Return the flag that was meant, or where all are listed."""
        flags = [each for param in self.get_params(ctx) for each in (*param.opts, *param.secondary_opts)]
        names = {each.lstrip("-").replace("-", "_"): each for each in flags}
        name = closest(flag.lstrip("-").replace("-", "_"), names)
        return f"; {ctx.command_path} --help lists them" if name is None else f"; did you mean {names[name]}?"

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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            mine = {flag for option in self.extra for flag in option.opts}
            settings = {f"--{name.replace('_', '-')}" for name in field_info(Run)}
            if "--resume" in given:
                resumed = f"--resume takes everything from the run's folder: leave out {error.option_name}"
                raise UserError(resumed) from None
            if error.possibilities and error.option_name not in mine | settings:
                raise
        name = next((word for word in given if word in registry.load().algorithms), None)
        rest = shlex.join(word for word in given if word != name)
        raise UserError(f"which algorithm? Put it first: {ctx.command_path} {name or 'ALGORITHM'} {rest}")

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
    """Return the environment. Raises UserError, which lists those with settings in the registry, if none was given."""
    if env is None:
        known = ", ".join(registry.get(algorithm).envs)
        raise UserError(f"which environment? Add --env ENV{f', for example {known}' if known else ''}")
    return env
