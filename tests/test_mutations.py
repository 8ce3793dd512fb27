"""Mistakes planted on purpose, one at a time, in a copy of the package: the test that each names must fail.

Two of them in every run; all of them by `pytest -m matrix tests/test_mutations.py`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zoo.crosscheck.mutations import Mutation, mutated

HERE = Path(__file__).parent
PLANTED = yaml.safe_load((HERE / "mutations.yaml").read_text(encoding="utf-8"))
FEW = PLANTED[6:8]  # fast ones

each_mistake = pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted["mistake"])


def plant(planted: dict[str, str], folder: Path) -> Path:
    edit = {key: value for key, value in planted.items() if key != "test"}
    return mutated(Mutation(entry="", **edit), folder)


def run(test: str, package: Path) -> subprocess.CompletedProcess[str]:
    """A test of this folder, of the package in another one."""
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-p", "no:cacheprovider", "-n0", str(HERE / test)]
    return subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True, check=False)


@each_mistake
def test_it_can_still_be_planted(planted: dict[str, str], tmp_path: Path) -> None:
    file = plant(planted, tmp_path) / "zoo" / planted["file"]
    compile(file.read_text(), file, "exec")
    test, _, name = planted["test"].partition("::")
    assert f"def {name}(" in (HERE / test).read_text()


@pytest.mark.parametrize("planted", FEW, ids=lambda planted: planted["mistake"])
def test_two_are_caught(planted: dict[str, str], tmp_path: Path) -> None:
    assert_caught(planted, tmp_path)


@pytest.mark.parametrize("planted", FEW, ids=lambda planted: planted["mistake"])
def test_control_a_copy_without_the_mistake_passes(planted: dict[str, str], tmp_path: Path) -> None:
    done = run(planted["test"], plant(planted | {"wrong": planted["right"]}, tmp_path))
    assert done.returncode == pytest.ExitCode.OK, done.stdout[-2000:]


@pytest.mark.matrix
@each_mistake
def test_it_is_caught(planted: dict[str, str], tmp_path: Path) -> None:
    assert_caught(planted, tmp_path)


def assert_caught(planted: dict[str, str], folder: Path) -> None:
    done = run(planted["test"], plant(planted, folder))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout[-2000:]
