"""Sweeps that tests make: tiny ones, made-up results, and the command."""

from pathlib import Path
from typing import Any

from click.testing import CliRunner

from zoo.bench.store import Store
from zoo.cli import cli
from zoo.errors import UserError
from zoo.storage.files import open_folder

TINY = {"total_steps": 512, "num_envs": 1, "num_steps": 128, "batch_size": 64}


def opened(path: Path) -> Store:
    """The store of a sweep's folder."""
    with open_folder(path) as folder:
        return Store(folder)


def bench(out: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["bench", "--out", str(out), *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def refused(out: Path, *arguments: str) -> str:
    """The message of a command that ends in a UserError before anything is trained."""
    result = CliRunner().invoke(cli, ["bench", "--out", str(out), *arguments])
    assert isinstance(result.exception, UserError)
    assert "jobs" not in result.output
    return str(result.exception)


def fake(end: float, **more: Any) -> dict[str, Any]:
    """A result as a job gives it."""
    base = {"returns": [end, end + 1], "end": end, "curve": [[10, end]], "seconds": 2.0, "steps_per_second": 50.0}
    return base | {"parameters": 9, "memory": 1e8, "command": "", "versions": {}, "machine": {}} | more


# Of one side of the benchmark of speed.
TURNS: dict[str, Any] = {"warmup": 80, "steps": 80, "turns": 2, "threads": 1, "profile": False, "compile": "off"}
A2C: dict[str, Any] = {"algorithm": "a2c", "env": "CartPole-v1", "settings": {"num_envs": 4, "num_steps": 5}, **TURNS}
SAC: dict[str, Any] = {
    "algorithm": "sac",
    "env": "Pendulum-v1",
    "settings": {"learning_starts": 20, "hidden": [16, 16], "capacity": 1000},
    **TURNS,
}
