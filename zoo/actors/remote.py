"""Where experience comes from: this process, others, or a Ray cluster. One loop learns from any of them.

The data axis decides what remote actors may do. An off-policy entry learns from whichever segment is ready, drawn
by weights that lag behind; its learner never waits for a slow actor. An on-policy entry learns in rounds: each actor
fills its columns of one rollout with the newest weights, and the learner waits for all of them, so its lag is 0.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.random import SeedSequence
from torch import Tensor

from zoo.buffers.rows import allocate
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.envs.normalize import RewardClipper
from zoo.envs.task import Task
from zoo.errors import ActorError, DivergedError, EnvError, UserError, told
from zoo.machine import set_processor
from zoo.protocol import NONE, Algorithm, Episode, Progress, Step, Transition
from zoo.spec import Array, Spec
from zoo.taxonomy import Data
from zoo.training.loop import act_and_step
from zoo.training.weights import load_weights, weights_of

OUTSTANDING = 2  # segments that an off-policy actor may be asked for ahead, so that it never idles
MAX_RESTARTS = 3  # of each actor: a lost node takes several at once
PATIENCE = 0.5  # seconds between two looks at whether the run is to be stopped
TIMEOUT = 120.0  # seconds in which no actor that is waited for takes a step


@dataclass(frozen=True)
class Assignment:
    """All that an actor needs to know to make its own environments and its own copy of the algorithm."""

    make: Callable[[Spec, SeedSequence], Algorithm]
    task: Task
    num_envs: int  # of each actor
    vec: str
    scale_actions: bool
    clip_reward: bool
    num_steps: int  # rows of a column that a segment brings
    max_rows: int  # of a segment: more where rows that only reset are among them
    total_steps: int
    seeds: SeedSequence


class Worker:
    """An actor: environments and a copy of the algorithm; collects one segment after another.

    `taken` counts its steps, and the making of its environments as one; others may watch it.
    """

    def __init__(self, assignment: Assignment, taken: Array) -> None:
        set_processor(1)
        env_seeds, algo_seeds = assignment.seeds.spawn(2)
        vector = vectorize(assignment.task, assignment.num_envs, assignment.vec)
        clipper = RewardClipper() if assignment.clip_reward else None
        self.envs = Envs(vector, env_seeds, scale_actions=assignment.scale_actions, reward_normalizer=clipper)
        self.algo = assignment.make(self.envs.spec, algo_seeds)
        self.fills_columns = self.algo.cell.data is Data.ON
        self.assignment, self.taken, self.device = assignment, taken, torch.device("cpu")
        self.envs.reset()
        self.taken += 1

    def collect(self, weights: Tensor, step: int, rows: Transition[Array], alive: Array) -> list[list[Episode]]:
        """Fill `rows`, (max_rows, B, ...), and `alive`, (max_rows, B), from the top with one segment.

        A segment has `num_steps` rows or, of an on-policy entry, as many as leave `num_steps` alive ones in each
        column: a whole rollout, so that no row of it outlives the update. Returns the episodes that each row ended.
        """
        load_weights(self.algo, weights)
        progress = Progress(step, self.assignment.total_steps)
        filled = np.zeros(self.assignment.num_envs, np.int64)
        episodes: list[list[Episode]] = []
        alive[:] = False
        while filled.min() < self.assignment.num_steps:
            taken = act_and_step(self.algo, self.envs, progress, self.device)
            self.taken += 1
            for row, value in zip(rows, taken.transition, strict=True):
                row[len(episodes)] = value
            alive[len(episodes)] = taken.alive
            filled += taken.alive if self.fills_columns else 1
            episodes.append(taken.episodes)
        return episodes


# Errors in an actor that are of the same kind here, and have its exit code.
KINDS = {kind.__name__: kind for kind in (UserError, EnvError, DivergedError)}


class Failure(NamedTuple):
    """An error in an actor, by the name of its kind, and as text: the error itself may not survive the trip."""

    kind: str
    text: str

    def error(self, actor: int) -> Exception:
        """Return what to raise here: an ActorError where the kind is none of KINDS."""
        return KINDS.get(self.kind, ActorError)(f"actor {actor} failed: {self.kind}: {self.text}")


def failure(error: BaseException) -> Failure:
    """Return what an actor tells of an error."""
    return Failure(type(error).__name__, told(error))


class Collected(NamedTuple):
    """One segment of an actor: views of its memory, good until the actor is asked again."""

    actor: int
    version: int  # of the weights that acted
    rows: Transition[Array]  # (max_rows, B, ...)
    alive: Array  # (max_rows, B); False below the segment's last row
    episodes: list[list[Episode]]  # that each of the segment's rows ended
    first: bool = False  # of this incarnation of the actor: it follows on no segment before


class Backend(Protocol):
    """How actors are started, asked and heard."""

    def start(self, actor: int, assignment: Assignment) -> None:
        """Start (or replace) an actor."""

    def publish(self, weights: Tensor, version: int) -> None:
        """Make these weights the ones that later requests act with."""

    def request(self, actor: int, step: int) -> None:
        """Ask for one more segment, acted as at `step` of the run."""

    def ready(self, timeout: float) -> list[Collected | int]:
        """Return segments that have come, at most one an actor; the bare number of an actor that has died."""

    def taken(self, actors: list[int]) -> list[int]:
        """Return how many steps each of these actors has taken since it was started; -1 where it does not answer."""

    def close(self) -> None:
        """End all actors; none outlives this."""


class Remote:
    """Steps of `num_actors` actors elsewhere; columns [k B, (k + 1) B) belong to actor k."""

    saved = ("version", "starts")

    def __init__(self, algo: Algorithm, assignment: Assignment, spec: Spec, backend: Backend, num_actors: int) -> None:
        self.algo, self.assignment, self.backend, self.num_actors = algo, assignment, backend, num_actors
        self.actors = list(range(num_actors))
        self.waits = algo.cell.data is Data.ON
        self.num_envs = num_actors * assignment.num_envs
        self.blank = allocate(spec, self.num_envs)
        self.version = self.starts = 0
        self.deaths = [0] * num_actors
        self.delivered = self.behind = 0  # alive rows since the last report, and the sum of their lags
        self.queue: deque[tuple[Step, Array]] = deque()  # with the version that acted in each row, (B,)
        self.backlog: deque[Collected] = deque()
        self.unheard: set[int] = set()  # actors that have delivered nothing since they were started
        self.quiet: list[int] = []  # the counts of steps when nothing had come for TIMEOUT seconds
        self.dirty = self.fresh = True
        self.on_wait: Callable[[], None] = lambda: None

    def step(self, progress: Progress, on_wait: Callable[[], None] = lambda: None) -> Step:
        self.on_wait = on_wait
        while not self.queue:
            self._refill(progress)
        step, versions = self.queue.popleft()
        behind = (self.version - versions)[step.alive]
        self.delivered += len(behind)
        self.behind += int(behind.sum())
        return step

    def learned(self) -> None:
        self.version += 1
        self.dirty = True
        assert not (self.waits and self.queue), "a rollout ends with the round of segments that filled it"

    def metrics(self) -> dict[str, float]:
        delivered, behind, self.delivered, self.behind = self.delivered, self.behind, 0, 0
        return {"lag": behind / delivered, "restarts": float(sum(self.deaths))} if delivered else {}

    def resume(self) -> list[str]:
        return ["actors elsewhere start new episodes: the run goes on, but not bit for bit"]

    def close(self) -> None:
        self.backend.close()

    def _start(self, actor: int) -> None:
        seeds = self.assignment.seeds
        child = SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, self.starts))
        self.backend.start(actor, replace(self.assignment, seeds=child))
        self.starts += 1
        self.unheard.add(actor)

    def _refill(self, progress: Progress) -> None:
        fresh, self.fresh = self.fresh, False
        if fresh:
            for actor in self.actors:
                self._start(actor)
        if self.dirty:
            self.backend.publish(weights_of(self.algo), self.version)
            self.dirty = False
        if self.waits:
            self.queue.extend(self._side_by_side(self._round(progress.step)))
            return
        for actor in self.actors if fresh else []:
            self._request_ahead(actor, progress.step)
        while not self.backlog:
            self.backlog.extend(self._hear(self.actors, progress.step))
        segment = self.backlog.popleft()
        self.queue.extend(self._alone(segment))
        self.backend.request(segment.actor, progress.step)

    def _round(self, step: int) -> list[Collected]:
        """Return one segment of each actor, in their order."""
        segments: dict[int, Collected] = {}
        for actor in self.actors:
            self.backend.request(actor, step)
        while len(segments) < self.num_actors:
            missing = [actor for actor in self.actors if actor not in segments]
            segments |= {each.actor: each for each in self._hear(missing, step)}
        return [segments[actor] for actor in self.actors]

    def _hear(self, waited: list[int], step: int) -> list[Collected]:
        """What comes next, perhaps nothing; actors that died are replaced, and asked again if they are `waited` for."""
        answers = self._listen()
        if answers:
            self.quiet = []
        else:
            self._check_progress(waited)
        collected = []
        for each in answers:
            if isinstance(each, Collected):
                collected.append(each._replace(first=each.actor in self.unheard))
                self.unheard.discard(each.actor)
            else:
                self._replace(each, step, asked=each in waited)
        return collected

    def _listen(self) -> list["Collected | int"]:
        """What comes within TIMEOUT seconds. Nothing is half done meanwhile: the learner may be stopped, or saved."""
        until = time.monotonic() + TIMEOUT
        while not (answers := self.backend.ready(min(TIMEOUT, PATIENCE))) and time.monotonic() < until:
            self.on_wait()
        return answers

    def _check_progress(self, waited: list[int]) -> None:
        """Raise ActorError if none of the actors has taken a step since nothing came the last time."""
        before, self.quiet = self.quiet, self.backend.taken(waited)
        if before == self.quiet:
            names = ", ".join(map(str, waited))
            raise ActorError(f"no step of actors {names} in {TIMEOUT:.0f} seconds: do their environments hang?")

    def _replace(self, actor: int, step: int, *, asked: bool) -> None:
        self.deaths[actor] += 1
        if self.deaths[actor] > MAX_RESTARTS:
            raise ActorError(f"actor {actor} died for the {self.deaths[actor]}th time; {MAX_RESTARTS} are allowed")
        self._start(actor)
        if not self.waits:
            self._request_ahead(actor, step)
        elif asked:
            self.backend.request(actor, step)

    def _request_ahead(self, actor: int, step: int) -> None:
        for _ in range(OUTSTANDING):
            self.backend.request(actor, step)

    def _columns(self, each: Collected) -> Array:
        return np.arange(each.actor * self.assignment.num_envs, (each.actor + 1) * self.assignment.num_envs)

    def _side_by_side(self, collected: list[Collected]) -> Iterator[tuple[Step, Array]]:
        """The segments of all actors as one; where some have more rows, the others' further ones are not alive."""
        versions = np.repeat([each.version for each in collected], self.assignment.num_envs)
        broken = np.concatenate([NONE, *(self._columns(each) for each in collected if each.first)])
        for t in range(max(len(each.episodes) for each in collected)):
            rows = [Transition(*(field[t] for field in each.rows)) for each in collected]
            transition = Transition(*(np.concatenate(fields) for fields in zip(*rows, strict=True)))
            alive = np.concatenate([each.alive[t] for each in collected])
            episodes = [episode for each in collected if t < len(each.episodes) for episode in each.episodes[t]]
            yield Step(transition, alive, episodes, NONE if t else broken), versions

    def _alone(self, each: Collected) -> Iterator[tuple[Step, Array]]:
        columns = self._columns(each)
        versions = np.full(self.num_envs, each.version)
        for t, episodes in enumerate(each.episodes):
            transition = Transition(*(np.zeros_like(field) for field in self.blank))
            for field, values in zip(transition, each.rows, strict=True):
                field[columns] = values[t]
            alive = np.zeros(self.num_envs, np.bool_)
            alive[columns] = each.alive[t]
            yield Step(transition, alive, episodes, columns if each.first and t == 0 else NONE), versions
