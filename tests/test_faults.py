"""Faults under a run: each ends with a clear message and its own exit code, or not at all, and nothing is lost.

Run by `pytest -m faults`, which counts the faults that were injected and survived.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium import spaces
from tally import Tally
from test_checkpoint import ENTRIES, OPTIONS, StopError, assert_same_end, rows_of, train

import zoo
from zoo import envs, runs
from zoo.checkpoint import FOLDER, MANIFEST
from zoo.errors import DivergedError, EnvError, Interrupted, RunError, StorageError
from zoo.events import Events
from zoo.files import Folder

pytestmark = pytest.mark.faults


def in_child(work: Callable[[], Any]) -> int:
    """A copy of this process that does `work` and exits with the code of the error that it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 frowns on forks
        pid = os.fork()
    if pid:
        return pid
    code = 0
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        warnings.simplefilter("ignore")
        work()
    except (RunError, Interrupted) as error:
        code = error.code
    except BaseException:
        code = 1
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finish(folder: Path) -> None:
    with warnings.catch_warnings():
        # Killed before the first checkpoint, or before the manifest that names it.
        warnings.filterwarnings("ignore", message="the run stopped before its first checkpoint")
        warnings.filterwarnings("ignore", message=r".*manifest\.json is missing; it is made anew")
        zoo.resume(folder, checkpoint_every=40)


COMPILED = """
import sys
from pathlib import Path
from test_checkpoint import train
train(Path(sys.argv[1]), sys.argv[2], every=40, compile="on")
"""


@pytest.mark.parametrize("name", ENTRIES)
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


@pytest.mark.parametrize("moment", ["before the file", "after the file", "before the manifest", "after the manifest"])
def test_a_kill_while_a_checkpoint_is_written(
    moment: str, tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", "dqn", every=100)
    when, _, what = moment.partition(" the ")
    suffix = ".safetensors" if what == "file" else MANIFEST
    original = Folder._rename

    def rename(self: Folder, part: str, name: str) -> None:
        last = name.endswith(suffix) and "agent" not in name and (tmp_path / "run" / FOLDER / MANIFEST).exists()
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, part, name)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    with tally.fault():
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "_rename", rename)
            assert exit_code(in_child(lambda: train(tmp_path / "run", "dqn", every=100))) == -signal.SIGKILL
        finish(tmp_path / "run")
        assert_same_end(tmp_path / "whole", tmp_path / "run")


class Flawed(gym.Env[Any, Any]):
    """Does what its name says in step 30 of its second episode, the first time; never again once `mark` exists."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, flaw: str, mark: Path) -> None:
        self.flaw, self.mark, self.episodes, self.count = flaw, mark, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes, self.count = self.episodes + 1, 0
        if self.flaw == "raises in reset" and self.episodes == 3 and self.fails_now():
            raise OSError("the simulator is gone")
        return np.zeros(2, np.float32), {}

    def fails_now(self) -> bool:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.count += 1
        obs: Any = np.array([self.count, float(action)], np.float32)
        reward: Any = 1.0
        if self.episodes == 2 and self.count == 30 and self.flaw != "raises in reset" and self.fails_now():
            match self.flaw:
                case "raises in step":
                    raise ZeroDivisionError("no ground below")
                case "raises what cannot be sent":
                    raise TwoArgumentsError("no", "ground")
                case "observes NaN":
                    obs[1] = np.nan
                case "rewards infinity":
                    reward = np.inf
                case "has another shape":
                    obs = np.zeros(3, np.float32)
                case "has another kind":
                    obs = np.array(["a", "b"])
                case "rewards a text":
                    reward = "much"
                case "hangs":
                    time.sleep(3600)
                case "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
        return obs, reward, False, self.count == 50, {}


class TwoArgumentsError(Exception):
    """Cannot be pickled and made again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


HERE = r"environment \d failed in step 30 of the episode with seed \d+, given action [01]"
FLAWS = {
    "raises in step": rf"{HERE}: ZeroDivisionError: no ground below\n(.*\n)+.*no ground below",
    "raises what cannot be sent": rf"{HERE}: TwoArgumentsError: no ground",
    "raises in reset": r"environment \d failed in step 0 of the episode with seed \d+, in reset: OSError: the sim",
    "observes NaN": r"environment \d, step 30 of its episode, given action [01]: the observation is NaN",
    "rewards infinity": r"environment \d, step 30 of its episode, given action [01]: the reward is NaN or inf",
    "has another shape": r"its observation has shape \(3,\); its space says \(2,\)",
    "has another kind": r"the environments failed in step: .*",
    "rewards a text": r"the environments failed in step: ValueError: could not convert string to float: 'much'",
    "hangs": r"no answer from the environments' processes within 2 seconds",
    "dies": r"the process of environment \d died",
}
ALONE = {"hangs", "dies"}  # here, that would be the end of the run


