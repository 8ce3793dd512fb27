"""The entry point: it says in one line where the zoo does not run, before it imports what is missing there."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import zoo
from zoo import UserError

# Windows, as far as Linux can play it: another name, no modules of POSIX, no SIGHUP.
WINDOWS = """
import os, signal, sys

os.name, sys.argv = "nt", ["zoo", "list"]
sys.modules["fcntl"] = sys.modules["resource"] = None
del signal.SIGHUP
"""


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_windows_is_refused_in_one_line() -> None:
    done = python(f"{WINDOWS}\nfrom zoo.__main__ import main\nmain()")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "zoo: the zoo runs on Linux and macOS, not on Windows itself; install and start it inside WSL\n"
    )


def test_without_the_refusal_the_missing_modules_would_end_in_a_traceback() -> None:
    done = python(f"{WINDOWS}\nfrom zoo.cli import main\nmain()")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("name", ["train", "load", "lookup"])
def test_python_says_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(UserError, match="not on Windows"):
        getattr(zoo, name)


def test_the_installed_command_starts_there() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"zoo": "zoo.__main__:main"}
