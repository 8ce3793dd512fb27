"""Escape texts from elsewhere (errors of jobs, names, rows of a store): one function for each output format."""

import json
import re
import unicodedata
from typing import Any

from rich.text import Text

LIMIT = 300  # characters
MARKDOWN = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {mark: f"\\{mark}" for mark in "\\`*_[]|~$#"})
LATEX = str.maketrans(
    {mark: rf"\{mark}" for mark in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
    }
)
FORMULA = ("=", "+", "-", "@")  # the first character of a cell that a spreadsheet evaluates


def plain(text: object, limit: int = LIMIT) -> str:
    """Return one line of at most `limit` characters; control characters become spaces."""
    line = " ".join("".join(" " if unicodedata.category(mark)[0] == "C" else mark for mark in str(text)).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def terminal(text: object, style: str = "") -> Text:
    """Escape for rich, which would interpret markup."""
    return Text(plain(text), style=style)


def markdown(text: object) -> str:
    """Escape for Markdown: a cell of a table, or a line."""
    return plain(text).translate(MARKDOWN)


def markdown_code(text: object) -> str:
    """Return a span of code, enclosed in more backticks than the text contains in a row."""
    line = plain(text, limit=10_000)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def latex(text: object) -> str:
    """Escape for LaTeX: a cell of a table."""
    return plain(text).translate(LATEX)


def spreadsheet(text: object) -> str:
    """Escape for a CSV file, so that a spreadsheet evaluates no text as a formula."""
    line = plain(text)
    return f"'{line}" if line.startswith(FORMULA) else line


def figure(text: object) -> str:
    """Escape for matplotlib, which would interpret dollar signs as mathematics."""
    return plain(text).replace("$", r"\$")


def script(data: Any) -> str:
    """Return data as JSON for an HTML script element that no string in it can close. Raises ValueError for NaN."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