@pytest.mark.parametrize(
    ("flaw", "vec"), [(flaw, vec) for flaw in FLAWS for vec in ("sync", "async") if vec == "async" or flaw not in ALONE]
)
def test_a_failing_environment(
    flaw: str, vec: str, tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stops and says where; nothing bad was learned from: resumed, it ends as one that never failed."""
    monkeypatch.setattr(envs, "TIMEOUT", 2.0)
    given = {"total_steps": 400, "seed": 1, "num_envs": 2, "vec": vec, "log_every": 20, "eval_every": 0}
    settings = runs.prepare("dqn", lambda: gym.Env(), {**given, "eval_episodes": 0, "learning_starts": 20}, source="t")

    def make() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Flawed(flaw, tmp_path / "failed"), 60)

    def good() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Flawed("none", tmp_path), 60)

    runs.run(settings, good, out=tmp_path / "whole", checkpoint_every=20)
    before = {process.pid for process in psutil.Process().children()}
    with tally.fault():
        with pytest.raises(EnvError, match=FLAWS[flaw]) as raised:
            runs.run(settings, make, out=tmp_path / "run", checkpoint_every=20)
        assert raised.value.code == 3
        assert {process.pid for process in psutil.Process().children()} == before
        zoo.resume(tmp_path / "run", make)
        assert_same_end(tmp_path / "whole", tmp_path / "run")


class Odd(gym.Env[Any, Any]):
    """Returns the same array each time, of another type than its space's, beyond its bounds, and giant rewards."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.obs = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.obs[:] = 0
        return self.obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.obs += 1
        return self.obs, 1e12, False, self.obs[0] >= 10, {}


def test_an_odd_environment_is_stored_as_it_was(tally: Tally) -> None:
    from numpy.random import SeedSequence

    from zoo.vector import vectorize

    with tally.fault():
        odd = envs.Envs(vectorize(Odd, 2), SeedSequence(0))
        odd.reset()
        steps = [odd.step(np.zeros(2, np.int64), np.zeros(2, np.float32)).transition for _ in range(25)]
        for t, transition in enumerate(steps):
            assert transition.obs.dtype == np.float32
            assert (transition.obs == t % 10).all()
            assert (transition.next_obs == t % 10 + 1).all()
            assert (transition.reward == 1e12).all()
        odd.close()


@pytest.mark.parametrize("name", ["dqn", "td3", "sac", "ppo", "a2c"])
def test_training_that_diverges_stops(name: str, tmp_path: Path, tally: Tally) -> None:
    with tally.fault():
        with pytest.raises(DivergedError, match="became NaN") as raised:
            train(tmp_path / "run", name, every=40, learning_rate=1e25, activation="relu")
        assert raised.value.code == 4
        assert not (tmp_path / "run" / "last").exists() or finite(tmp_path / "run" / "last")
        with pytest.raises(DivergedError):  # the checkpoint is one from which it happens again
            finish(tmp_path / "run")


def finite(folder: Path) -> bool:
    return all(bool(value.isfinite().all()) for value in zoo.load(folder).state_dict().values())


def test_a_full_disk(tmp_path: Path, tally: Tally) -> None:
    """A limit on the size of files stands for it: the replay grows beyond it, the first checkpoints do not."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        train(tmp_path / "run", "sac", every=40, capacity=10_000, total_steps=4000)

    with tally.fault():
        assert exit_code(in_child(limited)) == StorageError.code
        assert not list((tmp_path / "run").rglob("*.part"))
        entries = json.loads((tmp_path / "run" / FOLDER / MANIFEST).read_text())["checkpoints"]
        assert entries
        train(tmp_path / "whole", "sac", every=40, capacity=10_000, total_steps=4000)
        finish(tmp_path / "run")
        assert_same_end(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("how", ["removed", "replaced by a file"])
def test_a_folder_that_goes_away(how: str, tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "run"

    def sabotage(row: dict[str, float]) -> None:
        if row["step"] == 240:
            shutil.rmtree(folder)
            if how != "removed":
                folder.touch()

    settings = runs.prepare("sac", "Pendulum-v1", {"total_steps": 600, "log_every": 40}, source="test")
    with tally.fault(), pytest.raises(StorageError, match=r"(no checkpoint could|cannot) be written"):
        runs.run(settings, "Pendulum-v1", out=folder, checkpoint_every=100, on_row=sabotage)


def test_a_broken_tensorboard_does_not_stop_training(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Events, "add", fail)
    with tally.fault():
        with pytest.warns(UserWarning, match="no TensorBoard events from step 30 on: no space left"):
            train(tmp_path / "run", "a2c")
        assert rows_of(tmp_path / "run")[-1]["step"] == 480


def test_the_clock_may_jump(tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    with tally.fault():
        train(tmp_path / "run", "a2c", every="0.001min")
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        seconds = [json.loads(line)["seconds"] for line in lines]
        assert seconds == sorted(seconds)
        assert 0 < seconds[-1] < 600


COMMAND = [sys.executable, "-c", "from zoo.cli import main; main()", "run", "a2c", "--env", "CartPole-v1"]


@contextlib.contextmanager
def command(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A run as users start it, once it is under way."""
    arguments = [*COMMAND, "--total-steps", "100000000", "--log-every", "1000", "--out", str(folder), *flags]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_good_order(
    number: signal.Signals, code: int, vec: str, tmp_path: Path, tally: Tally
) -> None:
    with tally.fault(), command(tmp_path / "run", "--vec", vec, "--num-envs", "2", "--compile", "off") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        began = time.monotonic()
        for each in [psutil.Process(process.pid), *children]:  # as a terminal does, to all of them
            each.send_signal(number if each.pid == process.pid else signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
        assert time.monotonic() - began < 10
        assert process.returncode == code
        assert f"zoo run --resume {tmp_path / 'run'}" in errors
        assert "Traceback" not in errors
        assert json.loads((tmp_path / "run" / FOLDER / MANIFEST).read_text())["checkpoints"]
        assert not psutil.wait_procs(children, timeout=10)[1]


def test_the_second_signal_does_not_wait(tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_step(self: Any, action: Any, log_prob: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr(envs.Envs, "step", slow_step)
    began = time.monotonic()
    with tally.fault(), pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", "a2c")
    assert time.monotonic() - began < 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_is_heard_where_python_drops_what_it_raises(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the weak references of torch's compiler, in a run without a folder."""
    step, count = envs.Envs.step, 0

    def interrupted(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 5:
            dying = set[int]()
            _ = weakref.ref(dying, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del dying
        return step(self, *args)

    monkeypatch.setattr(envs.Envs, "step", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with tally.fault(), pytest.raises(KeyboardInterrupt):
            zoo.train("a2c", "CartPole-v1", seed=0, total_steps=2000, num_envs=2, compile="off")
        assert count == 5
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_no_environment_outlives_a_killed_run(tmp_path: Path, tally: Tally) -> None:
    with tally.fault(), command(tmp_path / "run", "--vec", "async", "--num-envs", "3", "--compile", "off") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 3
        process.kill()
        process.wait()
        assert not psutil.wait_procs(children, timeout=30)[1]


def test_a_remote_actor_that_is_killed_is_replaced(tmp_path: Path, tally: Tally) -> None:
    given = {"total_steps": 20_000, "engine": "processes", "actors": 2, "num_envs": 2, "log_every": 500}
    settings = runs.prepare("impala", "CartPole-v1", {**given, "eval_every": 0, "eval_episodes": 0}, source="test")
    rows = []

    def kill_one(row: dict[str, float]) -> None:
        rows.append(row)
        if len(rows) == 5:
            actors = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            actors[0].kill()

    with tally.fault():
        runs.run(settings, "CartPole-v1", out=tmp_path / "run", on_row=kill_one)
        assert rows[-1]["restarts"] == 1
        assert rows[-1]["step"] < 20_000 + 4 * 100  # what the dead one had not delivered is not counted


def test_a_ray_actor_that_is_killed_is_replaced(tmp_path: Path, tally: Tally) -> None:
    ray = pytest.importorskip("ray")
    given = {"total_steps": 4000, "engine": "ray", "actors": 2, "num_envs": 2, "log_every": 200}
    settings = runs.prepare("impala", "CartPole-v1", {**given, "eval_every": 0, "eval_episodes": 0}, source="test")
    rows = []

    def kill_one(row: dict[str, float]) -> None:
        rows.append(row)
        if len(rows) == 5:
            workers = [child for child in psutil.Process().children(recursive=True) if "RayWorker" in child.name()]
            workers = workers or [
                child
                for child in psutil.Process().children(recursive=True)
                if any("ray::RayWorker" in part for part in child.cmdline())
            ]
            workers[0].kill()

    with tally.fault():
        runs.run(settings, "CartPole-v1", out=tmp_path / "run", on_row=kill_one)
        assert not ray.is_initialized()
        assert rows[-1]["restarts"] == 1


def test_actors_of_a_lost_ray_node_are_replaced(tmp_path: Path, tally: Tally, two_nodes: Any) -> None:
    given = {"total_steps": 30_000, "engine": "ray", "actors": 4, "num_envs": 2, "log_every": 1000}
    settings = runs.prepare("impala", "CartPole-v1", {**given, "eval_every": 0, "eval_episodes": 0}, source="test")
    rows = []

    def lose_one(row: dict[str, float]) -> None:
        rows.append(row)
        if len(rows) == 5:
            two_nodes.lose_one()

    with tally.fault():
        runs.run(settings, "CartPole-v1", out=tmp_path / "run", on_row=lose_one)
        assert 30_000 <= rows[-1]["step"] < 30_000 + 8 * 100  # nothing is counted twice
        assert 1 <= rows[-1]["restarts"] <= 12


def test_options_resume_after_a_kill_too(tmp_path: Path, tally: Tally) -> None:
    for number, (name, changes) in enumerate(OPTIONS.values()):
        if changes:
            whole, halved = tmp_path / f"{number}", tmp_path / f"{number}-halved"
            train(whole, name, **changes)
            with tally.fault():
                with contextlib.suppress(StopError):
                    train(halved, name, every=40, **changes, stop_at=300)
                finish(halved)
                assert_same_end(whole, halved)
