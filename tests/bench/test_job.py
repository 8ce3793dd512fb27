"""The random policy of a sweep plays what the entries play."""

from pathlib import Path
from typing import Any

import pytest

from zoo.bench import job as jobs
from zoo.bench.plan import job, plan
from zoo.errors import UserError

OWN = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Own(gym.Env):
    observation_space = spaces.Box(0, 1, (1,))

    def __init__(self, start=0, pairs=False):
        self.pairs = pairs
        self.action_space = spaces.MultiDiscrete([4, 2]) if pairs else spaces.Discrete(4, start=start)
        self.start, self.t, self.taken = start, 0, set()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen()

    def seen(self):
        self.mask = np.arange(4) % 2 == self.t % 2
        masks = (self.mask, np.array([0, 1])) if self.pairs else self.mask
        return np.zeros(1, np.float32), {"action_mask": masks}

    def step(self, action):
        assert self.action_space.contains(action), action
        choice = action[0] if self.pairs else action - self.start
        allowed = self.mask[choice] and (not self.pairs or action[1] == 1)
        self.t += 1
        return self.seen()[0], float(allowed), self.t == 8, False, self.seen()[1]
"""


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[float]:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(jobs, "FINAL_EPISODES", 20)
    return jobs.execute(job("random", "", f"{tmp_path}/own.py:Own", 0, settings), lambda row: None)["returns"]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("start", [0, 3])
def test_a_random_policy_keeps_to_masks_and_counts_as_the_environment_does(
    pairs: bool, start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kwargs = {"start": start, "pairs": pairs}
    assert play(tmp_path, monkeypatch, env_kwargs=kwargs, action_masks=True) == [8.0] * 20
    # Control: without them it takes all actions alike.
    returns = play(tmp_path, monkeypatch, env_kwargs=kwargs)
    assert sum(returns) / 20 == pytest.approx(2.0 if pairs else 4.0, abs=1.0)


def test_a_random_policy_plays_preprocessed_games() -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    sweep = plan("quick", algorithms=["dqn"], envs=["Pong"], seeds=1)
    assert [planned.env for planned in sweep.jobs] == ["ALE/Pong-v5"] * 2
    with jobs.task("ALE/Pong-v5", {})() as env:
        assert env.observation_space.shape == (84, 84)


def test_masks_are_settings_of_all_runs(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    env = f"{tmp_path}/own.py:Own"
    random, dqn = plan("quick", algorithms=["dqn"], envs=[env], seeds=1, own={"action_masks": True}).jobs
    assert random.overrides["action_masks"] is dqn.settings["run"]["action_masks"] is True
    assert dqn.command.endswith(" --action-masks")
    with pytest.raises(UserError, match="--action-masks: the entries of --against sb3 know no masks"):
        plan("quick", algorithms=["dqn"], envs=[env], seeds=1, own={"action_masks": True}, against="sb3")
