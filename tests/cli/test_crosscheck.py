"""The command: what it prints and writes."""

import json
from pathlib import Path

from click.testing import CliRunner

from zoo.cli import cli


def test_command_prints_and_writes_every_check(tmp_path: Path) -> None:
    file = tmp_path / "checks.json"
    result = CliRunner().invoke(cli, ["crosscheck", "qac", "sarsa", "--json", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "3 checks, all equal" in result.output
    checks = json.loads(file.read_text())
    assert [check["entry"] for check in checks] == ["qac", "qac", "sarsa"]
    assert all(check["passed"] for check in checks)
