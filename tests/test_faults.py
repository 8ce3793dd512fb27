"""Faults under a run: each ends with a clear message and its own exit code, or not at all, and nothing is lost.

Run by `pytest -m faults`, which counts the faults that were injected and survived.
"""

import contextlib
import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium import spaces
from runs.test_checkpoint import OPTIONS, StopError, assert_same_end, rows_of, train
from tally import Tally

import zoo
from zoo import runs
from zoo.envs import envs as stepping
from zoo.envs import workers
from zoo.errors import DivergedError, EnvError, Interrupted, RunError, StorageError
from zoo.runs import recorder
from zoo.runs.checkpoint import FOLDER, MANIFEST
from zoo.runs.events import Events
from zoo.storage.files import Folder

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
    """Does what its name says in step 30 of its second episode, or at the third's reset, once: then `mark` exists."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, flaw: str, mark: Path) -> None:
        self.flaw, self.mark, self.episodes, self.count = flaw, mark, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes, self.count = self.episodes + 1, 0
        obs: Any = np.zeros(2, np.float32)
        if self.flaw in AT_RESET and self.episodes == 3 and self.fails_now():
            match self.flaw:
                case "raises in reset":
                    raise OSError("the simulator is gone")
                case "exits in reset":
                    sys.exit(1)
                case "begins with NaN":
                    obs[0] = np.nan
                case "begins beyond float32":
                    obs = np.array([1e300, 0])
        return obs, {}

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
        if self.episodes == 2 and self.count == 30 and self.flaw not in AT_RESET and self.fails_now():
            match self.flaw:
                case "raises in step":
                    raise ZeroDivisionError("no ground below")
                case "raises what cannot be sent":
                    raise TwoArgumentsError("no", "ground")
                case "observes NaN":
                    obs[1] = np.nan
                case "rewards infinity":
                    reward = np.inf
                case "observes beyond float32":
                    obs = np.array([1e300, 0])
                case "rewards beyond float32":
                    reward = 1e300
                case "exits":
                    sys.exit("enough")
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
AT_RESET = {"raises in reset", "exits in reset", "begins with NaN", "begins beyond float32"}
FOUND = r"environment \d, step 30 of the episode with seed \d+, given action [01]"
FLAWS = {
    "raises in step": rf"{HERE}: ZeroDivisionError: no ground below\n(.*\n)+.*no ground below",
    "raises what cannot be sent": rf"{HERE}: TwoArgumentsError: no ground",
    "raises in reset": r"environment \d failed in step 0 of the episode with seed \d+, in reset: OSError: the sim",
    "exits": rf"{HERE}: it called sys.exit\('enough'\)$",
    "exits in reset": r"environment \d failed in step 0 of .* seed \d+, in reset: it called sys.exit\(1\)$",
    "begins with NaN": r"environment \d, step 0 of the episode with seed \d+: the observation is NaN or infinite",
    "begins beyond float32": r"step 0 of the episode with seed \d+, its observation holds 1e\+300, which does not fit",
    "observes NaN": rf"{FOUND}: the observation is NaN",
    "observes beyond float32": r"step 30 of the episode with seed \d+, its observation holds 1e\+300, which does not",
    "rewards infinity": rf"{FOUND}: the reward is NaN or inf",
    "rewards beyond float32": rf"{FOUND}: the reward is NaN or infinite as float32: 1e\+300",
    "has another shape": r"its observation has shape \(3,\); its space says \(2,\)",
    "has another kind": r"in step 30 of the episode with seed \d+, its observation is of <U1; its space is of float32",
    "rewards a text": rf"{HERE}: its reward is 'much'; expected a real number$",
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
    monkeypatch.setattr(workers, "TIMEOUT", 2.0)
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

    from zoo.envs.make import vectorize

    with tally.fault():
        odd = stepping.Envs(vectorize(Odd, 2), SeedSequence(0))
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
def command(folder: Path, *flags: str, under: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A run as users start it, in a process group of its own, once it is under way."""
    arguments = [*under, *COMMAND, "--total-steps", "100000000", "--log-every", "1000", "--out", str(folder), *flags]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(arguments, **pipes, text=True, start_new_session=True)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_a_run_in_good_order(
    number: signal.Signals, code: int, vec: str, tmp_path: Path, tally: Tally
) -> None:
    with tally.fault(), command(tmp_path / "run", "--vec", vec, "--num-envs", "2", "--compile", "off") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        began = time.monotonic()
        for _ in range(3 if number == signal.SIGHUP else 1):  # the shell of a closed terminal repeats it
            os.killpg(process.pid, number)  # to all of them
        errors = process.communicate(timeout=30)[1]
        assert time.monotonic() - began < 10
        assert process.returncode == code
        assert f"zoo run --resume {tmp_path / 'run'}" in errors
        assert "Traceback" not in errors
        assert json.loads((tmp_path / "run" / FOLDER / MANIFEST).read_text())["checkpoints"]
        assert not psutil.wait_procs(children, timeout=10)[1]


