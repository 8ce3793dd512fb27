"""Texts from elsewhere (errors of jobs, names, what a store holds) on their way out: one function for each format."""

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
FORMULA = ("=", "+", "-", "@")  # what a cell of a spreadsheet begins with if it is to be worked out


def plain(text: object, limit: int = LIMIT) -> str:
    """One line of at most `limit` characters; control characters, which terminals obey, are spaces."""
    line = " ".join("".join(" " if unicodedata.category(mark)[0] == "C" else mark for mark in str(text)).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def terminal(text: object, style: str = "") -> Text:
    """For rich, which finds no markup in it."""
    return Text(plain(text), style=style)


def markdown(text: object) -> str:
    """For a cell of a table, or a line."""
    return plain(text).translate(MARKDOWN)


def markdown_code(text: object) -> str:
    """A span of code, within more backticks than there are in it."""
    line = plain(text, limit=10_000)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def latex(text: object) -> str:
    """For a cell of a table."""
    return plain(text).translate(LATEX)


def spreadsheet(text: object) -> str:
    """For a cell of a CSV file: text stays text."""
    line = plain(text)
    return f"'{line}" if line.startswith(FORMULA) else line


def figure(text: object) -> str:
    """For matplotlib, which finds no mathematics in it."""
    return plain(text).replace("$", r"\$")


def script(data: Any) -> str:
    """Data as JSON inside an HTML script element, which no string in it can close; a ValueError for NaN."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
