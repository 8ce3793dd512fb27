"""Environments of one's own, by names that run code: a package's ids, objects in files, wrappers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import zoo
from zoo.envs.ids import resolve_id
from zoo.envs.task import Task
from zoo.errors import UserError

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
    for name in [name for name in gym.registry if name.startswith("Heavy")]:
        gym.registry.pop(name)
    sys.modules.pop("heavies", None)
    return tmp_path


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
        ({"wrap": ("{own}/mine.py:broken",)}, "fails on .*: RuntimeError: no; it is called with the environment alone"),
        ({"wrap": ("json:dumps",)}, "json:dumps"),
    ],
)
def test_so_are_wrong_arguments_and_wrappers(own: Path, task: dict[str, Any], message: str) -> None:
    task = task | {"wrap": tuple(name.format(own=own) for name in task.get("wrap", ()))}
    for env in ("heavies:Heavy-v1", f"{own}/mine.py:make_env"):
        with pytest.raises(UserError, match=message):
            Task(env, **task)()


def test_an_object_is_made_already() -> None:
    with pytest.raises(UserError, match="env_kwargs are for an id or a function"):
        zoo.train("ppo", gym.make("CartPole-v1"), env_kwargs={"sutton_barto_reward": True})


def command(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    import os

    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(zoo.__file__).parents[1]), *([str(path)] if path else [])]),
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "zoo", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("env", "needed"),
    [("heavies:Heavy-v1", ["--env", "heavies:Heavy-v1"]), ("mine.py:make_env", ["--env", "mine.py:make_env"])],
)
def test_one_is_trained_evaluated_watched_and_resumed_from_the_command_line(
    own: Path, env: str, needed: list[str]
) -> None:
    given = ["--env-kwargs", '{"g": 5.0}', "--wrap", "heavies:Doubled"]
    train = ["run", "ppo", "--env", env, *given, *SMALL, "--out", "run"]
    done = command(*train, cwd=own, path=own)
    assert done.returncode == 0, done.stderr
    record = json.loads((own / "run" / "config.json").read_text())
    assert record["env"] == env
    assert (record["run"]["env_kwargs"], record["run"]["wrap"]) == ({"g": 5.0}, ["heavies:Doubled"])
    expected = json.loads((own / "run" / "evaluation.json").read_text())["returns"]
    assert all(value % 2 == 0 and 0 < value <= 120 for value in expected)  # doubled, of at most 60 steps

    repeated = [*needed, "--wrap", "heavies:Doubled"]
    evaluated = command("eval", "run", "--episodes", "5", "--json", *repeated, cwd=own, path=own)
    assert json.loads(evaluated.stdout)["returns"] == expected, evaluated.stderr
    watched = command("watch", "run", "--video", "play.gif", *repeated, cwd=own, path=own)
    assert watched.returncode == 0, watched.stderr
    assert watched.stdout.splitlines()[-1].startswith(f"return {expected[0]:.1f}")
    resumed = command("run", "--resume", "run", "--total-steps", "400", *repeated, cwd=own, path=own)
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.parametrize("name", ["eval run", "watch run --video play.gif", "run --resume run --total-steps 400"])
def test_a_strangers_folder_imports_nothing_until_its_code_is_named(own: Path, name: str) -> None:
    train = ["run", "ppo", "--env", "heavies:Heavy-v1", "--wrap", "mine.py:Doubled", *SMALL, "--out", "run"]
    assert command(*train, cwd=own, path=own).returncode == 0
    canary = own / "was_imported"
    for file in ("heavies.py", "mine.py"):
        (own / file).write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")
    refused = command(*name.split(), cwd=own, path=own)
    assert refused.returncode == 2
    assert "--env heavies:Heavy-v1" in refused.stderr
    assert "--wrap mine.py:Doubled" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    partly = command(*name.split(), "--env", "CartPole-v1", cwd=own, path=own)
    assert partly.returncode == 2
    assert not canary.exists()
    # Control: named, it is imported (and has no wrapper any more).
    named = command(*name.split(), "--env", "CartPole-v1", "--wrap", "mine.py:Doubled", cwd=own, path=own)
    assert named.returncode == 2
    assert canary.exists()


def test_arguments_that_name_files_are_asked_for_again(own: Path) -> None:
    folder = own / "run"
    train = ["run", "ppo", "--env", "CartPole-v1", *SMALL, "--out", "run"]
    assert command(*train, cwd=own).returncode == 0
    record = json.loads((folder / "config.json").read_text())
    record["run"]["env_kwargs"] = {"xml_file": "/tmp/stranger.xml"}
    (folder / "config.json").write_text(json.dumps(record))
    refused = command("eval", "run", cwd=own)
    assert (refused.returncode, "--env-kwargs" in refused.stderr) == (2, True)


def test_a_run_of_a_function_says_how_to_go_on(own: Path) -> None:
    zoo.train(
        "ppo", lambda: gym.make("CartPole-v1"), seed=0, total_steps=100, num_steps=100, eval_every=0, out=own / "run"
    )
    for name in ("eval run", "run --resume run --total-steps 300"):
        refused = command(*name.split(), cwd=own)
        assert refused.returncode == 2
        assert "--env path/to/file.py:make_env, or in Python zoo.resume" in refused.stderr
    done = command("eval", "run", "--env", "CartPole", "--episodes", "2", cwd=own)
    assert done.returncode == 0, done.stderr
