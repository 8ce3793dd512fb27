"""Learners of actors elsewhere: of ones whose observations tell who acted, and of ones in this process."""

from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence
from stamps import make_stamping, parameter_of

from zoo import registry
from zoo.actors import remote as remote_actors
from zoo.actors.processes import Processes
from zoo.actors.remote import Assignment, Collected, Remote, Worker
from zoo.buffers.rows import allocate
from zoo.machine import torch_settings
from zoo.protocol import Progress, Transition
from zoo.runs.assemble import _remote
from zoo.runs.prepare import prepare, task_of
from zoo.settings import Run
from zoo.spec import Spec
from zoo.taxonomy import Data
from zoo.training.loop import Learner

SPEC = Spec(gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2))
SMALL = {"total_steps": 200, "num_envs": 2, "num_steps": 5, "seed": 0, "eval_every": 0, "eval_episodes": 0}


def remote(algorithm: str, **settings: object) -> Remote:
    overrides = SMALL | {"engine": "processes", "actors": 2} | settings
    prepared = prepare(algorithm, "CartPole-v1", overrides, source="argument")
    _, source, _ = _remote(prepared, "CartPole-v1", SeedSequence(0), SeedSequence(1), None)
    return source


ON_POLICY = [name for name in registry.load().algorithms if registry.load_class(name).cell.data is Data.ON]
MORE = {"ppo": {"batch_size": 5}}
ALL_MODES = [(name, mode) for name in ON_POLICY for mode in AutoresetMode]


def stamped(name: str, env: object, make: object = make_stamping, **settings: object) -> Learner:
    """A learner of actors elsewhere whose weights, and so whose observations, tell how many updates there were."""
    overrides = SMALL | {"engine": "processes", "actors": 2, "num_envs": 3, "seed": 1} | MORE.get(name, {}) | settings
    known = registry.load_class(name).Config.__dataclass_fields__.keys() | Run.__dataclass_fields__.keys()
    overrides = {key: value for key, value in overrides.items() if key in known}
    prepared = prepare(name, env, overrides, source="argument")  # type: ignore[arg-type]
    agent, source, buffer = _remote(prepared, task_of(prepared, env), SeedSequence(0), SeedSequence(1), None)  # type: ignore[arg-type]
    algo = agent.algo
    source.assignment = replace(source.assignment, make=partial(make, name, prepared.config))  # type: ignore[operator]
    parameter_of(algo).data.fill_(0)
    return Learner(algo, source, buffer)


class Here:
    """Actors in this process."""

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.requests: deque[tuple[int, int]] = deque()

    def start(self, actor: int, assignment: Assignment) -> None:
        self.assignment, self.workers[actor] = assignment, Worker(assignment, np.zeros((), np.int64))

    def publish(self, weights: torch.Tensor, version: int) -> None:
        self.weights, self.version = weights.clone(), version

    def request(self, actor: int, step: int) -> None:
        self.requests.append((actor, step))

    def ready(self, timeout: float) -> list[Collected | int]:
        actor, step = self.requests.popleft()
        shape = (self.assignment.max_rows, self.assignment.num_envs)
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
    with closing(learner.source), torch_settings(1):  # type: ignore[type-var]
        reports = list(learner.reports(total_steps=total_steps, log_every=30))
    return stamps, [report.metrics for report in reports]


def assert_newest(stamps: list[list[float]], metrics: list[dict[str, float]]) -> None:
    assert len(stamps) > 8
    assert stamps == [[update] for update in range(len(stamps))]
    assert {each["lag"] for each in metrics} == {0}


def pids(backend: Processes) -> list[int]:
    return [backend.processes[actor].pid for actor in sorted(backend.processes)]


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
