"""Actors as processes of this machine: what reaches the learner from them, and what happens when one dies."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence
from remotes import ALL_MODES, SMALL, assert_newest, learn, pids, remote, stamped
from stamps import VECTORS, Failing, parameter_of

import zoo
from zoo.actors import processes
from zoo.actors.processes import Processes
from zoo.actors.remote import Collected, Remote
from zoo.envs.task import Task
from zoo.errors import ActorError, DivergedError, EnvError, UserError
from zoo.protocol import Progress
from zoo.runs.assemble import _remote
from zoo.runs.prepare import prepare
from zoo.training.weights import load_weights, weights_of


def kill_again_and_again(source: Remote, backend: Processes) -> None:
    for _ in range(8):
        source.step(Progress(0, 100))
        backend.processes[0].kill()
        backend.processes[0].join()
        for _ in range(40):
            source.step(Progress(0, 100))


def test_a_killed_actor_is_replaced_a_bounded_number_of_times() -> None:
    source = remote("impala", actors=1)
    backend = source.backend
    assert isinstance(backend, Processes)
    try:
        with pytest.raises(ActorError, match="actor 0 died"):
            kill_again_and_again(source, backend)
        assert source.deaths == [4]
    finally:
        source.close()


def test_an_error_in_an_actor_reaches_the_learner_as_text() -> None:
    source = remote("impala", actors=1)
    backend = source.backend
    assert isinstance(backend, Processes)
    try:
        source.assignment = replace(source.assignment, task=Task("NoSuchEnv-v0"))
        with pytest.raises(UserError, match=r"actor 0 failed: UserError: .*NoSuchEnv"):
            source.step(Progress(0, 100))
    finally:
        source.close()


FAILED = r"actor 0 failed: EnvError: environment 0 failed in step \d of .* seed \d+, given action .*: ZeroDivisionError"


def test_an_environment_that_fails_in_an_actor_has_its_own_exit_code() -> None:
    settings: dict[str, Any] = SMALL | {"engine": "processes", "actors": 1, "num_envs": 1}
    with pytest.raises(EnvError, match=FAILED) as raised:
        zoo.train("a2c", Failing, **settings)
    assert raised.value.code == 3


def test_a_policy_that_is_nan_in_an_actor_has_its_own_exit_code() -> None:
    overrides = {"total_steps": 200, "engine": "processes", "learning_starts": 0, "seed": 0}
    prepared = prepare("td3", "Pendulum-v1", overrides, source="argument")
    agent, source, _ = _remote(prepared, "Pendulum-v1", SeedSequence(0), SeedSequence(1), None)
    algo = agent.algo
    load_weights(algo, weights_of(algo) * np.nan)
    with closing(source), pytest.raises(DivergedError, match="actor 0 failed: DivergedError: the policy bec") as raised:
        source.step(Progress(100, 200))
    assert raised.value.code == 4


SCRIPT = """
import signal

import zoo

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
if __name__ == "__main__":
    print("start", flush=True)
    zoo.train("impala", "CartPole-v1", seed=0, engine="processes", actors=2, num_envs=2, total_steps=10**8)
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_no_actor_outlives_its_learner(stop: signal.Signals, tmp_path: "os.PathLike[str]") -> None:
    script = os.path.join(tmp_path, "script.py")
    with open(script, "w") as file:
        file.write(SCRIPT)
    learner = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        process = psutil.Process(learner.pid)
        deadline = time.monotonic() + 60
        while len(process.children()) < 3 and time.monotonic() < deadline:  # two actors and their resource tracker
            time.sleep(0.1)
        children = process.children()
        time.sleep(3)
        learner.send_signal(stop)
        learner.wait(30)
    finally:
        learner.kill()
        learner.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert len(children) >= 2
    assert not alive


def test_processes_train_as_inline_does() -> None:
    agent = zoo.train("a2c", "CartPole-v1", **(SMALL | {"engine": "processes", "actors": 2}))  # type: ignore[arg-type]
    again = zoo.train("a2c", "CartPole-v1", **(SMALL | {"engine": "processes", "actors": 2}))  # type: ignore[arg-type]
    # On-policy actors are waited for in a fixed order, so that even several processes give the same numbers.
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=0, atol=0)


def test_a_script_without_a_main_guard_is_told(tmp_path: Path) -> None:
    """Its actors import it, and train, and start actors."""
    script = tmp_path / "script.py"
    script.write_text('import zoo\nzoo.train("impala", "CartPole-v1", engine="processes", total_steps=100)\n')
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode
    assert "train under `if __name__ == '__main__':`" in done.stderr
    assert "ActorError: actor 0 died" in done.stderr


@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name, mode in ALL_MODES if mode is AutoresetMode.NEXT_STEP or name == "ppo"]
)
def test_on_policy_entries_learn_from_the_newest_weights_in_processes(name: str, mode: AutoresetMode) -> None:
    assert_newest(*learn(stamped(name, VECTORS[mode], vec="native"), 400))


