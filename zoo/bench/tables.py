"""Format a summary as a table: for the terminal, Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Callable

from rich.table import Column, Table
from rich.text import Text

from zoo.bench import escape
from zoo.bench.summary import Standing, Summary, cell_to_json
from zoo.statistics import Estimate

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


def score(standing: Standing, shown: Callable[[object], str] = escape.plain) -> str:
    """Format the score with its interval, or the reason why there is none; `shown` escapes text."""
    if standing.score is None:
        reason = shown(standing.reason)
        return {"missing": "not run", "failed": f"failed: {reason}"}.get(standing.status, reason)
    text = str(standing.score)
    text += f" ({standing.failed_seeds} failed)" if standing.failed_seeds else ""
    return text + (f" without {', '.join(map(shown, standing.without))}" if standing.without else "")


def terminal(summary: Summary) -> Table:
    """Make a table with rows grouped by cell of the cube, and a column for each environment."""
    title = escape.terminal(f"{summary.title}: IQM of the final return [95%]", style="table.title")
    table = Table("cell", "entry", *(Column(escape.terminal(env)) for env in summary.envs), title=title)
    last = None
    for row in summary.contenders:
        if last is not None and row.cell != last:
            table.add_section()
        cells = [row.cell or "" if row.cell != last else "", row.label]
        scores = [Text(score(row.standings[env])) for env in summary.envs]
        table.add_row(*map(escape.terminal, cells), *scores)
        last = row.cell
    return table


def markdown(summary: Summary) -> str:
    """Format the tables of scores, differences from twins, speed, time and memory."""
    blocks = [
        _markdown_block(summary, "Final return, interquartile mean over seeds [95% interval]", _markdown_score),
        *([_differences(summary)] if summary.differences else []),
        *(_markdown_block(summary, title, show) for title, show in MEASURES.items()),
    ]
    caption = f"{escape.markdown_code(summary.command)}, commit {summary.commit}, {summary.created[:10]}."
    return f"{caption}\n\n" + "\n\n".join(blocks) + "\n"


def _markdown_score(standing: Standing) -> str:
    return score(standing, escape.markdown)


MEASURES: dict[str, Callable[[Standing], str]] = {
    "Normalised score: 0 is random, 1 the best published figure": lambda standing: _number(
        None if standing.normalized is None else standing.normalized.value, ".2f"
    ),
    "Steps a second, learning included, one thread": lambda standing: _number(standing.steps_per_second, ",.0f"),
    "Training time, s": lambda standing: _number(standing.seconds, ",.0f"),
    "Peak memory, MB": lambda standing: _number(standing.memory and standing.memory / 1e6, ",.0f"),
}


def _markdown_block(summary: Summary, title: str, show: Callable[[Standing], str]) -> str:
    header = ["cell", "entry", *map(escape.markdown, summary.envs)]
    rows = [
        [row.cell or "", escape.markdown(row.label), *(show(row.standings[env]) for env in summary.envs)]
        for row in summary.contenders
    ]
    return f"### {title}\n\n{markdown_table(header, rows)}"


def _differences(summary: Summary) -> str:
    header = ["entry", *map(escape.markdown, summary.envs)]
    rows = [
        [escape.markdown(name), *(_difference(found.get(env)) for env in summary.envs)]
        for name, found in summary.differences.items()
    ]
    title = "Entry minus its Stable-Baselines3 twin, interquartile means [95% interval]"
    return f"### {title}\n\n{markdown_table(header, rows)}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Format a table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _difference(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def comma_separated(summary: Summary) -> str:
    """Format a line for each entry and environment, with all numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cell", "side", "entry", "env", "status", "reason", *NUMBERS, "without"])
    for row in summary.contenders:
        for env, standing in row.standings.items():
            cell = cell_to_json(standing)
            texts = [row.cell or "", row.side, row.name, env, standing.status, standing.reason or ""]
            numbers = ["" if cell[key] is None else cell[key] for key in NUMBERS]
            without = escape.spreadsheet(" ".join(standing.without))
            writer.writerow([*map(escape.spreadsheet, texts), *numbers, without])
    return out.getvalue()


def latex(summary: Summary) -> str:
    """Format a booktabs table of the scores; the best of each environment is bold."""
    best = {env: _best(summary, env) for env in summary.envs}
    lines = [
        r"\begin{tabular}{ll" + "r" * len(summary.envs) + "}",
        r"\toprule",
        " & ".join(["cell", "entry", *map(escape.latex, summary.envs)]) + r" \\",
        r"\midrule",
    ]
    for row in summary.contenders:
        cells = [_latex_score(row.standings[env].score, best[env]) for env in summary.envs]
        lines.append(" & ".join([*map(escape.latex, [row.cell or "", row.label]), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _best(summary: Summary, env: str) -> float | None:
    found = [row.standings[env].score for row in summary.contenders]
    return max((each.value for each in found if each is not None), default=None)


def _latex_score(found: Estimate | None, best: float | None) -> str:
    if found is None:
        return "--"
    text = rf"\textbf{{{found.value:.1f}}}" if found.value == best else f"{found.value:.1f}"
    return rf"{text} \scriptsize[{found.low:.1f}, {found.high:.1f}]"
