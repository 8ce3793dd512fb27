"""Actors elsewhere: what the data axis allows, what is learned from, and what happens when a process dies."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
import torch
from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence
from stamps import CHOICES, VECTORS, Failing, Stamps, make_stamping, make_telling_progress, parameter_of

import zoo
from zoo import registry
from zoo.actors import processes
from zoo.actors import remote as remote_actors
from zoo.actors.cluster import Cluster, RayWorker
from zoo.actors.processes import Processes
from zoo.actors.remote import Collected, Job, Remote, Worker
from zoo.buffers.rows import allocate
from zoo.buffers.segments import SegmentBuffer
from zoo.errors import ActorError, DivergedError, EnvError, UserError
from zoo.machine import processor
from zoo.protocol import Progress, Transition
from zoo.runs.assemble import _inline, _remote
from zoo.runs.prepare import prepare
from zoo.settings import Run
from zoo.spec import Spec
from zoo.taxonomy import Data
from zoo.training.loop import Learner
from zoo.training.weights import load_weights, weights_of

SPEC = Spec(gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2))
SMALL = {"total_steps": 200, "num_envs": 2, "num_steps": 5, "seed": 0, "eval_every": 0, "eval_episodes": 0}


def remote(algorithm: str, **settings: object) -> Remote:
    overrides = SMALL | {"engine": "processes", "actors": 2} | settings
    prepared = prepare(algorithm, "CartPole-v1", overrides, source="argument")
    _, source, _, _ = _remote(prepared, "CartPole-v1", SeedSequence(0), SeedSequence(1))
    return source


def rows(*values: float) -> Transition:
    column = np.array(values, np.float32)
    flags = np.zeros(len(values), np.bool_)
    return Transition(column[:, None], flags.astype(np.int64), column, column[:, None] + 1, flags, flags, column)


@pytest.mark.parametrize("name", sorted(registry.load().algorithms))
def test_only_off_policy_entries_may_lag(name: str) -> None:
    cls = registry.load_class(name)
    env = "CartPole-v1" if gym.spaces.Discrete in cls.spaces else "Pendulum-v1"
    if cls.cell.data is Data.OFF:
        assert prepare(name, env, {"lag": 4}, source="argument").run.lag == 4
    else:
        with pytest.raises(UserError, match="on-policy"):
            prepare(name, env, {"lag": 4}, source="argument")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"actors": 2}, "need --engine"),
        ({"engine": "processes", "lag": 2}, "is for --engine inline"),
        ({"engine": "processes", "normalize_obs": True}, "needs --engine inline"),
    ],
)
def test_wrong_combinations_are_refused_with_the_reason(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        prepare("impala", "CartPole-v1", settings, source="argument")
    with pytest.raises(UserError, match="makes environments elsewhere"):
        prepare("impala", gym.make("CartPole-v1"), {"engine": "processes"}, source="argument")


def test_a_lagging_copy_acts_with_old_weights_until_it_is_refreshed() -> None:
    prepared = prepare("impala", "CartPole-v1", SMALL | {"lag": 3}, source="argument")
    algo, source, _ = _inline(prepared, "CartPole-v1", SeedSequence(0), SeedSequence(1))
    before = weights_of(algo)
    torch.testing.assert_close(weights_of(source.actor), before, rtol=0, atol=0)
    load_weights(algo, before + 1)
    for _ in range(2):
        source.learned()
        torch.testing.assert_close(weights_of(source.actor), before, rtol=0, atol=0)
    source.learned()
    torch.testing.assert_close(weights_of(source.actor), before + 1, rtol=0, atol=0)
    source.close()


def test_segments_of_fast_columns_do_not_wait_for_slow_ones() -> None:
    buffer = SegmentBuffer(SPEC, 2, 2, torch.Generator())
    assert buffer.pending
    buffer.add(rows(1, 10), np.array([True, False]))
    assert not list(buffer.batches())
    buffer.add(rows(2, 20), np.array([True, True]))
    (batch,) = buffer.batches()
    assert batch.reward.tolist() == [[1], [2]]
    assert not buffer.pending
    buffer.add(rows(3, 30), np.array([True, True]))
    (batch,) = buffer.batches()
    assert batch.reward.tolist() == [[20], [30]]


def test_replayed_segments_follow_each_fresh_one() -> None:
    buffer = SegmentBuffer(SPEC, 2, 3, torch.Generator(), replayed=2, capacity=50)
    seen = []
    for t in range(6):
        buffer.add(rows(t, 100 + t), np.ones(2, np.bool_))
        seen.append([batch.reward.shape for batch in buffer.batches()])
    assert seen == [[], [], [(3, 2)] * 3, [], [], [(3, 2)] * 3]


def test_on_policy_actors_are_waited_for_and_never_lag() -> None:
    source = remote("a2c")
    try:
        for update in range(3):
            for step in range(5):
                taken = source.step(Progress(step, 100))
                assert taken.alive.all()
                assert len(taken.alive) == 4  # two actors with two environments
            source.learned()
            assert source.metrics()["lag"] == 0, update
    finally:
        source.close()


def test_off_policy_segments_come_from_one_actor_each_and_their_lag_is_counted() -> None:
    source = remote("impala")
    try:
        lags = []
        for _ in range(30):
            for _ in range(5):
                alive = source.step(Progress(0, 100)).alive
                assert alive.tolist() in ([True, True, False, False], [False, False, True, True])
            if not lags:  # a segment asked for ahead is complete before the first update, so it must lag behind it
                wait(list(source.backend.pipes.values()), 30)  # type: ignore[attr-defined]
            source.learned()
            lags.append(source.metrics()["lag"])
        assert min(lags) >= 0
        assert max(lags) > 0  # segments that were under way while the learner made updates
    finally:
        source.close()


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
        source.job = replace(source.job, env="NoSuchEnv-v0")
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
    algo, source, _, _ = _remote(prepared, "Pendulum-v1", SeedSequence(0), SeedSequence(1))
    load_weights(algo, weights_of(algo) * np.nan)
    with closing(source), pytest.raises(DivergedError, match="actor 0 failed: DivergedError: the policy bec") as raised:
        source.step(Progress(100, 200))
    assert raised.value.code == 4


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EnvError("it fell"), EnvError),
        (DivergedError("it fell"), DivergedError),
        (UserError("it fell"), UserError),
        (ValueError("it fell"), ActorError),
        (type("os", (Exception,), {})("it fell"), ActorError),
    ],
)
def test_an_error_in_an_actor_on_ray_is_of_the_same_kind_here(error: Exception, kind: type[Exception]) -> None:
    """Ray stands aside: what it raises for an error in a method has the error as its `cause`."""

    class RayTaskError(Exception):
        cause = error

    def get(reference: str) -> None:
        raise RayTaskError("a traceback\nof many lines")

    cluster = Cluster.__new__(Cluster)
    exceptions = SimpleNamespace(RayTaskError=RayTaskError, RayError=OSError)
    cluster.ray = SimpleNamespace(exceptions=exceptions, get=get, wait=lambda pending, **_: (pending, []))
    cluster.pending = {"a reference": 7}
    with pytest.raises(kind, match=f"^actor 7 failed: {type(error).__name__}: it fell$") as raised:
        cluster.ready(1.0)
    assert type(raised.value) is kind


def test_an_actor_on_ray_makes_its_environments_where_an_error_is_heard() -> None:
    """Ray takes an actor that cannot be made for one that was lost, to be replaced."""
    source = remote("impala", actors=1)
    with closing(source):
        worker = RayWorker(replace(source.job, env="NoSuchEnv-v0"), SPEC)
        assert worker.count() == 0
        with pytest.raises(UserError, match="NoSuchEnv"):
            worker.collect((np.zeros(3, np.float32), 0), 0)


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


def test_the_same_actors_run_on_ray() -> None:
    pytest.importorskip("ray")
    for name in ("a2c", "impala"):
        settings = SMALL | {"engine": "ray", "actors": 2}
        agent = zoo.train(name, "CartPole-v1", **settings)  # type: ignore[arg-type]
        assert all(torch.isfinite(value).all() for value in agent.state_dict().values())


def test_a_script_without_a_main_guard_is_told(tmp_path: Path) -> None:
    """Its actors import it, and train, and start actors."""
    script = tmp_path / "script.py"
    script.write_text('import zoo\nzoo.train("impala", "CartPole-v1", engine="processes", total_steps=100)\n')
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode
    assert "train under `if __name__ == '__main__':`" in done.stderr
    assert "ActorError: actor 0 died" in done.stderr


ON_POLICY = [name for name in registry.load().algorithms if registry.load_class(name).cell.data is Data.ON]
MORE = {"ppo": {"batch_size": 5}}
ALL_MODES = [(name, mode) for name in ON_POLICY for mode in AutoresetMode]


def stamped(name: str, env: object, make: object = make_stamping, **settings: object) -> Learner:
    """A learner of actors elsewhere whose weights, and so whose observations, tell how many updates there were."""
    overrides = SMALL | {"engine": "processes", "actors": 2, "num_envs": 3, "seed": 1} | MORE.get(name, {}) | settings
    known = registry.load_class(name).Config.__dataclass_fields__.keys() | Run.__dataclass_fields__.keys()
    overrides = {key: value for key, value in overrides.items() if key in known}
    prepared = prepare(name, env, overrides, source="argument")  # type: ignore[arg-type]
    algo, source, buffer, _ = _remote(prepared, env, SeedSequence(0), SeedSequence(1))  # type: ignore[arg-type]
    source.job = replace(source.job, make=partial(make, name, prepared.config))  # type: ignore[operator]
    parameter_of(algo).data.fill_(0)
    return Learner(algo, source, buffer)


class Here:
    """Actors in this process."""

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.requests: deque[tuple[int, int]] = deque()

    def start(self, actor: int, job: Job) -> None:
        self.job, self.workers[actor] = job, Worker(job, np.zeros((), np.int64))

    def publish(self, weights: torch.Tensor, version: int) -> None:
        self.weights, self.version = weights.clone(), version

    def request(self, actor: int, step: int) -> None:
        self.requests.append((actor, step))

    def ready(self, timeout: float) -> list[Collected | int]:
        actor, step = self.requests.popleft()
        shape = (self.job.max_rows, self.job.num_envs)
        memory, alive = allocate(self.workers[actor].envs.spec, *shape), np.ones(shape, np.bool_)
        episodes = self.workers[actor].collect(self.weights, step, memory, alive)
        return [Collected(actor, self.version, memory, alive, episodes)]

    def taken(self, actors: list[int]) -> list[int]:
        return [int(self.workers[actor].taken) for actor in actors]

    def close(self) -> None:
        """Nothing outlives the test."""


def learn(learner: Learner, total_steps: int) -> tuple[list[list[float]], list[dict[str, float]]]:
    """The stamps of each batch that was learned from, and the reports' metrics."""
    stamps: list[list[float]] = []

    def update(batch: Transition, progress: Progress) -> dict[str, torch.Tensor]:
        stamps.append(batch.next_obs[..., 0].unique().tolist())
        parameter_of(learner.algo).data.add_(1)
        return {}

    learner.algo.update = update  # type: ignore[method-assign]
    with closing(learner.source), processor(1):  # type: ignore[type-var]
        reports = list(learner.reports(total_steps=total_steps, log_every=30))
    return stamps, [report.metrics for report in reports]


