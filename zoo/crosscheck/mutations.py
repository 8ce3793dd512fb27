"""Plant mistakes, one at a time, in a copy of the package: each must be caught by a check.

A check that cannot fail proves nothing. The list follows what implementations get wrong in practice.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import zoo
from zoo.errors import UserError

JOBS = 2


@dataclass(frozen=True)
class Mutation:
    """A mistake: in `file`, `right` becomes `wrong`; a check of `entry` should fail."""

    entry: str
    mistake: str
    file: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Finding:
    """The checks that failed because of a mistake."""

    entry: str
    mistake: str
    caught_by: list[str]


def load() -> list[Mutation]:
    """Load all mistakes of mutations.yaml."""
    text = (Path(__file__).parent / "mutations.yaml").read_text(encoding="utf-8")
    return [Mutation(**each) for each in yaml.safe_load(text)]


def plant(names: list[str], jobs: int = JOBS) -> Iterator[Finding]:
    """Plant each mistake of these entries (of all if none is named) and yield what caught it, in the list's order.

    Raises UserError if the entries have none.
    """
    chosen = [mutation for mutation in load() if not names or mutation.entry in names]
    if not chosen:
        raise UserError(f"no mistakes are planted in {', '.join(names)}")
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(_try, chosen)


def _try(mutation: Mutation) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        copy = mutated(mutation, Path(folder))
        report = copy / "report.json"
        command = [sys.executable, "-P", "-m", "zoo", "crosscheck", mutation.entry, "--json", str(report)]
        path = os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        pipes: Any = {"capture_output": True, "text": True, "errors": "replace"}
        done = subprocess.run(command, env=environment, cwd=copy, check=False, **pipes)
        if not report.exists():
            last = done.stderr.strip().splitlines()[-1:] or ["no report"]
            return Finding(mutation.entry, mutation.mistake, [f"the update fails: {last[0]}"])
        checks = json.loads(report.read_text())
    found = [f"{check['reference']}, {check['what']}" for check in checks if not check["passed"]]
    return Finding(mutation.entry, mutation.mistake, found)


def mutated(mutation: Mutation, folder: Path) -> Path:
    """Copy the package with the mistake in it. Raises UserError if the text to replace is gone."""
    package = Path(zoo.__file__).parent
    shutil.copytree(package, folder / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    if not (package / "registry.yaml").exists():
        shutil.copy(package.parent / "registry.yaml", folder)
    file = folder / "zoo" / mutation.file
    text = file.read_text(encoding="utf-8")
    if mutation.right not in text:
        raise UserError(f"{mutation.file} has no {mutation.right!r} any more: {mutation.mistake!r} cannot be planted")
    file.write_text(text.replace(mutation.right, mutation.wrong), encoding="utf-8")
    return folder
