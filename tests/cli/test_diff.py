"""zoo diff: the change of a flipped axis is small, and each hunk of it has a reason."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from zoo import registry
from zoo.cli import main
from zoo.cli.diff import hunks, normalized

FLIPS = yaml.safe_load((Path(__file__).parents[2] / "docs" / "flips.yaml").read_text(encoding="utf-8"))
BOUNDS = {("dqn", "sarsa"): 50, ("qac", "a2c"): 50, ("a2c", "impala"): 35}

each_flip = pytest.mark.parametrize("flip", FLIPS, ids=lambda flip: "-".join(flip["entries"]))


def unexplained(found: list[list[str]], reasons: dict[str, str]) -> list[str]:
    """The hunks that not exactly one reason is for, by their first lines, and the reasons that are not for one hunk."""
    starts = [hunk[0][1:].strip() for hunk in found]
    wrong = [start for start in starts if sum(map(start.startswith, reasons)) != 1]
    return wrong + [key for key in reasons if sum(start.startswith(key) for start in starts) != 1]


@each_flip
def test_each_hunk_has_a_reason_and_each_reason_a_hunk(flip: dict[str, Any]) -> None:
    assert not unexplained(hunks(*flip["entries"]), flip["hunks"])


@each_flip
def test_a_missing_reason_and_a_reason_too_many_are_noticed(flip: dict[str, Any]) -> None:
    found, (first, *others) = hunks(*flip["entries"]), flip["hunks"]
    without = {key: flip["hunks"][key] for key in others}
    assert unexplained(found, without) == [found[0][0][1:].strip()]
    assert unexplained(found, flip["hunks"] | {"no such line": "none"}) == ["no such line"]
    assert unexplained(found[1:], flip["hunks"]) == [first]


@each_flip
def test_a_flip_changes_the_axis_that_it_names_and_no_other(flip: dict[str, Any]) -> None:
    one, other = (registry.load().cell_of(name) for name in flip["entries"])
    assert {axis for axis in ("strategy", "data", "target") if getattr(one, axis) != getattr(other, axis)} == {
        flip["axis"]
    }


@pytest.mark.parametrize(("one", "other"), BOUNDS)
def test_a_flip_changes_few_lines(one: str, other: str) -> None:
    (bound,) = (flip["lines"] for flip in FLIPS if flip["entries"] == [one, other])
    assert bound == BOUNDS[one, other]
    assert sum(map(len, hunks(one, other))) <= bound


def test_hunks_turn_one_file_into_the_other() -> None:
    before, after = list(normalized("qac")), normalized("a2c")
    removed = [line[1:] for hunk in hunks("qac", "a2c") for line in hunk if line[0] == "-"]
    added = [line[1:] for hunk in hunks("qac", "a2c") for line in hunk if line[0] == "+"]
    for line in removed:
        before.remove(line)
    assert sorted(before + added) == sorted(after)
    assert hunks("qac", "qac") == []


TOY = '''"""A module."""

import math
from pathlib import (
    Path,
)


class ToyConfig:
    """Toy's settings; no Toybox."""


class Toy:
    """A class."""

    Config = ToyConfig
'''
ENTRY = '{class: "toys:Toy", title: Toy, equation: none, paper: none}'


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an entry outside the package."""
    (tmp_path / "toys.py").write_text(TOY, encoding="utf-8")
    text = f'cells: {{"policy/on/v": {{also: [toy]}}}}\nalgorithms: {{toy: {ENTRY}}}\n'
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ZOO_REGISTRY", str(tmp_path / "mine.yaml"))
    return tmp_path / "toys.py"


def test_names_docstring_and_imports_are_left_out(toy: Path) -> None:
    assert normalized("toy") == [
        "class AlgoConfig:",
        '    """Algo\'s settings; no Toybox."""',
        "",
        "",
        "class Algo:",
        '    """A class."""',
        "",
        "    Config = AlgoConfig",
    ]
    assert "toys" not in sys.modules


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["diff", *arguments])
    return int(stopped.value.code or 0)


def test_it_prints_the_diff_and_counts_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dqn", "sarsa") == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["--- dqn", "+++ sarsa"]
    changed = [line for line in lines[2:] if line[:1] in ("+", "-")]
    assert changed == [line for hunk in hunks("dqn", "sarsa") for line in hunk]
    assert last == f"{len(changed)} lines differ between dqn and sarsa"
    assert not [line for line in lines if "\x1b" in line]


def test_it_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert run("a2c", "impala") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line[:5] for line in lines if line[5:6] in ("+", "-")} == {"\x1b[32m", "\x1b[31m"}


@pytest.mark.parametrize(("arguments", "said"), [(("dqn", "sars"), "did you mean 'sarsa'"), (("dqn",), "'OTHER'")])
def test_wrong_names_are_refused_in_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err


def test_an_entry_without_a_file_is_refused(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.unlink()
    assert run("a2c", "toy") == 2
    assert "algorithm 'toy': there is no module toys" in capsys.readouterr().err
