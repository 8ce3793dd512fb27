"""A summary as a table: for the terminal, Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Callable
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from zoo.bench import escape

Data = dict[str, Any]
NUMBERS = [
    "iqm",
    "low",
    "high",
    "normalized",
    "seeds",
    "failed_seeds",
    "steps_per_second",
    "seconds",
    "parameters",
    "memory",
]


def score(cell: Data, shown: Callable[[object], str] = escape.plain) -> str:
    """A cell in a few characters: the score and its interval, or why there is none; `shown` escapes text."""
    if cell["iqm"] is None:
        reason = shown(cell["reason"])
        return {"missing": "not run", "failed": f"failed: {reason}"}.get(cell["status"], reason)
    text = f"{cell['iqm']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]"
    text += f" ({cell['failed_seeds']} failed)" if cell["failed_seeds"] else ""
    return text + (f" without {', '.join(map(shown, cell['without']))}" if cell["without"] else "")


def terminal(summary: Data) -> Table:
    """Rows grouped by cell of the cube, a column for each environment."""
    title = escape.terminal(f"{summary['title']}: IQM of the final return [95%]", style="table.title")
    table = Table("cell", "entry", *(Column(escape.terminal(env)) for env in summary["envs"]), title=title)
    last = None
    for row in summary["rows"]:
        if last is not None and row["cell"] != last:
            table.add_section()
        cells = [row["cell"] or "" if row["cell"] != last else "", row["label"]]
        scores = [Text(score(row["cells"][env])) for env in summary["envs"]]
        table.add_row(*map(escape.terminal, cells), *scores)
        last = row["cell"]
    return table


def markdown(summary: Data) -> str:
    """Scores, then speed, time and size."""
    header = ["cell", "entry", *map(escape.markdown, summary["envs"])]
    blocks = []
    for title, show in (
        ("Final return, interquartile mean over seeds [95% interval]", _score),
        ("Normalised score: 0 is random, 1 the best published figure", lambda cell: _number(cell["normalized"], ".2f")),
        ("Steps a second, learning included, one thread", lambda cell: _number(cell["steps_per_second"], ",.0f")),
        ("Training time, s", lambda cell: _number(cell["seconds"], ",.0f")),
        ("Peak memory, MB", lambda cell: _number(cell["memory"] and cell["memory"] / 1e6, ",.0f")),
    ):
        rows = [
            [row["cell"] or "", escape.markdown(row["label"]), *(show(row["cells"][env]) for env in summary["envs"])]
            for row in summary["rows"]
        ]
        blocks.append(_block(title, header, rows))
    if summary["differences"]:
        differences = summary["differences"].items()
        rows = [
            [escape.markdown(name), *(_difference(found.get(env)) for env in summary["envs"])]
            for name, found in differences
        ]
        title = "Entry minus its Stable-Baselines3 twin, interquartile means [95% interval]"
        blocks.insert(1, _block(title, header[1:], rows))
    caption = f"{escape.markdown_code(summary['command'])}, commit {summary['commit']}, {summary['created'][:10]}."
    return f"{caption}\n\n" + "\n\n".join(blocks) + "\n"


def _score(cell: Data) -> str:
    return score(cell, escape.markdown)


def _block(title: str, header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _difference(found: Data | None) -> str:
    return "-" if found is None else f"{found['value']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def comma_separated(summary: Data) -> str:
    """A line for each entry and environment, with all numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cell", "side", "entry", "env", "status", "reason", *NUMBERS, "without"])
    for row in summary["rows"]:
        for env in summary["envs"]:
            cell = row["cells"][env]
            texts = [row["cell"] or "", row["side"], row["name"], env, cell["status"], cell["reason"] or ""]
            numbers = ["" if cell[key] is None else cell[key] for key in NUMBERS]
            without = escape.spreadsheet(" ".join(cell["without"]))
            writer.writerow([*map(escape.spreadsheet, texts), *numbers, without])
    return out.getvalue()


def latex(summary: Data) -> str:
    """A booktabs table of the scores; the best entry of each environment is bold."""
    found = {env: [row["cells"][env]["iqm"] for row in summary["rows"]] for env in summary["envs"]}
    best = {env: max((value for value in found[env] if value is not None), default=None) for env in found}
    lines = [
        r"\begin{tabular}{ll" + "r" * len(summary["envs"]) + "}",
        r"\toprule",
        " & ".join(["cell", "entry", *map(escape.latex, summary["envs"])]) + r" \\",
        r"\midrule",
    ]
    for row in summary["rows"]:
        cells = []
        for env in summary["envs"]:
            cell = row["cells"][env]
            if cell["iqm"] is None:
                cells.append("--")
                continue
            text = f"{cell['iqm']:.1f}"
            text = rf"\textbf{{{text}}}" if cell["iqm"] == best[env] else text
            cells.append(rf"{text} \scriptsize[{cell['low']:.1f}, {cell['high']:.1f}]")
        lines.append(" & ".join([*map(escape.latex, [row["cell"] or "", row["label"]]), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