class Slow(gym.Wrapper[Any, Any, Any, Any]):
    """Ten times as slow as anybody waits, which `mark` says."""

    def __init__(self, env: gym.Env[Any, Any], mark: Path) -> None:
        super().__init__(env)
        self.mark = mark

    def step(self, action: Any) -> Any:
        self.mark.touch()
        time.sleep(0.1)
        return self.env.step(action)


def interrupted(folder: Path, when: str, number: signal.Signals, **changes: Any) -> int:
    """The exit code of a run whose process group is sent a signal during its evaluation on the way, or at the end."""
    original, mark = recorder.evaluate, folder.with_name("evaluates")

    def evaluate(agent: Any, task: Any, *, episodes: int, **given: Any) -> Any:
        make = (lambda: Slow(task(), mark)) if (episodes == 2) == (when == "validation") else task
        return original(agent, make, episodes=episodes, **given)

    def work() -> None:
        os.setsid()
        recorder.evaluate = evaluate  # of this process alone
        train(folder, "a2c", every=1000, eval_episodes=20, **changes)

    pid = in_child(work)
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    children = psutil.Process(pid).children()
    began = time.monotonic()
    os.killpg(pid, number)
    code = exit_code(pid)
    assert time.monotonic() - began < 10
    assert not psutil.wait_procs(children, timeout=10)[1]
    mark.unlink()
    return code


@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("when", ["validation", "final evaluation"])
def test_a_signal_during_an_evaluation_is_heard(
    when: str, number: signal.Signals, code: int, vec: str, tmp_path: Path, tally: Tally
) -> None:
    """Resumed, the run ends as one that was left alone, with the same rows and the same figure."""
    train(tmp_path / "whole", "a2c", every=1000, eval_episodes=20)
    with tally.fault():
        assert interrupted(tmp_path / "run", when, number, vec=vec) == code
        before = rows_of(tmp_path / "run")
        assert before == rows_of(tmp_path / "whole")[: 3 if when == "validation" else None]  # the fourth is due
        assert (tmp_path / "run" / "last").exists()
        finish(tmp_path / "run")
        assert_same_end(tmp_path / "whole", tmp_path / "run")
        figures = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("whole", "run")]
        assert figures[0]["returns"] == figures[1]["returns"]


def test_a_hangup_that_was_ignored_from_the_start_stays_ignored(tmp_path: Path, tally: Tally) -> None:
    """As under nohup; the control is SIGTERM."""
    with tally.fault(), command(tmp_path / "run", "--compile", "off", under=["nohup"]) as process:
        os.killpg(process.pid, signal.SIGHUP)
        size = (tmp_path / "run" / "metrics.jsonl").stat().st_size
        deadline = time.monotonic() + 60
        while (tmp_path / "run" / "metrics.jsonl").stat().st_size < 2 * size and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None
        assert (tmp_path / "run" / "metrics.jsonl").stat().st_size >= 2 * size
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 143


FINITE = [*COMMAND, "--total-steps", "3000", "--log-every", "100", "--eval-every", "0", "--eval-episodes", "2"]


@contextlib.contextmanager
def broken_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextlib.contextmanager
def closed_terminal() -> Iterator[int]:
    main, other = pty.openpty()
    os.close(main)
    yield other
    os.close(other)


@contextlib.contextmanager
def full_device() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


NOWHERE = {
    "a broken pipe": (broken_pipe, r"cannot be written \(\[Errno 32\] Broken pipe\)"),
    "a full device": (full_device, r"cannot be written \(\[Errno 28\] No space left on device\)"),
    "a closed terminal": (closed_terminal, r"cannot be written \(\[Errno 5\] Input/output error\)"),
}


