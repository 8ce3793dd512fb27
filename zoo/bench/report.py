"""A sweep as one HTML page that needs no network: a table, learning curves and the command of every run."""

import json
from pathlib import Path
from typing import Any


def report(summary: dict[str, Any]) -> str:
    """The page: report.html with `summary` inside as JSON, in which no string can close the script element."""
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return template.replace("{{summary}}", json.dumps(summary, allow_nan=False).replace("<", "\\u003c"))
