"""Actors elsewhere: what the data axis allows, what is learned from, and what happens when a process dies."""

import time
from collections import deque
from contextlib import closing
from functools import partial
from multiprocessing.connection import wait

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from remotes import ALL_MODES, Here, assert_newest, impatient_after_the_first_segment, learn, remote, stamped
from stamps import CHOICES, VECTORS, Stamps, make_telling_progress

from zoo import registry
from zoo.actors.remote import Assignment, Collected, Remote
from zoo.buffers.rows import allocate
from zoo.errors import ActorError, UserError
from zoo.machine import torch_settings
from zoo.protocol import Progress
from zoo.runs.prepare import prepare
from zoo.spec import Spec
from zoo.taxonomy import Data


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


@pytest.mark.parametrize(("name", "mode"), ALL_MODES)
def test_on_policy_entries_learn_from_the_newest_weights_alone(name: str, mode: AutoresetMode) -> None:
    learner = stamped(name, VECTORS[mode], vec="native")
    learner.source.backend = Here()  # type: ignore[attr-defined]
    stamps, metrics = learn(learner, 400)
    assert_newest(stamps, metrics)
    assert any("unused" in each for each in metrics) == (mode is AutoresetMode.NEXT_STEP)


def test_lag_counts_rows_when_they_are_delivered() -> None:
    """A segment of 2 + 1 alive rows whose second row comes after an update, and one that is an update behind."""
    source = remote("impala", actors=1, num_steps=2)
    assignment = source.assignment
    memory = allocate(Spec(gym.spaces.Box(-9, 9, (4,)), gym.spaces.Discrete(2)), 2, 2)
    alive = np.array([[True, True], [False, True]])
    segments = deque([Collected(0, 0, memory, alive, [[], []]), Collected(0, 0, memory, alive, [[], []])])

    class Canned(Here):
        def start(self, actor: int, assignment: Assignment) -> None:
            """Nobody."""

        def ready(self, timeout: float) -> list[Collected | int]:
            return [segments.popleft()]

    source.backend.close()
    source.backend, source.assignment = Canned(), assignment
    source.step(Progress(0, 10))
    source.learned()
    source.step(Progress(2, 10))
    assert source.metrics() == {"lag": pytest.approx((0 + 0 + 1) / 3), "restarts": 0}
    assert source.metrics() == {}
    source.step(Progress(3, 10))
    source.learned()
    source.step(Progress(5, 10))
    assert source.metrics()["lag"] == pytest.approx((1 + 1 + 2) / 3)


def test_off_policy_actors_are_told_the_step_also_before_the_first_update() -> None:
    learner = stamped(
        "dqn", Stamps, make_telling_progress, actors=1, total_steps=400, learning_starts=380, train_every=4
    )
    told = []
    with closing(learner.source):  # type: ignore[type-var]
        for step in range(0, 400, 3):
            taken = learner.source.step(Progress(step, 400))
            told += (taken.transition.action[taken.alive] / (CHOICES - 1)).tolist()
    # Segments are asked for ahead, two at a time: a few steps late at most.
    np.testing.assert_allclose(told, np.repeat(np.arange(0, 400, 3), 3) / 400, atol=12 / 400 + 1 / CHOICES)


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
    with torch_settings(1):
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
