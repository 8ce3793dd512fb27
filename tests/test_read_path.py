"""How much a reader opens to follow one transition: the files in which code runs from a step to the end of its update.

Whole files are counted, and PPO on Pendulum is followed: it acts, steps, resets, stores and learns, in one process.
"""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from numpy.random import SeedSequence

import zoo
from zoo.runs.assemble import assemble
from zoo.runs.prepare import prepare, task_of

PACKAGE = Path(zoo.__file__).parent
ROLLOUT = {"num_envs": 2, "num_steps": 256, "batch_size": 128, "num_epochs": 1}  # Pendulum's episodes have 200 steps
PLAIN = {"compile": "off", "vec": "sync", "engine": "inline", "eval_episodes": 0, "seed": 0}
# What spaces are, how environments are made and stepped, and what settings are, is the same whatever is learned.
AROUND = {"spec.py", "config.py", "envs/make.py", "envs/sync.py"}


def read_path(**settings: Any) -> set[str]:
    """The files of zoo/ in which code ran in one rollout and its update; importing and making things is not counted."""
    given = {**ROLLOUT, **PLAIN, "total_steps": ROLLOUT["num_envs"] * ROLLOUT["num_steps"], **settings}
    settings = prepare("ppo", "Pendulum-v1", given, source="test")
    learner, _ = assemble(settings, task_of(settings), SeedSequence(0), SeedSequence(1))
    files: set[str] = set()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    reports = learner.reports(total_steps=given["total_steps"], log_every=10**6, on_step=lambda: sys.setprofile(watch))
    try:
        (report,) = reports
    finally:
        sys.setprofile(before)
        learner.source.close()
    assert len(report.episodes) == ROLLOUT["num_envs"]  # so that a reset is on the path
    assert "grad_norm" in report.metrics
    paths = {Path(file) for file in files}
    return {path.relative_to(PACKAGE).as_posix() for path in paths if path.is_relative_to(PACKAGE)}


@pytest.fixture(scope="module")
def path() -> set[str]:
    # A reader looks up what the records hold, whether or not there is code in them.
    return read_path() | {"protocol.py"}


def lines(files: set[str]) -> dict[str, int]:
    return {file: len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) for file in sorted(files)}


def test_a_transition_of_ppo_is_followed_in_nine_files_and_twelve_with_spaces_making_and_settings(
    path: set[str],
) -> None:
    assert len(path) <= 12, sorted(path)
    assert len(path - AROUND) <= 9, sorted(path - AROUND)


def test_these_files_have_at_most_1200_lines(path: set[str]) -> None:
    found = lines(path - AROUND)
    assert sum(found.values()) <= 1200, found


def test_the_path_leads_from_the_loop_to_the_update(path: set[str]) -> None:
    assert path >= {
        *("training/loop.py", "envs/envs.py", "envs/sync.py", "spec.py", "buffers/rollout.py"),
        *("algos/ppo.py", "parts/targets.py", "parts/policies.py", "parts/networks.py", "parts/optim.py"),
    }


@pytest.mark.parametrize(("settings", "file"), [({"normalize_obs": True}, "envs/normalize.py")])
def test_control_what_else_runs_is_seen(path: set[str], settings: dict[str, Any], file: str) -> None:
    assert file not in path
    assert file in read_path(**settings)