class Saboteur:
    """Stops actor 1 during each round until actor 0 has delivered, and kills one of them in some rounds."""

    def __init__(self, backend: Processes, victims: dict[int, int]) -> None:
        self.backend, self.victims, self.round = backend, victims, 0
        self.heard: list[Counter[int]] = []
        self.hear, backend.ready = backend.ready, self.ready  # type: ignore[method-assign]

    def begin(self, number: int) -> None:
        self.round = number
        self.heard.append(Counter())
        if number:
            os.kill(pids(self.backend)[1], signal.SIGSTOP)

    def ready(self, timeout: float) -> list[Collected | int]:
        answers = self.hear(timeout)
        delivered = [each.actor for each in answers if isinstance(each, Collected)]
        self.heard[-1].update(delivered)
        victim = self.victims.get(self.round) if 0 in delivered else None
        if victim is not None:
            self.backend.processes[victim].kill()
            self.backend.processes[victim].join()
        if 0 in answers or (0 in delivered and victim is None):  # the death of actor 0 is noticed before 1 goes on
            os.kill(pids(self.backend)[1], signal.SIGCONT)
        return answers


def test_each_round_has_one_segment_of_each_actor_whoever_dies() -> None:
    """Ten rounds: actor 1 is slow in each; actor 0 dies after delivering in three, actor 1 before it in two."""
    victims = {2: 0, 3: 1, 5: 0, 6: 1, 8: 0}
    learner = stamped("a2c", VECTORS[AutoresetMode.DISABLED], vec="native", num_envs=2)
    source = learner.source
    assert isinstance(source, Remote)
    assert isinstance(source.backend, Processes)
    saboteur = Saboteur(source.backend, victims)
    with closing(source):
        for number in range(10):
            before = pids(source.backend)
            saboteur.begin(number)
            steps = [source.step(Progress(20 * number, 1000)) for _ in range(5)]
            assert not source.queue
            source.learned()
            parameter_of(learner.algo).data.add_(1)
            assert saboteur.heard[-1] == {0: 1, 1: 1}
            after = pids(source.backend)
            # The segment of actor 0 is that of the process that began the round; actor 1 may have been replaced.
            authors = [before[0] if number else after[0], after[1]]
            for step in steps:
                assert step.alive.all()
                assert step.transition.next_obs[:, 1].tolist() == [authors[0]] * 2 + [authors[1]] * 2
                assert step.transition.next_obs[:, 0].tolist() == [number] * 4
            died = [0] * (victims.get(number - 1) == 0) + [1] * (victims.get(number) == 1)
            expected = [column for actor in died for column in (2 * actor, 2 * actor + 1)]
            assert steps[0].broken.tolist() == expected or not number  # the first follow on nothing
            assert all(len(step.broken) == 0 for step in steps[1:])
        assert source.deaths == [3, 2]
        assert source.metrics() == {"lag": 0, "restarts": 5}


def test_an_actor_that_hangs_ends_with_its_learner() -> None:
    """Whatever it is doing: it looks at its pipe only between steps."""
    program = (
        "import os, sys, threading; sys.path.insert(0, sys.argv[1])\n"
        "from functools import partial\nfrom remotes import stamped\n"
        "from stamps import Stamps\nfrom zoo.protocol import Progress\n"
        "if __name__ == '__main__':\n"
        "    source = stamped('a2c', partial(Stamps, hangs_in=1), actors=1, num_envs=1).source\n"
        "    def told():\n"
        "        if all(source.backend.taken([0])):\n"
        "            print(source.backend.processes[0].pid, flush=True)\n"
        "            os.kill(os.getpid(), 9)\n"
        "    source.step(Progress(0, 100), on_wait=told)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    actor = int(done.stdout)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(actor) and psutil.Process(actor).status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(actor) or psutil.Process(actor).status() == "zombie"


def test_actors_leave_it_to_the_learner_when_to_stop() -> None:
    source = remote("a2c")
    backend = source.backend
    assert isinstance(backend, Processes)
    with closing(source):
        source.step(Progress(0, 100))
        before = pids(backend)
        for pid in before:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(pid, number)
        for _ in range(20):
            source.step(Progress(0, 100))
            source.queue.clear()
        assert pids(backend) == before
    assert not any(psutil.pid_exists(pid) for pid in before)


@pytest.mark.parametrize("safe", [True, False])
def test_actors_import_nothing_from_the_working_directory(
    safe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the safe path, what lies there is executed."""
    (tmp_path / "multiprocessing.py").write_text("open('sprung', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if not safe:
        monkeypatch.setattr(processes, "safe_path", nullcontext)
    source = remote("a2c", actors=1)
    with closing(source), nullcontext() if safe else pytest.raises(ActorError, match="actor 0 died"):
        source.step(Progress(0, 100))
    assert (tmp_path / "sprung").exists() == (not safe)
