"""Texts from elsewhere come out of every format as the text that they are."""

import csv
import io
import json
import re
import unicodedata
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console
from rich.table import Table

from zoo.bench import escape
from zoo.bench.plan import plan
from zoo.bench.store import Store
from zoo.cli import cli
from zoo.storage.files import open_folder

TEXTS = [
    "[/red] [bold",
    "[bold red]done[/]",
    ":smile: \\",
    "a|b`c",
    "``a`",
    "\x1b[2J\x07\x9b2J",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)> &amp; <!--",
    "50% & $x_1$ #{~^\\",
    "$\\frac",
    "*a* _b_ [c](javascript:d) ~~e~~ | --- |",
    "=cmd()",
    " +1; @sum\t-2",
    "one\ntwo\r\nthree\u2028four",
    "\u202eevil \ud800",
    "x" * 10_000,
    "",
]


def shown(text: str) -> str:
    """What a reader should see: one line without control characters, of at most 300 characters."""
    kept = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u202e\ud800]", " ", text).split())
    return kept if len(kept) <= 300 else f"{kept[:299]}…"


def cells_of(markdown: str) -> list[list[str]]:
    """The text of each cell of a table, row by row; all that is no text is an error."""
    rows: list[list[str]] = []
    for token in MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("th_open", "td_open"):
            rows[-1].append("")
        if token.type == "inline" and rows:
            rows[-1][-1] = text_of(token)
    return rows


def text_of(token: Token) -> str:
    children = token.children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    return "".join(child.content for child in children)


@pytest.mark.parametrize("text", TEXTS)
def test_a_terminal_shows_the_text(text: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=1000, force_terminal=True, color_system=None)
    table = Table(box=None, padding=0, show_header=False)
    table.add_row(escape.terminal(text))
    console.print(table)
    console.print("> ", escape.terminal(text), sep="")
    cell, line, end = out.getvalue().split("\n")
    assert [cell.rstrip(), line, end] == [shown(text), f"> {shown(text)}", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_has_one_cell_with_the_text(text: str) -> None:
    table = f"| a | b |\n| --- | --- |\n| {escape.markdown(text)} | c |\n"
    assert cells_of(table) == [["a", "b"], [shown(text), "c"]]


@pytest.mark.parametrize("text", [text for text in TEXTS if text])
def test_markdown_has_one_span_of_code(text: str) -> None:
    (block,) = [token for token in MarkdownIt().parse(f"{escape.markdown_code(text)}, c") if token.type == "inline"]
    span, rest = block.children or []
    assert (span.type, rest.content) == ("code_inline", ", c")
    assert span.content.strip()[:299] == shown(text)[:299]


COMMANDS = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
COMMANDS |= {"textbar": "|", "textquotedbl": '"'}


@pytest.mark.parametrize("text", TEXTS)
def test_latex_sets_the_text(text: str) -> None:
    """As TeX reads it: a command, an escaped special, or a character that is none."""
    parts = re.findall(r"\\([a-z]+)\{\}|\\([&%$#_{}])|([^\\&%$#_{}~^])|(.)", escape.latex(text), re.DOTALL)
    assert not any(special for *_, special in parts)
    assert "".join(COMMANDS.get(command, "") + escaped + plain for command, escaped, plain, _ in parts) == shown(text)


@pytest.mark.parametrize("text", TEXTS)
def test_a_spreadsheet_has_one_cell_of_text(text: str) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([escape.spreadsheet(text), "c"])
    assert out.getvalue().count("\n") == 1
    ((cell, rest),) = csv.reader(io.StringIO(out.getvalue()))
    assert rest == "c"
    assert not re.match(r"\s*[=+\-@]", cell)
    assert cell.removeprefix("'") == shown(text)


@pytest.mark.parametrize("text", TEXTS)
def test_a_figure_has_the_text_and_no_mathematics(text: str) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure()
    canvas = FigureCanvasSVG(figure)
    figure.suptitle(escape.figure(text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that the font has not
        canvas.print_svg(out := io.StringIO())
    assert "mathtext" not in out.getvalue()


@pytest.mark.parametrize("text", TEXTS)
def test_a_script_element_holds_the_text(text: str) -> None:
    class Script(HTMLParser):
        data = ""
        closed = 0

        def handle_data(self, data: str) -> None:
            self.data += data

        def handle_endtag(self, tag: str) -> None:
            self.closed += 1

    page = Script()
    page.feed(f"<script>{escape.script([text])}</script>")
    assert page.closed == 1
    assert json.loads(page.data) == [text]


@pytest.mark.parametrize("text", ["a|b`c", "<img src=x>", "*a*", "[a](b)"])
def test_control_unescaped_text_is_more_than_text(text: str) -> None:
    with pytest.raises(AssertionError):
        assert cells_of(f"| a | b |\n| --- | --- |\n| {text} | c |\n") == [["a", "b"], [text, "c"]]


# The whole way


def test_errors_of_jobs_reach_every_output_as_text(tmp_path: Path) -> None:
    sweep = plan("quick", algorithms=[], envs=[], seeds=1)
    with open_folder(tmp_path) as folder:
        store = Store(folder)
    learners = [job for job in sweep.jobs if job.algorithm]
    errors = {(job.algorithm, job.env): TEXTS[i % len(TEXTS)] for i, job in enumerate(learners)}
    for job in learners:
        store.add(job, "failed", {"error": errors[job.algorithm, job.env]})
    store.close()
    result = CliRunner().invoke(cli, ["bench", "--no-train", "--seeds", "1", "--out", str(tmp_path)])
    assert result.exception is None
    assert not [mark for mark in result.output if mark != "\n" and unicodedata.category(mark) == "Cc"]
    tables = (tmp_path / "table.md").read_text()
    found = cells_of(tables[tables.index("| cell") : tables.index("### Norm")])
    rows: list[dict[str, Any]] = json.loads((tmp_path / "summary.json").read_text())["rows"]
    for row, (_, name, *cells) in zip(rows, found[1:], strict=True):
        for env, cell in zip(sweep.envs, cells, strict=True):
            if (name, env) in errors:
                assert cell == f"failed: {shown(errors[name, env])}".strip()
                assert row["cells"][env]["reason"].encode(errors="replace") == errors[name, env].encode(
                    errors="replace"
                )
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert len(lines) == len(sweep.rows) * len(sweep.envs)
    assert {line["status"] for line in lines} == {"failed", "missing", "unsupported"}
    assert (tmp_path / "report.html").read_text().count("<script") == 2
