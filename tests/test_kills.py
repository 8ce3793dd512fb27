"""Runs that are killed at random moments end as ones that were not: every entry, whoever steps its environments.

`pytest -m faults` kills each twice, `pytest -m matrix` twenty times.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from runs.test_checkpoint import ENTRIES, SMALL, assert_same_end, train
from tally import Tally
from test_faults import exit_code, finish, in_child

from zoo import registry
from zoo.envs.ids import make_env
from zoo.runs.checkpoint import FOLDER, MANIFEST


def resetting_in_steps(num_envs: int, *, env_id: str, **kwargs: Any) -> SyncVectorEnv:
    """Environments that spend a step of their own on each reset."""
    return SyncVectorEnv([partial(make_env, env_id, **kwargs)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)


for known in ("CartPole-v1", "Pendulum-v1"):
    gym.register(
        f"NextStep{known}",
        entry_point=gym.spec(known).entry_point,
        vector_entry_point=partial(resetting_in_steps, env_id=known),
        max_episode_steps=40,  # Pendulum ends in no other way
    )


def changes_of(name: str, vec: str) -> dict[str, Any]:
    """The settings, besides those of `test_checkpoint`, of a run whose environments `vec` steps."""
    env = SMALL[name]["env"]
    return {
        "sync": {},
        "async": {"vec": "async", "num_envs": 2},
        "native": {"vec": "native", "num_envs": 4, "env": "CartPole-v1"},
        "next step": {"vec": "native", "num_envs": 4, "env": f"NextStep{env}"},
    }[vec]


def has(name: str, vec: str) -> bool:
    """Whether an entry can learn from it: the native vector environment is CartPole's here."""
    return vec != "native" or gym.spaces.Discrete in registry.load_class(name).spaces


CASES = [(name, vec) for name in ENTRIES for vec in ("sync", "async", "native", "next step") if has(name, vec)]
KILLS = [pytest.param(2, marks=pytest.mark.faults), pytest.param(20, marks=pytest.mark.matrix)]


@pytest.mark.parametrize(("name", "vec"), CASES)
@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_run_goes_on_bit_for_bit(name: str, vec: str, kills: int, tmp_path: Path, tally: Tally) -> None:
    """kill -9 at random moments, also while a checkpoint is written."""
    changes = changes_of(name, vec)
    began = time.monotonic()
    train(tmp_path / "whole", name, every=40, **changes)
    duration = time.monotonic() - began
    rng = np.random.default_rng(zlib.crc32(f"{name} {vec}".encode()))
    for trial in range(kills):
        with tally.fault():
            folder = tmp_path / str(trial)
            pid = in_child(lambda folder=folder: train(folder, name, every=40, **changes))  # type: ignore[misc]
            while not (folder / "config.json").exists():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, duration))
            os.kill(pid, signal.SIGKILL)
            exit_code(pid)
            finish(folder)
            assert_same_end(tmp_path / "whole", folder)
            shutil.rmtree(folder)


COMPILED = """
import sys
from pathlib import Path
from runs.test_checkpoint import train
train(Path(sys.argv[1]), sys.argv[2], every=40, compile="on")
"""


FEW = ("dqn", "ppo")  # of a replay, of a rollout
MARKS = [pytest.param(name, marks=pytest.mark.faults if name in FEW else pytest.mark.matrix) for name in ENTRIES]


@pytest.mark.parametrize("name", MARKS)
def test_a_killed_run_of_compiled_updates_goes_on_bit_for_bit(name: str, tmp_path: Path, tally: Tally) -> None:
    train(tmp_path / "whole", name, every=40, compile="on")
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with tally.fault():
        process = subprocess.Popen([sys.executable, "-c", COMPILED, str(folder), name], env=environment)
        deadline = time.monotonic() + 120
        while not (folder / FOLDER / MANIFEST).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(np.random.default_rng(len(name)).uniform(0, 0.2))
        process.kill()
        process.wait()
        finish(folder)
        assert_same_end(tmp_path / "whole", folder)
