"""Write a sweep as one HTML page that needs no network: a table, learning curves and the command of every run."""

from pathlib import Path
from typing import Any

from zoo.bench.escape import script


def report(summary: dict[str, Any]) -> str:
    """Return the page: report.html with a summary's JSON inside, in which no string can close the script element."""
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return template.replace("{{summary}}", script(summary))
