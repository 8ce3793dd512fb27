"""Videos are whole or not there."""

import contextlib
import io
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest
from gymnasium import spaces
from numpy.random import SeedSequence

from zoo import registry
from zoo.cli import main
from zoo.errors import EnvError, StorageError, UserError
from zoo.runs.video import write
from zoo.spec import Spec
from zoo.storage.agent import Agent

SHADES = [0, 100, 200]


class Shades(gym.Env[Any, Any]):
    """Three steps, each shown in a shade of its own."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.zeros(2, np.float32), 1.0, self.count == 3, False, {}

    def render(self) -> Any:
        noise = np.random.default_rng(self.count).integers(40, size=(64, 64, 3))  # which does not compress
        return (SHADES[self.count - 1] + noise).astype(np.uint8)


gym.register("Shades-v0", entry_point=Shades)


@pytest.fixture
def agent() -> Agent:
    spec = Spec(Shades.observation_space, Shades.action_space)
    config = registry.load_class("ppo").Config(hidden=(4,))
    return Agent("ppo", registry.make("ppo", spec, config, SeedSequence(0)), spec)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """A limit on the size of files stands for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_video_shows_each_step(agent: Agent, tmp_path: Path) -> None:
    assert write(agent, "Shades-v0", tmp_path / "x.gif", episodes=2, seed=0) == [3.0, 3.0]
    frames = imageio.imread(tmp_path / "x.gif")
    assert [int(frame.mean() // 50) * 50 for frame in frames] == [*SHADES, *SHADES]
    assert [file.name for file in tmp_path.iterdir()] == ["x.gif"]


@pytest.mark.parametrize("before", [b"mine", None])
def test_a_full_disk_leaves_no_part_of_a_video(before: bytes | None, agent: Agent, tmp_path: Path) -> None:
    if before is not None:
        (tmp_path / "x.gif").write_bytes(before)
    with full_disk(), pytest.raises(StorageError, match=r"x\.gif cannot be written: File too large") as raised:
        write(agent, "Shades-v0", tmp_path / "x.gif", episodes=1, seed=0)
    assert raised.value.code == 5
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({"x.gif": before} if before else {})


def test_a_full_disk_is_one_line(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    agent.save(run / "final")
    (run / "config.json").write_text(json.dumps({"algorithm": "ppo", "env": "Shades-v0"}))
    err = io.StringIO()
    with full_disk(), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main(["watch", str(run), "--env", "Shades-v0", "--video", str(tmp_path / "x.gif")])
    assert (stopped.value.code, err.getvalue().count("\n")) == (5, 1)
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_a_folder_that_is_not_there_is_found_before_anything_is_played(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shades, "reset", lambda self, **_: pytest.fail("it plays"))
    with pytest.raises(UserError, match="nowhere cannot be opened: No such file"):
        write(agent, "Shades-v0", tmp_path / "nowhere" / "x.gif", episodes=1, seed=0)


def test_a_folder_that_takes_no_file_is_found_before_anything_is_played(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shades, "reset", lambda self, **_: pytest.fail("it plays"))
    tmp_path.chmod(0o500)
    folder = tmp_path if os.geteuid() else Path("/proc")  # few places are unwritable for root
    with pytest.raises(StorageError, match=r"x\.gif cannot be written: "):
        write(agent, "Shades-v0", folder / "x.gif", episodes=1, seed=0)


def test_an_episode_that_fails_closes_its_environment(agent: Agent, tmp_path: Path, monkeypatch: Any) -> None:
    closed = []
    monkeypatch.setattr(Shades, "step", lambda self, action: 1 / 0)
    monkeypatch.setattr(Shades, "close", lambda self: closed.append(self))
    with pytest.raises(EnvError, match="ZeroDivisionError"):
        write(agent, "Shades-v0", tmp_path / "x.gif", episodes=1, seed=0)
    assert len(closed) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "magic"), [(".mp4", b"ftyp"), (".webm", b"webm")])
def test_other_kinds_of_video_are_written_whole_too(
    suffix: str, magic: bytes, agent: Agent, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    write(agent, "Shades-v0", tmp_path / f"x{suffix}", episodes=1, seed=0)
    assert [file.name for file in tmp_path.iterdir()] == [f"x{suffix}"]
    content = (tmp_path / f"x{suffix}").read_bytes()
    assert magic in content[:64]
    assert len(content) > 1000  # more than a header
    assert capfd.readouterr() == ("", "")


class Blind(gym.Env[Any, Any]):
    """Draws nothing."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)


gym.register("Blind-v0", entry_point=Blind)


@pytest.mark.parametrize("env", ["Blind-v0", Blind])
@pytest.mark.filterwarnings("ignore:.*render_mode:UserWarning")
def test_an_environment_that_draws_nothing_is_told_how(env: Any, agent: Agent, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be watched: it takes no argument render_mode") as raised:
        write(agent, env, tmp_path / "x.gif", episodes=1, seed=0)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