def noted(folder: Path, why: str) -> None:
    """The run is over, and its folder says once why nobody saw it."""
    assert rows_of(folder)[-1]["step"] >= 3000
    assert (folder / "evaluation.json").exists()
    lines = (folder / "notes.txt").read_text().splitlines()
    assert [bool(re.search(rf"\d, step [\d,]+: standard output {why}; the run goes on$", line)) for line in lines] == [
        True
    ]


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("how", NOWHERE)
def test_standard_output_that_goes_away_does_not_end_a_training(
    how: str, quiet: bool, tmp_path: Path, tally: Tally
) -> None:
    make, why = NOWHERE[how]
    arguments = [*FINITE, "--compile", "off", "--out", str(tmp_path / "run"), *(["--quiet"] if quiet else [])]
    with tally.fault(), make() as descriptor:
        done = subprocess.run(arguments, stdout=descriptor, stderr=subprocess.PIPE, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        if quiet:
            assert "at the end: standard output" in (tmp_path / "run" / "notes.txt").read_text()
        else:
            noted(tmp_path / "run", why)


def test_a_terminal_that_closes_under_a_live_panel_does_not_end_a_training(tmp_path: Path, tally: Tally) -> None:
    main, other = pty.openpty()
    arguments = [*FINITE, "--compile", "off", "--out", str(tmp_path / "run"), "--total-steps", "10000"]
    with tally.fault():
        process = subprocess.Popen(arguments, stdout=other, stderr=subprocess.PIPE, text=True, start_new_session=True)
        os.close(other)
        assert os.read(main, 1)  # it is at work, and shows it
        os.close(main)
        errors = process.communicate(timeout=120)[1]
        assert (process.returncode, errors) == (0, "")
        noted(tmp_path / "run", NOWHERE["a closed terminal"][1])


@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
def test_standard_output_that_was_never_there_is_no_file_of_the_run(closed: str, tmp_path: Path, tally: Tally) -> None:
    arguments = [*FINITE, "--compile", "off", "--out", str(tmp_path / "run")]
    with tally.fault():
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *arguments]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        noted(tmp_path / "run", "was closed from the start")


def test_both_outputs_may_go_away_and_an_exit_code_is_left(tmp_path: Path, tally: Tally) -> None:
    with tally.fault(), broken_pipe() as descriptor:
        arguments = [*FINITE[:-8], "--total-steps", "0", "--out", str(tmp_path / "run")]
        done = subprocess.run(arguments, stdout=descriptor, stderr=descriptor, timeout=120)
        assert done.returncode == 2


def test_the_second_signal_does_not_wait(tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_step(self: Any, action: Any, log_prob: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr(stepping.Envs, "step", slow_step)
    began = time.monotonic()
    with tally.fault(), pytest.raises(Interrupted, match="SIGINT a second time: no new checkpoint") as raised:
        train(tmp_path / "run", "a2c")
    assert raised.value.code == 130
    assert time.monotonic() - began < 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_is_heard_where_python_drops_what_it_raises(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the weak references of torch's compiler, in a run without a folder."""
    step, count = stepping.Envs.step, 0

    def interrupted(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 5:
            dying = set[int]()
            _ = weakref.ref(dying, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del dying
        return step(self, *args)

    monkeypatch.setattr(stepping.Envs, "step", interrupted)
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


def test_no_environment_that_hangs_outlives_a_killed_run(tmp_path: Path, tally: Tally) -> None:
    given = {"total_steps": 400, "seed": 1, "num_envs": 2, "vec": "async", "eval_every": 0, "eval_episodes": 0}
    settings = runs.prepare("dqn", lambda: gym.Env(), given, source="test")

    def make() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Flawed("hangs", tmp_path / "hangs"), 60)

    with tally.fault():
        pid = in_child(lambda: runs.run(settings, make, out=tmp_path / "run"))
        deadline = time.monotonic() + 60
        while not (tmp_path / "hangs").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        children = psutil.Process(pid).children(recursive=True)
        assert len(children) >= 2
        os.kill(pid, signal.SIGKILL)
        exit_code(pid)
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
