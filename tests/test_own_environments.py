"""Environments of one's own, of every kind: trained, evaluated, watched, resumed and benchmarked by their names."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from zoo.cli import main

OWN = '''
import copy

import gymnasium as gym
import numpy as np
from gymnasium import spaces

KINDS = {
    "parts": (spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2,))}), spaces.Discrete(2)),
    "switches": (spaces.MultiBinary(4), spaces.MultiBinary(3)),
    "masked": (spaces.Tuple([spaces.Discrete(2), spaces.MultiDiscrete([2, 3])]), spaces.Discrete(4)),
    "counts": (spaces.Box(0, 9, (2, 2), np.int64), spaces.Box(0, 3, (2,), np.int32)),
    "picture": (spaces.Box(0, 255, (12, 12, 3), np.uint8), spaces.MultiDiscrete([2, 2])),
}


class Own(gym.Env):
    """Observes what its space samples, pays for the sum of an action, and refuses what is masked."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, kind, pays=1.0, render_mode=None):
        self.kind, self.pays, self.render_mode = kind, pays, render_mode
        self.observation_space, self.action_space = copy.deepcopy(KINDS[kind])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self._seen()

    def _seen(self):
        self.mask = np.arange(4) != self.t % 4
        return self.observation_space.sample(), {"action_mask": self.mask} if self.kind == "masked" else {}

    def step(self, action):
        assert self.action_space.contains(action), action
        assert self.kind != "masked" or self.mask[action], (action, self.mask)
        self.t += 1
        obs, info = self._seen()
        return obs, self.pays * float(np.sum(action)), False, self.t == 6, info

    def render(self):
        return np.full((16, 16, 3), 40 * self.t, np.uint8)


class Doubled(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


def make(**kwargs):
    return Own(**kwargs)
'''
SMALL = ["--total-steps", "64", "--num-steps", "32", "--eval-every", "32", "--validation-episodes", "2", "--seed", "0"]
KINDS = ["parts", "switches", "masked", "counts", "picture"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "owned.py").write_text(OWN + "gym.register('Own-v3', entry_point=Own)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(main.__code__.co_filename).parents[2]}")
    sys.modules.pop("owned", None)
    gym.registry.pop("Own-v3", None)
    return tmp_path


def zoo(*arguments: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0, out.getvalue()
    return out.getvalue()


def evaluation(run: str) -> Any:
    return json.loads(Path(run, "evaluation.json").read_text())["returns"]


@pytest.mark.parametrize("name", ["own.py:make", "owned:Own"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_through_every_command(kind: str, name: str, folder: Path) -> None:
    named = ["--env", name, "--wrap", f"{name.partition(':')[0]}:Doubled"]
    kwargs = ["--env-kwargs", json.dumps({"kind": kind, "pays": 2.0})]
    masks = ["--action-masks"] if kind == "masked" else []
    done = zoo("run", "a2c", *named, *kwargs, *masks, *SMALL, "--eval-episodes", "5", "--out", "run")
    assert f"next         zoo watch run {' '.join(named)}   or   zoo eval run {' '.join(named)} --epi" in done.replace(
        "-v3", ""
    )
    returns = evaluation("run")
    assert len(returns) == 5
    assert all(value % 4 == 0 for value in returns)  # twice for the argument, twice for the wrapper
    shown = json.loads(zoo("eval", "run", *named, "--episodes", "5", "--json"))
    assert shown["returns"] == returns
    assert f"return {returns[0]:.1f} -> x.gif" in zoo("watch", "run", *named, "--video", "x.gif")
    zoo("run", "--resume", "run", *named, "--total-steps", "128")
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 128


@pytest.mark.parametrize("name", ["own.py:make", pytest.param("owned:Own", marks=pytest.mark.slow)])
def test_they_are_put_into_a_table(name: str, folder: Path) -> None:
    kwargs = json.dumps({"kind": "counts"})
    own = ["--envs", name, "--env-kwargs", kwargs, "--algos", "a2c", "--total-steps", "64", "--seeds", "1"]
    table = zoo("bench", *own, "--out", "bench")
    assert "random" in table
    csv = Path("bench/table.csv").read_text()
    assert "a2c" in csv
    assert csv.count(",done,") == 2
