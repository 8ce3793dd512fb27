"""Figures land in their folder, and look the same everywhere."""

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from zoo.cli import cli


def test_figures_are_not_drawn_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "figures").symlink_to(tmp_path / "outside")
    arguments = ["bench", "--out", str(tmp_path / "bench"), "--no-train", "--envs", "CartPole-v1"]
    assert "figures is not a folder" in str(CliRunner().invoke(cli, arguments).exception)
    assert not list((tmp_path / "outside").iterdir())


def test_a_matplotlibrc_of_the_working_directory_is_not_obeyed(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    command = [sys.executable, "-P", "-m", "zoo", "bench", "--no-train", "--envs", "CartPole-v1", "--out", "bench"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
