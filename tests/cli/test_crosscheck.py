"""The command: what it prints and writes."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sweeps import fake, opened

from zoo.bench import equivalence
from zoo.bench import plan as planning
from zoo.bench.plan import Plan, Preset
from zoo.cli import cli
from zoo.errors import UserError
from zoo.storage.files import open_folder


def test_command_prints_and_writes_every_check(tmp_path: Path) -> None:
    file = tmp_path / "checks.json"
    result = CliRunner().invoke(cli, ["crosscheck", "qac", "sarsa", "--json", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "3 checks, all equal" in result.output
    checks = json.loads(file.read_text())
    assert [check["entry"] for check in checks] == ["qac", "qac", "sarsa"]
    assert all(check["passed"] for check in checks)


def test_curves_are_trained_into_a_folder_once(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder, folder.locked():
        result = CliRunner().invoke(cli, ["crosscheck", "sac", "--rung", "3", "--out", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert f"{tmp_path} is in use" in str(result.exception)


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Rung 3 as a matter of seconds."""
    envs = {"CartPole-v1": {"a2c": {"total_steps": 200, "num_envs": 1}}}
    tiny = Preset(about="", seeds=2, algorithms=["a2c"], settings_preset="sb3", envs=envs)
    monkeypatch.setattr(planning, "presets", lambda: {"twins": tiny})
    monkeypatch.setattr(equivalence, "presets", lambda: {"twins": tiny})
    monkeypatch.setattr(planning, "FINAL_EPISODES", 2)
    return equivalence.twins([], None)


def curves(out: Path) -> Result:
    return CliRunner().invoke(cli, ["crosscheck", "--rung", "3", "--out", str(out)], catch_exceptions=False)


def test_curves_go_on_where_they_were_stopped(rung: Plan, tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert [job.row for job in rung.jobs] == ["zoo/a2c", "sb3/a2c"] * 2
    for job in rung.jobs[:3]:
        store.add(job, "done", fake(500.0))
    first, again = curves(tmp_path), curves(tmp_path)
    assert re.search(r"1/1 +sb3/a2c on CartPole-v1, seed 1:", first.output)
    assert "1/1" not in again.output
    assert "4 jobs, 4 of them done before" in again.output
    assert first.exit_code == again.exit_code == 1  # 200 steps are no 500 returns
    assert "| a2c | CartPole-v1 | 200 | 2 | end |" in (tmp_path / "curves.md").read_text()
    assert (tmp_path / "a2c-CartPole-v1.svg").stat().st_size > 1000
    assert len(json.loads((tmp_path / "summary.json").read_text())["runs"]) == 4


@pytest.mark.parametrize(("end", "code"), [(500.0, 0), (450.0, 1)])
def test_the_exit_code_says_whether_curves_are_equivalent(end: float, code: int, rung: Plan, tmp_path: Path) -> None:
    store = opened(tmp_path)
    for job in rung.jobs:
        store.add(job, "done", fake(500.0 if job.side == "zoo" else end))
    assert curves(tmp_path).exit_code == code
