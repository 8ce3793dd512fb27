"""Rows of metrics that are fewer, or endless, where a run goes on."""

import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

import zoo
from runs.test_checkpoint import STEPS, change, newest_checkpoint, rewritten
from zoo.errors import UserError


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
