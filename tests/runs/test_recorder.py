"""The folder of a run holds what it says; rows that are fewer, or endless, where a run goes on."""

import json
import os
import resource
import shutil
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from small import small

import zoo
from runs.test_checkpoint import STEPS, change, newest_checkpoint, rewritten
from zoo.errors import UserError
from zoo.runs.recorder import Recorder
from zoo.storage.agent import WEIGHTS
from zoo.training.evaluation import evaluate


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_rows_that_were_lost_are_announced_and_not_made_up(share: float, stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    content = (run / "metrics.jsonl").read_bytes()
    with safe_open(newest_checkpoint(run), "pt") as file:
        written = json.loads(file.metadata()["state"])["recorder"]["written"]
    left = int(share * written)
    (run / "metrics.jsonl").write_bytes(content[:left])
    with pytest.warns(UserWarning, match=rf"metrics\.jsonl has {left:,} bytes.*after {written:,}: rows"):
        zoo.resume(run, checkpoint_every=70)
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    assert all(line in content for line in lines[: content[:left].count(b"\n")])


def test_a_config_that_was_resumed_by_no_list_is_refused(stopped: Path, tmp_path: Path) -> None:
    run = rewritten(stopped, tmp_path, {})
    config = json.loads((run / "config.json").read_text()) | {"resumed": 5}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="resumed = 5; expected a list"):
        zoo.resume(run)


def test_endless_rows_are_refused_unread(stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    change(run, lambda tensors, state: state["recorder"].update(written=2**50))
    os.truncate(run / "metrics.jsonl", 2**36)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="ends in 1,048,576 bytes without a line"):
        zoo.resume(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_a_folder_holds_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = {"eval_every": 40, "validation_episodes": 2, "eval_episodes": 3, "normalize_obs": True}
    agent = zoo.train("ppo", "Pendulum-v1", out=folder, **small("ppo", **more))
    config = json.loads((folder / "config.json").read_text())
    assert config["algorithm"] == "ppo"
    assert config["run"]["seed"] == 0
    assert config["sources"]["gamma"] == "registry"
    assert config["sources"]["hidden"] == "argument"
    assert {"python", "torch", "numpy", "gymnasium"} <= config["versions"].keys()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [40, 80, 120]
    assert all("seconds" in row and "eval_return" in row for row in rows)
    assert list((folder / "tensorboard").glob("events*"))
    summary = json.loads((folder / "evaluation.json").read_text())
    assert summary["mean"] == pytest.approx(np.mean(summary["returns"]))
    obs = np.array([0.3, -0.2, 1.0], np.float32)
    np.testing.assert_array_equal(zoo.load(folder).predict(obs)[0], agent.predict(obs)[0])
    assert (folder / "best" / WEIGHTS).exists()
    loaded = evaluate(zoo.load(folder), "Pendulum-v1", episodes=3)
    assert loaded.returns.tolist() == summary["returns"]
    with pytest.raises(UserError, match="never share a folder"):
        zoo.train("ppo", "Pendulum-v1", out=folder, **small("ppo"))


@pytest.mark.parametrize(
    ("row", "fits"),
    [
        (None, True),
        ({"step": 30, "seconds": 0.5, "policy_loss": -1.0}, True),
        ("step", False),
        ([30], False),
        ({}, False),
        ({"step": 30}, False),
        ({"step": 30.5, "seconds": 0.5}, False),
        ({"step": 10**400, "seconds": 0.5}, False),
        ({"step": 30, "seconds": 0.0}, False),
        ({"step": 30, "seconds": 0.5, "policy_loss": "[bold]"}, False),
    ],
)
def test_a_row_that_a_checkpoint_left_incomplete_is_one_of_numbers(row: Any, fits: bool) -> None:
    recorder = Recorder.__new__(Recorder)
    recorder.returns, recorder.lengths, recorder.elapsed, recorder.row = deque(), deque(), 0.0, row
    assert recorder.check_state() == fits
