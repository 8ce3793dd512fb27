"""When checkpoints are taken: at intervals, and when a signal stops a run."""

import os
from pathlib import Path
from typing import Any

import pytest

import zoo
from runs.test_checkpoint import assert_same_end, given_for, train
from zoo import runs
from zoo.errors import Interrupted, UserError
from zoo.runs.checkpointer import interval


@pytest.mark.parametrize(
    ("text", "expected"), [(10000, (10000, None)), ("1e4", (10000, None)), ("5min", (None, 300)), ("0.5m", (None, 30))]
)
def test_intervals_are_steps_or_minutes(text: str | int, expected: tuple[Any, Any]) -> None:
    assert interval(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "nan", "inf", "min", "5h", "0min"])
def test_other_intervals_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected steps, as 10000, or minutes, as 5min"):
        interval(text)


def test_a_signal_is_obeyed_between_steps(tmp_path: Path) -> None:
    import signal

    def interrupt(row: dict[str, float]) -> None:
        if row["step"] == 240:
            os.kill(os.getpid(), signal.SIGTERM)

    train(tmp_path / "whole", "sac", every="600min")
    settings = runs.prepare("sac", "Pendulum-v1", given_for("sac"), source="test")
    before = signal.getsignal(signal.SIGTERM)  # another test's Ray may have set one
    with pytest.raises(Interrupted, match=r"SIGTERM at step 240; go on with: zoo run --resume") as raised:
        runs.run(settings, "Pendulum-v1", out=tmp_path / "halved", on_row=interrupt)
    assert raised.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    zoo.resume(tmp_path / "halved")
    assert_same_end(tmp_path / "whole", tmp_path / "halved")
