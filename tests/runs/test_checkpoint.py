"""A run that was interrupted and resumed ends as the one that was not, bit for bit; damaged checkpoints are refused.

Both ends are compared as files: the last checkpoint of a run holds its weights, optimisers, buffers, counters, random
streams and environments.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from zoo import registry, runs
from zoo.buffers.replay import ReplayBuffer
from zoo.buffers.rollout import RolloutBuffer
from zoo.buffers.rows import allocate
from zoo.cli import main
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.envs.replay import replay
from zoo.envs.task import Task
from zoo.errors import RunError, UserError
from zoo.protocol import Transition
from zoo.runs.checkpoint import FOLDER, MANIFEST, load, save
from zoo.settings import NATIVE
from zoo.spec import Spec
from zoo.storage.files import Folder, open_folder
from zoo.storage.state import Unpacker, pack

ENTRIES = sorted(registry.load().algorithms)
TIMING = {"seconds", "steps_per_second"}
SMALL: dict[str, dict[str, Any]] = {
    "dqn": {
        "env": "CartPole-v1",
        "num_envs": 2,
        "learning_starts": 50,
        "train_every": 4,
        "num_updates": 2,
        "capacity": 200,
    },
    "d3qn": {
        "env": "CartPole-v1",
        "num_envs": 2,
        "learning_starts": 50,
        "train_every": 4,
        "num_updates": 2,
        "capacity": 200,
    },
    "fvi": {
        "env": "CartPole-v1",
        "num_envs": 2,
        "model": "learned",
        "model_hidden": (16,),
        "learning_starts": 50,
        "train_every": 4,
        "capacity": 200,
    },
    "tdv": {"env": "CartPole-v1", "num_envs": 2, "num_steps": 4, "model": "learned", "model_hidden": (16,)},
    "sarsa": {"env": "CartPole-v1", "num_envs": 2, "num_steps": 4},
    "qac": {"env": "CartPole-v1", "num_envs": 2, "num_steps": 8},
    "ddpg": {"env": "Pendulum-v1", "learning_starts": 50, "train_every": 4, "capacity": 150, "noise": "ou"},
    "td3": {"env": "Pendulum-v1", "learning_starts": 50, "train_every": 4, "num_envs": 2},
    "sac": {"env": "Pendulum-v1", "learning_starts": 50, "train_every": 4, "num_envs": 2},
    "impala": {"env": "CartPole-v1", "num_envs": 3, "num_steps": 8},
    "impala_replay": {"env": "CartPole-v1", "num_envs": 3, "num_steps": 8, "capacity": 300},
    "ppo": {"env": "Pendulum-v1", "num_envs": 3, "num_steps": 32, "batch_size": 32},
    "a2c": {"env": "CartPole-v1", "num_envs": 3, "num_steps": 8},
}
STEPS = 480


class StopError(Exception):
    """Stands for any sudden end."""


def train(
    folder: Path, name: str, *, stop_at: int | None = None, every: int | str = 70, **changes: Any
) -> dict[str, torch.Tensor]:
    """Train, dying without a word once `stop_at` steps are reported; the final state."""
    given: dict[str, Any] = {"total_steps": STEPS, "seed": 3, "hidden": (16, 16), "log_every": 30, "eval_episodes": 0}
    given |= {"eval_every": 120, "validation_episodes": 2, **SMALL[name], **changes}
    env = given.pop("env")
    settings = runs.prepare(name, env, given, source="test")
    runs.run(settings, env, out=folder, checkpoint_every=every, on_row=dying(stop_at))
    return end_of(folder)


def dying(stop_at: int | None) -> Callable[[dict[str, float]], None]:
    def on_row(row: dict[str, float]) -> None:
        if stop_at is not None and row["step"] >= stop_at:
            raise StopError

    return on_row


def end_of(folder: Path) -> dict[str, torch.Tensor]:
    newest = json.loads((folder / FOLDER / MANIFEST).read_text())["checkpoints"][-1]["file"]
    return load_file(folder / FOLDER / newest)


def numbers_of(folder: Path) -> Any:
    """The part of the last checkpoint that is JSON, without times."""
    newest = json.loads((folder / FOLDER / MANIFEST).read_text())["checkpoints"][-1]["file"]
    with safe_open(folder / FOLDER / newest, "pt") as file:
        state = json.loads(file.metadata()["state"])
    del state["recorder"]["elapsed"], state["recorder"]["written"]
    return state


def rows_of(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMING} for line in lines]


def assert_same_end(one: Path, other: Path) -> None:
    ends = end_of(one), end_of(other)
    assert ends[0].keys() == ends[1].keys()
    for key, value in ends[0].items():
        assert torch.equal(value, ends[1][key]), key
    assert numbers_of(one) == numbers_of(other)
    assert rows_of(one) == rows_of(other)


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ENTRIES},
    "exact model": ("tdv", {"model": "exact"}),
    "d3qn, n-step without dueling": ("d3qn", {"n_step": 3, "dueling": False}),
    "sarsa, n-step": ("sarsa", {"n_step": 2, "target_every": 3}),
    "sac, OU noise": ("sac", {"noise": "ou", "noise_std": 0.3}),
    "impala_replay that lags": ("impala_replay", {"lag": 3}),
    "ppo, normalised": ("ppo", {"normalize_obs": True, "normalize_reward": True}),
    "a2c in processes": ("a2c", {"vec": "async"}),
    "a2c on a native vector environment": ("a2c", {"vec": "native", "num_envs": 4}),
    "ppo on native Pendulums": ("ppo", {"vec": "native"}),
    "sac on native mountain cars": ("sac", {"vec": "native", "env": "MountainCarContinuous-v0"}),
    "qac on integers": ("qac", {"env": "FrozenLake-v1"}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_resumed_run_ends_as_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    name, changes = OPTIONS[case]
    train(tmp_path / "whole", name, **changes)
    with pytest.raises(StopError):
        train(tmp_path / "halved", name, stop_at=STEPS // 2, **changes)
    begun = rows_of(tmp_path / "halved")
    zoo.resume(tmp_path / "halved", checkpoint_every=70)
    assert begun[-1]["step"] < STEPS
    assert_same_end(tmp_path / "whole", tmp_path / "halved")


@pytest.mark.parametrize("name", ["ppo", "sac", pytest.param("impala", marks=pytest.mark.matrix)])
def test_compiled_updates_resume_exactly_too(name: str, tmp_path: Path) -> None:
    train(tmp_path / "whole", name, compile="on")
    with pytest.raises(StopError):
        train(tmp_path / "halved", name, stop_at=STEPS // 2, compile="on")
    zoo.resume(tmp_path / "halved", checkpoint_every=70)
    assert_same_end(tmp_path / "whole", tmp_path / "halved")


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    train(tmp_path / "often", "dqn", every=20)
    train(tmp_path / "never", "dqn", every="600min")
    assert_same_end(tmp_path / "often", tmp_path / "never")


@pytest.mark.parametrize("forgotten", ["generator", "num_updates"])
def test_what_is_not_saved_is_missed(forgotten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: leaving out any part of the state shows."""
    cls = registry.load_class("sarsa")
    monkeypatch.setattr(cls, "saved", tuple(name for name in cls.saved if name != forgotten))
    changes: dict[str, Any] = {"target_every": 7, "num_steps": 4, "n_step": 2, "epsilon_end": 0.9}
    train(tmp_path / "whole", "sarsa", **changes)
    with pytest.raises(StopError):
        train(tmp_path / "halved", "sarsa", stop_at=STEPS // 2, every=64, **changes)
    zoo.resume(tmp_path / "halved", checkpoint_every=70)
    with pytest.raises(AssertionError):
        assert_same_end(tmp_path / "whole", tmp_path / "halved")


class Stubborn(gym.Env[Any, Any]):
    """Counts steps, also across resets, and shows the count: no replay leads to the same observation."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.show(), 1.0, False, self.count % 50 == 0, {}

    def show(self) -> Any:
        return np.array([self.count], np.float32)


def test_an_environment_that_is_not_deterministic_is_reported_and_its_episode_restarted(tmp_path: Path) -> None:
    settings = runs.prepare("a2c", Stubborn, {"total_steps": 200, "seed": 0, "log_every": 20}, source="test")
    with pytest.raises(StopError):
        runs.run(settings, Stubborn, out=tmp_path / "run", checkpoint_every=20, on_row=dying(100))
    with pytest.warns(UserWarning, match="environment 0 start anew: replaying"):
        result = zoo.resume(tmp_path / "run", Stubborn)
    assert result.evaluation is not None


@pytest.mark.parametrize(
    ("env_id", "vec"),
    [("CartPole-v1", "sync"), ("CartPole-v1", "async"), *((env_id, "native") for env_id in sorted(NATIVE))],
)
def test_environments_are_replayed_to_where_they_were(env_id: str, vec: str) -> None:
    def make() -> Envs:
        return Envs(vectorize(Task(env_id, {"max_episode_steps": 90}), 3, vec), SeedSequence(5))

    def some_actions() -> Any:
        discrete = isinstance(envs.spec.action_space, spaces.Discrete)
        return rng.integers(2, size=3) if discrete else rng.uniform(-1, 1, (3, 1)).astype(np.float32)

    envs = make()
    envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(137):
        envs.step(some_actions(), np.zeros(3))
    tensors: dict[str, torch.Tensor] = {}
    state = pack(envs, "envs", tensors)
    other = make()
    other.reset()
    Unpacker(tensors).restore(other, state, "envs")
    assert not len(replay(other))
    for _ in range(50):
        action = some_actions()
        one, two = (each.step(action, np.zeros(3)) for each in (envs, other))
        for mine, theirs in zip(one.transition, two.transition, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert one.episodes == two.episodes
    envs.close()
    other.close()


def test_actors_elsewhere_go_on_with_new_episodes(tmp_path: Path) -> None:
    remote = {"engine": "processes", "actors": 2, "num_envs": 1}
    with pytest.raises(StopError):
        train(tmp_path / "run", "impala", stop_at=240, every=40, **remote)
    with pytest.warns(UserWarning, match="actors elsewhere start new episodes"):
        zoo.resume(tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})


def given_for(name: str) -> dict[str, Any]:
    given: dict[str, Any] = {"total_steps": STEPS, "seed": 3, "hidden": (16, 16), "log_every": 30, "eval_episodes": 0}
    given |= {"eval_every": 120, "validation_episodes": 2, **SMALL[name]}
    del given["env"]
    return given


def test_the_command_line_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StopError):
        train(tmp_path / "run", "a2c", stop_at=240)
    with pytest.raises(SystemExit) as raised:
        main(["run", "--resume", str(tmp_path / "run"), "--total-steps", "600"])
    shown = capsys.readouterr()
    assert raised.value.code == 0
    assert "600/600 (100%)" in shown.out
    assert "zoo: the budget changes from 480 to 600 steps" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--resume", "nowhere"], "nowhere is not a run's folder"),
        (["run", "--resume", "RUN", "a2c", "--env", "CartPole"], "leave out the algorithm"),
        (["run", "--total-steps", "7"], "put the algorithm first"),
        (["run", "--resume", "RUN", "--total-steps", "many"], "total_steps = 'many'"),
        (["run", "--resume", "RUN", "--checkpoint-every", "soon"], "expected steps, as 10000, or minutes"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", "a2c")
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path / "run") if argument == "RUN" else argument for argument in arguments])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_one_run_has_one_process(tmp_path: Path) -> None:
    def again(row: dict[str, float]) -> None:
        zoo.resume(tmp_path / "run")

    settings = runs.prepare("a2c", "CartPole-v1", {"total_steps": 100}, source="test")
    with pytest.raises(UserError, match="is in use: another process is at work"):
        runs.run(settings, "CartPole-v1", out=tmp_path / "run", on_row=again)


def test_two_checkpoints_are_kept_and_each_is_whole(tmp_path: Path) -> None:
    train(tmp_path / "run", "a2c", every=48)
    folder = tmp_path / "run" / FOLDER
    entries = json.loads((folder / MANIFEST).read_text())["checkpoints"]
    assert [entry["step"] for entry in entries] == [432, 480]
    assert {file.name for file in folder.iterdir()} == {MANIFEST, *(entry["file"] for entry in entries)}


def test_a_damaged_checkpoint_gives_way_to_the_one_before(stopped: Path, tmp_path: Path) -> None:
    train(tmp_path / "whole", "dqn")
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    newest = sorted((run / FOLDER).glob("*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged.*; trying the checkpoint before it"):
        zoo.resume(run, checkpoint_every=70)
    assert_same_end(tmp_path / "whole", run)


def reseal(run: Path) -> None:
    """Give a changed file a manifest that fits, as somebody would who means harm."""
    manifest = run / FOLDER / MANIFEST
    data = json.loads(manifest.read_text())
    for entry in data["checkpoints"]:
        entry["sha256"] = hashlib.sha256((run / FOLDER / entry["file"]).read_bytes()).hexdigest()
    manifest.write_text(json.dumps(data))


def change(run: Path, edit: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    for file in (run / FOLDER).glob("*.safetensors"):
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        state = json.loads(metadata["state"])
        edit(tensors, state)
        save_file(tensors, file, {"schema": metadata["schema"], "state": json.dumps(state)})
    reseal(run)


WRONG: dict[str, tuple[Callable[[dict[str, torch.Tensor], dict[str, Any]], Any], str]] = {
    "a tensor is missing": (lambda t, s: t.pop("learner.algo.q.body.1.weight"), "q.body.1.weight is missing"),
    "a tensor too many": (lambda t, s: t.update(extra=torch.zeros(1)), "it has extra, which this run does not"),
    "a shape": (lambda t, s: t.update({"learner.buffer._next": torch.zeros(3, dtype=torch.int64)}), "_next has shape"),
    "a type": (lambda t, s: t.update({"learner.buffer._next": torch.zeros(2)}), "of torch.float32; expected"),
    "a key is missing": (lambda t, s: s["learner"].pop("step"), "learner has"),
    "a key too many": (lambda t, s: s["learner"].update(a=1), "learner has"),
    "text for a number": (
        lambda t, s: s["learner"].update(step="many"),
        "learner.step is 'many'; expected a count below 2.53",
    ),
    "no object": (lambda t, s: s.update(learner=7), "learner has int"),
    "a random stream": (lambda t, s: s["learner"]["buffer"]["rng"].update(state=1), "does not fit this run"),
    "slots out of range": (lambda t, s: t["learner.buffer._next"].fill_(10**6), "learner.buffer"),
    "an action that does not exist": (lambda t, s: t["learner.buffer.contents.1"].fill_(2), "learner.buffer"),
    "more rows than there are": (lambda t, s: s["learner"]["buffer"].update(_used=10**6), "learner.buffer"),
    "no actions to replay": (lambda t, s: t["learner.source.envs.lengths"].fill_(10**9), "learner.source.envs"),
    "NaN in the weights": (lambda t, s: t["learner.algo.q.body.1.weight"].fill_(float("nan")), "q.body.1.weight"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named_and_nothing_is_trained(case: str, stopped: Path, tmp_path: Path) -> None:
    edit, message = WRONG[case]
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    change(run, edit)
    with pytest.raises(UserError, match=message):
        zoo.resume(run)
    assert rows_of(run) == rows_of(stopped)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("config", "hidden", [100_000, 100_000], "it needs more than"),
        ("config", "capacity", 10**15, "does not fit the"),
        ("run", "num_envs", 10**9, "num_envs = 1000000000"),
        ("run", "total_steps", "many", "total_steps = 'many'"),
        ("config", "gamma", 7, "gamma = 7"),
        ("config", "unknown", 7, "no setting 'unknown'"),
    ],
)
def test_settings_of_a_stranger_cost_no_more_than_their_checkpoint(
    part: str, key: str, value: Any, message: str, stopped: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config[part][key] = value
    (run / "config.json").write_text(json.dumps(config))
    before = psutil.Process().memory_info().rss
    with pytest.raises(UserError, match=message):
        zoo.resume(run)
    assert psutil.Process().memory_info().rss < before + 2**28


def test_a_checkpoint_of_another_run_is_refused(stopped: Path, tmp_path: Path) -> None:
    train(tmp_path / "other", "a2c")
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    shutil.rmtree(run / FOLDER)
    shutil.copytree(tmp_path / "other" / FOLDER, run / FOLDER)
    with pytest.raises(UserError, match="does not fit this run"):
        zoo.resume(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[]", "not a manifest of schema 2"),
        ('{"schema": 1, "checkpoints": []}', "not a manifest of schema 2"),
        ('{"schema": 2, "checkpoints": [{"file": "../x", "step": 1, "sha256": ""}]}', "not a manifest of schema 2"),
    ],
)
def test_a_wrong_manifest_is_refused(text: str, message: str, stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    (run / FOLDER / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=message):
        zoo.resume(run)


def test_a_run_that_has_no_checkpoint_yet_starts_again(stopped: Path, tmp_path: Path) -> None:
    train(tmp_path / "whole", "dqn")
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    shutil.rmtree(run / FOLDER)
    with pytest.warns(UserWarning, match="stopped before its first checkpoint: it starts from the beginning"):
        zoo.resume(run)
    assert_same_end(tmp_path / "whole", run)


def newest_checkpoint(run: Path) -> Path:
    return sorted((run / FOLDER).glob("*.safetensors"))[-1]


def test_a_missing_checkpoint_gives_way_to_the_one_before(stopped: Path, tmp_path: Path) -> None:
    train(tmp_path / "whole", "dqn")
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    newest_checkpoint(run).unlink()
    with pytest.warns(UserWarning, match="cannot be read: No such file.*; trying the checkpoint before it"):
        zoo.resume(run, checkpoint_every=70)
    assert_same_end(tmp_path / "whole", run)


def killed_before_the_manifest(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on with a run, dying once a checkpoint's file has its name and before the manifest has the file's."""

    def die(self: Folder, name: str, data: Any) -> None:
        if name == MANIFEST:
            raise StopError
        original(self, name, data)

    original = Folder.write_json
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write_json", die)
        with pytest.raises(StopError):
            zoo.resume(run, checkpoint_every=70)


@pytest.mark.parametrize("every", [70, "600min"])  # which leave two checkpoints and one
def test_a_finished_run_that_is_resumed_and_killed_keeps_its_checkpoints(
    every: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", "a2c", every=every)
    run = Path(shutil.copytree(tmp_path / "whole", tmp_path / "run"))
    before = {file.name: file.read_bytes() for file in (run / FOLDER).iterdir()}
    killed_before_the_manifest(run, monkeypatch)
    after = {file.name: file.read_bytes() for file in (run / FOLDER).iterdir()}
    assert {name: after[name] for name in before} == before  # nothing is written over
    zoo.resume(run, checkpoint_every=70)  # without a warning
    assert_same_end(tmp_path / "whole", run)


def test_a_checkpoint_found_damaged_does_not_count_among_those_that_are_kept(stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    newest = newest_checkpoint(run)
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(StopError), pytest.warns(UserWarning, match="is damaged"):
        zoo.resume(run, checkpoint_every=50, on_row=dying(300))  # one more checkpoint
    entries = json.loads((run / FOLDER / MANIFEST).read_text())["checkpoints"]
    assert len(entries) == 2
    for entry in entries:
        assert hashlib.sha256((run / FOLDER / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("without_manifest", [False, True])
def test_a_run_whose_checkpoints_were_named_by_their_step_goes_on(without_manifest: bool, tmp_path: Path) -> None:
    """A run of A2C on two CartPoles that was stopped at step 150 of 200, its last checkpoint at step 120."""
    run = Path(shutil.copytree(Path(__file__).parent / "frozen" / "run", tmp_path / "run"))
    begun = rows_of(run)
    with warnings.catch_warnings():
        if without_manifest:
            (run / FOLDER / MANIFEST).unlink()
            warnings.filterwarnings("ignore", message=r".*manifest\.json is missing")
        zoo.resume(run, checkpoint_every=40)
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [50, 100, 150, 200]
    assert rows[:2] == begun[:2]
    entries = json.loads((run / FOLDER / MANIFEST).read_text())["checkpoints"]
    assert [(entry["file"], entry["step"]) for entry in entries] == [
        ("000000000121.safetensors", 160),
        ("000000000122.safetensors", 200),
    ]


@pytest.mark.parametrize("newest_is_cut", [False, True])
def test_a_missing_manifest_is_made_anew(newest_is_cut: bool, stopped: Path, tmp_path: Path) -> None:
    train(tmp_path / "whole", "dqn")
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    before = json.loads((run / FOLDER / MANIFEST).read_text())
    (run / FOLDER / MANIFEST).unlink()
    newest = newest_checkpoint(run)
    if newest_is_cut:
        newest.write_bytes(newest.read_bytes()[:-1])
        del before["checkpoints"][-1]
    kept = {file: file.read_bytes() for file in (run / FOLDER).iterdir()}
    seen = []

    def look(row: dict[str, float]) -> None:
        if not seen:
            seen.append(json.loads((run / FOLDER / MANIFEST).read_text()))
            assert {file: file.read_bytes() for file in kept} == kept

    with pytest.warns(UserWarning, match=r"manifest\.json is missing; it is made anew"):
        zoo.resume(run, checkpoint_every=10**6, on_row=look)
    assert seen == [before]
    assert_same_end(tmp_path / "whole", run)


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore:episodes in environment")  # an end too: what does not replay starts anew
def test_any_changed_checkpoint_is_refused_by_name_or_trains(tmp_path: Path) -> None:
    """200 files with flipped bits, exchanged digits or cut ends, under digests that fit."""
    original = tmp_path / "original"
    with pytest.raises(StopError):
        train(original, "dqn", stop_at=450, every=50)
    rng = np.random.default_rng(0)
    ends = {"refused": 0, "stopped": 0, "trained": 0}
    for _ in range(200):
        run = Path(shutil.copytree(original, tmp_path / "run"))
        for file in sorted((run / FOLDER).glob("*.safetensors")):
            file.write_bytes(changed(file.read_bytes(), rng))
        reseal(run)
        try:
            zoo.resume(run)
            ends["trained"] += 1
        except UserError:
            ends["refused"] += 1
        except RunError:
            ends["stopped"] += 1
        shutil.rmtree(run)
    assert sum(ends.values()) == 200
    assert min(ends["refused"], ends["trained"]) > 10, ends


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    data, header = bytearray(content), int.from_bytes(content[:8], "little")
    for _ in range(rng.integers(1, 4)):
        within = [header + 8, len(data)][rng.integers(2)]
        place = int(rng.integers(8, within))
        match rng.integers(4):
            case 0:
                data[place] ^= 1 << rng.integers(8)
            case 1:
                digits = [i for i in range(8, header) if chr(data[i]).isdigit()]
                data[digits[rng.integers(len(digits))]] = ord("9")
            case 2:
                data[place : place + 4] = rng.bytes(4)
            case 3:
                if rng.random() < 0.2:
                    del data[place:]
                    return bytes(data)
    return bytes(data)


def test_a_link_is_not_a_checkpoint(stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    for file in (run / FOLDER).glob("*.safetensors"):
        file.rename(tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
    with pytest.raises(UserError, match="not a plain file"):
        zoo.resume(run)


def test_a_failed_save_harms_no_earlier_checkpoint(stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    before = {file.name: file.read_bytes() for file in (run / FOLDER).iterdir()}
    with open_folder(run) as folder:
        with pytest.raises(TypeError):
            save(folder, {"learner": object()}, 10**6)
        with pytest.raises(KeyError):  # a type that the format does not have, found once writing has begun
            save(folder, {"learner": torch.zeros(2, dtype=torch.complex64)}, 10**6)
    assert {file.name: file.read_bytes() for file in (run / FOLDER).iterdir()} == before
    with open_folder(run) as folder, pytest.raises(UserError, match="does not fit this run"):
        load(folder, {"learner": None})


SPEC = Spec(spaces.Box(-1, 1, (1,)), spaces.Discrete(2))


def transition(value: float) -> Transition:
    row = allocate(SPEC, 2)
    row.obs[:], row.next_obs[:] = value, value + 1
    return row


def test_a_broken_stream_is_truncated_in_a_replay() -> None:
    buffer = ReplayBuffer(SPEC, 2, torch.Generator().manual_seed(0), capacity=20, batch_size=64, n_step=2)
    for value in (0, 1):
        buffer.add(transition(value), np.ones(2, np.bool_))
    buffer.cut(np.array([1]))  # the second column goes on elsewhere
    for value in (50, 51):
        buffer.add(transition(value), np.ones(2, np.bool_))
    sample = buffer.sample()
    rows = sample.rows
    at_break = rows.obs[0, :, 0] == 1
    second = sample.slot % 2 == 1
    assert (at_break & second).any()
    assert rows.truncated[0, at_break & second].all()
    assert (rows.next_obs[0, at_break & second] == 2).all()  # the true successor, not 50
    # The first column was not cut: what was added next follows there.
    assert not rows.truncated[0, at_break & ~second].any()
    assert (rows.obs[1, at_break & ~second] == 50).all()


def test_a_broken_stream_begins_a_new_rollout_column() -> None:
    buffer = RolloutBuffer(SPEC, 2, 2)
    buffer.add(transition(0), np.ones(2, np.bool_))
    buffer.cut(np.array([1]))
    buffer.add(transition(50), np.ones(2, np.bool_))
    assert not list(buffer.batches())
    buffer.add(transition(51), np.ones(2, np.bool_))
    (rollout,) = buffer.batches()
    assert rollout.obs[:, 1, 0].tolist() == [50, 51]


def rewritten(run: Path, tmp_path: Path, changes: dict[str, Any]) -> Path:
    """A copy of a run whose config.json has other settings."""
    copy = Path(shutil.copytree(run, tmp_path / "rewritten"))
    config = json.loads((copy / "config.json").read_text())
    config["run"] |= changes
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_a_checkpoint_too_large_to_be_mapped_gives_way(stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    (run / FOLDER / MANIFEST).unlink()
    size = 2**43
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    giant = run / FOLDER / "000000000999.safetensors"
    giant.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(giant, 8 + len(header) + size)
    with pytest.warns(UserWarning, match="is made anew"):
        zoo.resume(run, checkpoint_every=70)
    assert rows_of(run)[-1]["step"] == STEPS


@pytest.mark.parametrize("left", ["no folder", "an empty folder"])
def test_a_finished_run_without_checkpoints_is_not_begun_anew(left: str, tmp_path: Path) -> None:
    train(tmp_path / "run", "a2c")
    shutil.rmtree(tmp_path / "run" / FOLDER)
    if left == "an empty folder":
        (tmp_path / "run" / FOLDER).mkdir()
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="run is finished, and has no checkpoint to go on from"):
        zoo.resume(tmp_path / "run")
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
