"""Environments of one's own, by names that run code: a package's ids, objects in files, wrappers."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

import zoo
from zoo.cli import main
from zoo.envs.ids import resolve_id
from zoo.envs.make import vectorize
from zoo.envs.task import Task, complete
from zoo.errors import UserError
from zoo.runs.prepare import prepare, task_of
from zoo.runs.resumed import recorded_task, resumed_settings
from zoo.spaces import Stacked
from zoo.spec import Spec

OWN = '''
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Heavy(CartPoleEnv):
    """A CartPole with another gravity."""

    def __init__(self, g=9.8, render_mode=None):
        super().__init__(render_mode=render_mode)
        self.gravity = g

def make_env(**kwargs):
    return gym.wrappers.TimeLimit(Heavy(**kwargs), 50)

class Doubled(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * reward

def broken(env):
    raise RuntimeError("no")

number = 3
'''
REGISTERING = f"""{OWN}
gym.register("Heavy-v0", entry_point=Heavy, max_episode_steps=50)
gym.register("Heavy-v1", entry_point=Heavy, max_episode_steps=60)
"""
SMALL = ["--total-steps", "200", "--eval-episodes", "5", "--eval-every", "0", "--seed", "0", "--num-steps", "100"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with environments, and a package that registers them."""
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "heavies.py").write_text(REGISTERING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    forget()
    return tmp_path


def forget() -> None:
    """Let the next command import these files anew."""
    for name in [name for name in gym.registry if name.startswith(("Heavy", "Failing"))]:
        gym.registry.pop(name)
    for name in [name for name in sys.modules if name.startswith(("heavies", "mine_", "failing"))]:
        del sys.modules[name]


def test_an_id_of_a_package_is_found_when_the_package_is_named(own: Path) -> None:
    with pytest.raises(UserError, match="unknown environment 'Heavy-v0'"):
        resolve_id("Heavy-v0")
    assert resolve_id("heavies:Heavy-v1") == "heavies:Heavy-v1"
    assert resolve_id("heavies:Heavy") == "heavies:Heavy-v1"
    env = Task("heavies:Heavy-v1", {"g": 3.0})()
    assert (env.unwrapped.gravity, env.spec.max_episode_steps) == (3.0, 60)  # type: ignore[attr-defined, union-attr]


def test_a_file_is_loaded_by_its_path(own: Path) -> None:
    env = Task(f"{own}/mine.py:make_env", {"g": 4.0}, (f"{own}/mine.py:Doubled", "heavies:Doubled"))()
    assert env.unwrapped.gravity == 4.0  # type: ignore[attr-defined]
    env.reset(seed=0)
    assert env.step(0)[1] == 4.0  # a reward of 1, doubled twice


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch:Heavy-v0", "no module 'nosuch' is installed or on PYTHONPATH; a file is named"),
        (
            "heavies:Heavvy-v0",
            r"heavies registers no id 'Heavvy-v0' with gymnasium \(it registered: Heavy-v0, Heavy-v1\)",
        ),
        ("heavies:Heavy-v7", "has no version '7'; known: Heavy-v0, Heavy-v1"),
        (":", "expected package:Name-v0"),
        ("heavies:", "expected package:Name-v0"),
        ("{own}/mine.py", "a function or class, path/to/file.py:make_env"),
        ("heavies:make_env", "it has a make_env, which path/to/file.py:make_env names"),
        ("{own}/mine.py:make_enw", "has no function or class 'make_enw'; did you mean 'make_env'"),
        ("{own}/mine.py:number", "has no function or class 'number'"),
        ("{own}/other.py:make_env", "other.py cannot be read: No such file"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_fix(own: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        resolve_id(name.format(own=own))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kwargs": {"gravity": 1}}, "unexpected keyword argument 'gravity'"),
        ({"wrap": ("heavies:Doubledd",)}, "has no function or class 'Doubledd'; did you mean 'Doubled'"),
        ({"wrap": ("Doubled",)}, "expected module:Name or path/to/file.py:Name"),
        (
            {"wrap": ("{own}/mine.py:broken",)},
            "fails on .*: RuntimeError: no .*mine.py:20.; it is called with the environment alone",
        ),
        ({"wrap": ("json:dumps",)}, "json:dumps"),
    ],
)
def test_so_are_wrong_arguments_and_wrappers(own: Path, task: dict[str, Any], message: str) -> None:
    task = task | {"wrap": tuple(name.format(own=own) for name in task.get("wrap", ()))}
    for env in ("heavies:Heavy-v1", f"{own}/mine.py:make_env"):
        with pytest.raises(UserError, match=message):
            Task(env, **task)()


FAILING = """
import gymnasium as gym

class Failing(gym.Env):
    def __init__(self, error="ValueError"):
        raise {"ValueError": ValueError, "KeyError": KeyError, "UserWarning": UserWarning}[error]("two\\nlines")

gym.register("Failing-v0", entry_point=Failing)
"""


@pytest.mark.parametrize("vec", ["sync", "async", "native"])
@pytest.mark.parametrize("name", ["{own}/failing.py:Failing", "failing:Failing-v0"])
@pytest.mark.parametrize("error", ["ValueError", "KeyError", "UserWarning"])
def test_an_error_in_ones_own_constructor_is_one_line_that_says_where(
    own: Path, name: str, vec: str, error: str
) -> None:
    (own / "failing.py").write_text(FAILING)
    with pytest.raises(UserError) as raised:
        vectorize(Task(name.format(own=own), {"error": error}), 2, vec)
    message = str(raised.value)
    assert "\n" not in message
    if vec == "native":
        assert message.endswith("has no vector environment of its own; use --vec sync or --vec async")
        return
    assert f"cannot be made with {{'error': '{error}'}}: {error}: " in message
    assert message.endswith(f"({own}/failing.py:6)")
    assert type(raised.value.__cause__).__name__ == error


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("FrozenLake-v1", {"map_name": "9x9"}, "KeyError: '9x9'$"),
        ("CartPole-v1", {"max_episode_steps": 0}, "ValueError: .* to be positive, actually: 0$"),
        ("CartPole-v1", {"render_mode": 5}, "AttributeError"),
        ("GymV21Environment-v0", {}, "shimmy"),
        ("phys2d/CartPole-v1", {"a": "x" * 10_000}, "cannot be made with"),
    ],
)
def test_so_is_one_in_gymnasiums(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Task(name, kwargs)()
    assert len(str(raised.value)) <= 600
    assert "atari" not in str(raised.value)


def test_an_import_that_is_interrupted_is_not_half_done(own: Path) -> None:
    (own / "slow.py").write_text("first = 1\nraise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        resolve_id(f"{own}/slow.py:make_env")
    (own / "slow.py").write_text("make_env = dict")
    assert resolve_id(f"{own}/slow.py:make_env")  # not the half that was there before
    (own / "slower.py").write_text("raise KeyboardInterrupt")
    assert command("run", "ppo", "--env", "slower.py:make_env").returncode == 130


def test_an_object_is_made_already() -> None:
    with pytest.raises(UserError, match="env_kwargs are for an id or a function"):
        zoo.train("ppo", gym.make("CartPole-v1"), env_kwargs={"sutton_barto_reward": True})


class Done(NamedTuple):
    """What a command came to."""

    returncode: Any
    text: str


def command(*arguments: str) -> Done:
    """Run a command in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as stopped:
        main(arguments)
    return Done(stopped.value.code, out.getvalue())


@pytest.mark.parametrize("name", ["eval run", "watch run --video play.gif", "run --resume run --total-steps 400"])
def test_a_strangers_folder_imports_nothing_until_its_code_is_named(own: Path, name: str) -> None:
    train = ["run", "ppo", "--env", "heavies:Heavy-v1", "--wrap", "mine.py:Doubled", *SMALL, "--out", "run"]
    assert command(*train).returncode == 0
    canary = own / "was_imported"
    for file in ("heavies.py", "mine.py"):
        (own / file).write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")
    forget()
    refused = command(*name.split())
    assert refused.returncode == 2
    assert "--env heavies:Heavy-v1" in refused.text
    assert "--wrap mine.py:Doubled" in refused.text
    assert len(refused.text.splitlines()) == 1
    partly = command(*name.split(), "--env", "CartPole-v1")
    assert partly.returncode == 2
    assert not canary.exists()
    # Control: named, it is imported (and has no wrapper any more).
    named = command(*name.split(), "--env", "CartPole-v1", "--wrap", "mine.py:Doubled")
    assert named.returncode == 2
    assert canary.exists()


def test_arguments_that_name_files_are_asked_for_again(own: Path) -> None:
    folder = own / "run"
    train = ["run", "ppo", "--env", "CartPole-v1", *SMALL, "--out", "run"]
    assert command(*train).returncode == 0
    record = json.loads((folder / "config.json").read_text())
    record["run"]["env_kwargs"] = {"xml_file": "/tmp/stranger.xml"}
    (folder / "config.json").write_text(json.dumps(record))
    refused = command("eval", "run")
    assert (refused.returncode, "--env-kwargs" in refused.text) == (2, True)


def test_a_window_that_a_folder_asks_for_is_not_opened(own: Path) -> None:
    assert command("run", "ppo", "--env", "CartPole-v1", *SMALL, "--out", "run").returncode == 0
    record = json.loads((own / "run" / "config.json").read_text())
    for mode, kept in (("human", {}), (5, {}), ("rgb_array", {"render_mode": "rgb_array"})):
        record["run"]["env_kwargs"] = {"render_mode": mode}
        (own / "run" / "config.json").write_text(json.dumps(record))
        assert recorded_task(own / "run", record, None, {}).kwargs == kept
        assert resumed_settings(own / "run", None, {}).run.env_kwargs == kept


IMPORTING = """
import pathlib, sys
from zoo.cli import main

folder, *names = sys.argv[1:]
for name in names:
    config = pathlib.Path(folder, "config.json")
    config.write_text(config.read_text().replace("CartPole-v1", name))
    for command in (["eval", folder], *([["run", "--resume", folder]] if name == "LunarLander-v3" else [])):
        try:
            main(command)
        except SystemExit as stopped:
            assert stopped.code == 2, (name, command, stopped.code)
    config.write_text(config.read_text().replace(name, "CartPole-v1"))
try:
    main(["watch", folder, "--video", "x.gif"])
except SystemExit as stopped:
    assert stopped.code == 0
print(*sorted(path.name for path in pathlib.Path().glob("*.imported")))
try:
    main(["eval", folder, "--env", "phys2d/CartPole-v1"])
except SystemExit:
    print(*sorted(path.name for path in pathlib.Path().glob("*.imported")))
"""


def test_nothing_beside_a_strangers_folder_is_imported(own: Path) -> None:
    assert command("run", "ppo", "--env", "CartPole-v1", *SMALL, "--vec", "sync", "--out", "run").returncode == 0
    for module in ("jax", "ale_py", "minatar", "Box2D", "mujoco", "pygame", "seaborn", "cv2", "envpool", "Box"):
        (own / f"{module}.py").write_text(f"import pathlib\npathlib.Path('{module}.imported').touch()\n")
    names = ["phys2d/CartPole-v1", "ALE/Pong-v5", "LunarLander-v3"]
    path = os.pathsep.join([str(own), "", str(Path(zoo.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, "run", *names],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    before, control = done.stdout.splitlines()[-2:]
    assert before == ""
    assert control == "jax.imported"


def test_a_run_of_a_function_says_how_to_go_on(own: Path) -> None:
    zoo.train(
        "ppo", lambda: gym.make("CartPole-v1"), seed=0, total_steps=100, num_steps=100, eval_every=0, out=own / "run"
    )
    for name in ("eval run", "run --resume run --total-steps 300"):
        refused = command(*name.split())
        assert refused.returncode == 2
        assert "--env path/to/file.py:make_env, or in Python zoo.resume" in refused.text
    done = command("eval", "run", "--env", "CartPole", "--episodes", "2")
    assert done.returncode == 0, done.text


# Pictures.


def test_stacks_are_gymnasiums_and_say_so() -> None:
    mine, theirs = Task("CartPole-v1", frame_stack=3)(), FrameStackObservation(gym.make("CartPole-v1"), 3)
    assert isinstance(mine.observation_space, Stacked)
    assert mine.observation_space == theirs.observation_space
    for seed in range(3):
        assert np.array_equal(mine.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        for action in (0, 1, 1):
            assert np.array_equal(mine.step(action)[0], theirs.step(action)[0])


def needs_pictures() -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")


def test_atari_games_are_preprocessed_and_stacked_by_default() -> None:
    needs_pictures()
    settings = prepare("dqn", "Pong", {}, source="test")
    assert settings.env == "ALE/Pong-v5"
    assert [settings.sources[name] for name in ("atari", "frame_stack", "clip_reward")] == ["Atari"] * 3
    env = task_of(settings)()
    assert env.observation_space == Stacked(gym.spaces.Box(0, 255, (84, 84), np.uint8), 4)
    bare = AtariPreprocessing(gym.make("ALE/Pong-v5", frameskip=1))
    obs, expected = env.reset(seed=3)[0], bare.reset(seed=3)[0]
    for action in (2, 3, 0, 2):
        assert np.array_equal(obs[-1], expected)
        obs, expected = env.step(action)[0], bare.step(action)[0]
    assert obs.any()


@pytest.mark.parametrize(
    ("given", "atari", "frames", "clip"),
    [
        ({"atari": False}, False, 1, False),
        ({"frame_stack": 2}, True, 2, True),
        ({"clip_reward": False}, True, 4, False),
    ],
)
def test_each_of_these_can_be_left_out(given: dict[str, Any], atari: bool, frames: int, clip: bool) -> None:
    needs_pictures()
    run = prepare("dqn", "ALE/Pong-v5", given, source="test").run
    assert (run.atari, run.frame_stack, run.clip_reward) == (atari, frames, clip)
    assert prepare("dqn", "CartPole-v1", {}, source="test").run.atari is False


def test_a_callers_own_game_stays_as_it_is() -> None:
    needs_pictures()
    run = prepare("dqn", gym.make("ALE/Pong-v5"), {}, source="test").run
    assert (run.atari, run.frame_stack, run.clip_reward) == (False, 1, False)


@pytest.mark.parametrize(
    ("env", "kwargs", "message"),
    [
        ("CartPole-v1", {}, "--atari is for ale_py's games; CartPole-v1 is none"),
        ("ALE/Pong-v5", {"obs_type": "ram"}, "observes .*, no pictures; add --no-atari"),
        ("ALE/Pong-v5", {"frameskip": 4}, "--no-atari leaves the game as it is"),
    ],
)
def test_what_cannot_be_preprocessed_is_refused(env: str, kwargs: dict[str, Any], message: str) -> None:
    needs_pictures()
    with pytest.raises(UserError, match=message):
        Task(env, kwargs, atari=True)()


def test_the_extra_is_named_where_pictures_cannot_be_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[atari\]'"):
        Task("ALE/Pong-v5", atari=True)()


def test_an_agent_plays_the_game_that_it_was_trained_in(capsys: pytest.CaptureFixture[str]) -> None:
    needs_pictures()
    small: dict[str, Any] = {"total_steps": 12, "num_steps": 6, "batch_size": 6, "num_epochs": 1, "num_envs": 1}
    agent = zoo.train("ppo", "Freeway", **small, eval_every=0, eval_episodes=0, seed=0, progress=True)
    assert "every 4th frame, 84x84 and grey, 4 stacked, and the signs of rewards" in capsys.readouterr().err
    task = complete("Freeway", agent.spec)
    assert (task.atari, task.frame_stack) == (True, 4)
    agent.spec.check_same(Spec(task().observation_space, task().action_space))
