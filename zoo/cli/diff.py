"""zoo diff: what two entries differ in, once what differs by name alone is gone. No torch is imported."""

import ast
import re
from difflib import SequenceMatcher, unified_diff
from importlib.util import find_spec
from pathlib import Path

import click
from rich.text import Text

from zoo import registry
from zoo.cli.display import console
from zoo.errors import UserError

STYLES = {"+": "green", "-": "red", "@": "cyan"}


def normalized(name: str) -> list[str]:
    """Return the lines of an entry's file, without its module docstring and its imports.

    Its class is called Algo and its Config AlgoConfig, in docstrings too. Raises UserError if there is no such entry or
    no such file.
    """
    module, _, cls = registry.get(name).path.partition(":")
    text = _source(name, module)
    body = ast.parse(text).body
    dropped = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)]
    numbers = {number for node in dropped for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    kept = [line for number, line in enumerate(text.splitlines(), 1) if number not in numbers]
    return re.sub(rf"\b{cls}(Config)?\b", r"Algo\1", "\n".join(kept)).strip().splitlines()


def _source(name: str, module: str) -> str:
    try:
        spec = find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"algorithm {name!r}: there is no module {module}")
    return Path(spec.origin).read_text(encoding="utf-8")


def hunks(one: str, other: str) -> list[list[str]]:
    """Each run of changed lines on the way from one entry to another: what goes, after "-", and what comes, "+"."""
    before, after = normalized(one), normalized(other)
    codes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return [
        [f"-{line}" for line in before[i:j]] + [f"+{line}" for line in after[k:m]]
        for tag, i, j, k, m in codes
        if tag != "equal"
    ]


@click.command()
@click.argument("one")
@click.argument("other")
def diff(one: str, other: str) -> None:
    """Show what two entries differ in (dqn sarsa): flip one axis, and read the change.

    Their files are compared without module docstring and imports, and with one name for their classes.
    """
    lines = list(unified_diff(normalized(one), normalized(other), one, other, lineterm=""))
    for line in lines:
        console().print(Text(line, STYLES.get(line[0], "")), soft_wrap=True)
    changed = sum(len(hunk) for hunk in hunks(one, other))
    click.echo(f"{changed} lines differ between {one} and {other}")