def assert_newest(stamps: list[list[float]], metrics: list[dict[str, float]]) -> None:
    assert len(stamps) > 8
    assert stamps == [[update] for update in range(len(stamps))]
    assert {each["lag"] for each in metrics} == {0}


@pytest.mark.parametrize(("name", "mode"), ALL_MODES)
def test_on_policy_entries_learn_from_the_newest_weights_alone(name: str, mode: AutoresetMode) -> None:
    learner = stamped(name, VECTORS[mode], vec="native")
    learner.source.backend = Here()  # type: ignore[attr-defined]
    stamps, metrics = learn(learner, 400)
    assert_newest(stamps, metrics)
    assert any("unused" in each for each in metrics) == (mode is AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name, mode in ALL_MODES if mode is AutoresetMode.NEXT_STEP or name == "ppo"]
)
def test_so_they_do_in_processes(name: str, mode: AutoresetMode) -> None:
    assert_newest(*learn(stamped(name, VECTORS[mode], vec="native"), 400))


@pytest.fixture
def ray_finds_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the extra `ray`: skipped without it. Its workers import what tests hand them."""
    pytest.importorskip("ray")
    here = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]))


@pytest.mark.usefixtures("ray_finds_tests")
@pytest.mark.parametrize("name", ON_POLICY)
def test_so_they_do_on_ray(name: str) -> None:
    assert_newest(*learn(stamped(name, VECTORS[AutoresetMode.NEXT_STEP], vec="native", engine="ray"), 400))


def test_lag_counts_rows_when_they_are_delivered() -> None:
    """A segment of 2 + 1 alive rows whose second row comes after an update, and one that is an update behind."""
    source = remote("impala", actors=1, num_steps=2)
    job = source.job
    memory = allocate(Spec(gym.spaces.Box(-9, 9, (4,)), gym.spaces.Discrete(2)), 2, 2)
    alive = np.array([[True, True], [False, True]])
    segments = deque([Collected(0, 0, memory, alive, [[], []]), Collected(0, 0, memory, alive, [[], []])])

    class Canned(Here):
        def start(self, actor: int, job: Job) -> None:
            """Nobody."""

        def ready(self, timeout: float) -> list[Collected | int]:
            return [segments.popleft()]

    source.backend.close()
    source.backend, source.job = Canned(), job
    source.step(Progress(0, 10))
    source.learned()
    source.step(Progress(2, 10))
    assert source.metrics() == {"lag": pytest.approx((0 + 0 + 1) / 3), "restarts": 0}
    assert source.metrics() == {}
    source.step(Progress(3, 10))
    source.learned()
    source.step(Progress(5, 10))
    assert source.metrics()["lag"] == pytest.approx((1 + 1 + 2) / 3)


def pids(backend: Processes) -> list[int]:
    return [backend.processes[actor].pid for actor in sorted(backend.processes)]


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


def test_off_policy_actors_are_told_the_step_also_before_the_first_update() -> None:
    learner = stamped(
        "dqn", Stamps, make_telling_progress, actors=1, total_steps=400, learning_starts=10**6, train_every=4
    )
    told = []
    with closing(learner.source):  # type: ignore[type-var]
        for step in range(0, 400, 3):
            taken = learner.source.step(Progress(step, 400))
            told += (taken.transition.action[taken.alive] / (CHOICES - 1)).tolist()
    # Segments are asked for ahead, two at a time: a few steps late at most.
    np.testing.assert_allclose(told, np.repeat(np.arange(0, 400, 3), 3) / 400, atol=12 / 400 + 1 / CHOICES)


@contextmanager
def impatient_after_the_first_segment(
    env: object, monkeypatch: pytest.MonkeyPatch, engine: str = "processes"
) -> Iterator[Remote]:
    """An actor whose segments of 30 steps take three seconds, waited for by somebody who waits one."""
    source = stamped("a2c", env, actors=1, num_envs=1, num_steps=30, engine=engine).source
    assert isinstance(source, Remote)
    with closing(source):
        for _ in range(30):
            source.step(Progress(0, 100))
        monkeypatch.setattr(remote_actors, "TIMEOUT", 1.0)
        yield source


def test_an_actor_is_slow_not_hung_while_it_takes_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient_after_the_first_segment(partial(Stamps, pause=0.1), monkeypatch) as source:
        began = time.monotonic()
        for _ in range(30):
            source.step(Progress(0, 100))
        assert time.monotonic() - began > 2.5


def test_an_actor_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    with impatient_after_the_first_segment(partial(Stamps, hangs_in=40), monkeypatch) as source:
        began = time.monotonic()
        with pytest.raises(ActorError, match="no step of actors 0 in 1 seconds"):
            source.step(Progress(0, 100))
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["a2c", "impala"])
def test_a_run_can_be_stopped_while_it_waits_for_actors(name: str) -> None:
    def stop() -> None:
        if all(backend.taken([0])):  # its environments are made, and one hangs
            raise KeyboardInterrupt

    source = stamped(name, partial(Stamps, hangs_in=1), actors=1, num_envs=1).source
    assert isinstance(source, Remote)
    backend = source.backend
    began = time.monotonic()
    with closing(source), pytest.raises(KeyboardInterrupt):
        source.step(Progress(0, 100), on_wait=stop)
    assert time.monotonic() - began < 60  # TIMEOUT is 120


def test_an_actor_that_hangs_ends_with_its_learner() -> None:
    """Whatever it is doing: it looks at its pipe only between steps."""
    program = (
        "import os, sys, threading; sys.path.insert(0, sys.argv[1])\n"
        "from functools import partial\nfrom actors.test_remote import stamped\n"
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


@pytest.mark.usefixtures("ray_finds_tests")
def test_so_it_is_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient_after_the_first_segment(partial(Stamps, pause=0.1), monkeypatch, "ray") as source:
        for _ in range(30):
            source.step(Progress(0, 100))
    with (
        impatient_after_the_first_segment(partial(Stamps, hangs_in=40), monkeypatch, "ray") as source,
        pytest.raises(ActorError, match="no step of actors 0 in 1 seconds"),
    ):
        source.step(Progress(0, 100))


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


def test_ray_imports_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    for name in ("zoo", "json", "numpy", "msgpack"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nraise ImportError\n")
    monkeypatch.chdir(tmp_path)
    zoo.train("a2c", "CartPole-v1", **(SMALL | {"engine": "ray", "actors": 1}))  # type: ignore[arg-type]
    assert not (tmp_path / "sprung").exists()


class Mortal(Here):
    """Actor 0 delivers and dies before actor 1 delivers in round 1; actor 1 dies before it delivers in round 2."""

    script = ((0, 1), (0, "0 dies", 1), (0, "1 dies", 1), (0, 1))

    def __init__(self) -> None:
        super().__init__()
        self.events = deque(event for events in self.script for event in events)
        self.asked: list[int] = []

    def request(self, actor: int, step: int) -> None:
        self.asked.append(actor)
        super().request(actor, step)

    def ready(self, timeout: float) -> list[Collected | int]:
        event = self.events.popleft()
        if isinstance(event, str):
            dead = int(event[0])
            self.requests = deque(each for each in self.requests if each[0] != dead)
            return [dead]
        self.requests.rotate(-next(i for i, (actor, _) in enumerate(self.requests) if actor == event))
        return super().ready(timeout)


def test_a_round_keeps_what_a_dead_actor_delivered() -> None:
    source = stamped("a2c", VECTORS[AutoresetMode.DISABLED], vec="native", num_envs=2).source
    assert isinstance(source, Remote)
    source.backend = backend = Mortal()
    asked, broken = [], []
    with processor(1):
        for _ in range(4):
            steps = [source.step(Progress(0, 100)) for _ in range(5)]
            broken.append([step.broken.tolist() for step in steps])
            asked.append(sorted(backend.asked))
            backend.asked.clear()
            source.learned()
    assert asked == [[0, 1], [0, 1], [0, 1, 1], [0, 1]]
    # Actor 0's successor delivers first in round 2, as actor 1's does.
    assert [each[0] for each in broken[1:]] == [[], [0, 1, 2, 3], []]
    assert not any(columns for each in broken for columns in each[1:])
    assert not backend.requests
