"""Progress of a training in Python: on a terminal, in a notebook, and nowhere else unless it is asked for."""

import io
import sys
from importlib.util import find_spec
from typing import Any

import pytest
from small import small

import zoo
from zoo.runs import display as module


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def train(**more: Any) -> None:
    zoo.train("a2c", "CartPole-v1", **more, **small("a2c", eval_every=40, validation_episodes=1))


def test_without_a_terminal_training_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    train()
    assert tuple(capfd.readouterr()) == ("", "")


def test_progress_that_is_asked_for_is_plain_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    train(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    first, *lines = err.splitlines()
    assert first == "a2c on CartPole-v1, seed 0, 120 steps"
    assert [line.split()[0] for line in lines] == ["40/120", "80/120", "120/120"]
    assert all("evaluation" in line and line.isprintable() for line in lines)


def test_an_early_end_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    train(progress=True, on_row=lambda row: False)
    assert capsys.readouterr().err.endswith("stopped at   step 40, early: on_row returned False\n")


@pytest.mark.parametrize("progress", [None, True, False])
def test_a_terminal_has_a_live_panel(progress: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    train(progress=progress)
    if progress is False:
        assert terminal.getvalue() == ""
    else:
        assert "a2c on CartPole-v1, seed 0, 120 steps" in terminal.getvalue()
        assert "\x1b[" in terminal.getvalue()
        assert "policy_loss" in terminal.getvalue()


def test_a_notebook_without_widgets_has_plain_lines_that_are_no_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_in_notebook", lambda: True)
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "ipywidgets" else find_spec(name))
    train()
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (4, "")
