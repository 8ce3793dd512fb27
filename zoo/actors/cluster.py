"""Actors on a Ray cluster."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.actors.remote import Assignment, Collected, Worker, failure
from zoo.buffers.rows import allocate
from zoo.machine import start_ray
from zoo.protocol import Episode, Transition
from zoo.spec import Array, Spec

ANSWER = 10.0  # seconds that an actor on Ray may take to say how many steps it has taken
COUNT = "count"  # its concurrency group for that: it answers while it collects


class Cluster:
    """Actors on a Ray cluster: the one at `address`, or a local one on the loopback interface."""

    def __init__(self, spec: Spec, address: str | None) -> None:
        self.ray, self.owns = start_ray(address)
        self.spec = spec
        self.workers: dict[int, Any] = {}
        self.pending: dict[Any, int] = {}
        self.assignments: dict[int, Assignment] = {}

    def start(self, actor: int, assignment: Assignment) -> None:
        self._end(actor)
        self.assignments[actor] = assignment
        # Ray puts actors that need no processor on nodes at random: a trace of one, and they are spread evenly.
        options = {"num_cpus": 0.001, "scheduling_strategy": "SPREAD", "concurrency_groups": {COUNT: 1}}
        self.workers[actor] = self.ray.remote(**options)(RayWorker).remote(assignment, self.spec)

    def publish(self, weights: Tensor, version: int) -> None:
        self.weights = self.ray.put((weights.numpy(), version))

    def request(self, actor: int, step: int) -> None:
        self.pending[self.workers[actor].collect.remote(self.weights, step)] = actor

    def taken(self, actors: list[int]) -> list[int]:
        asked = [self.workers[actor].count.options(concurrency_group=COUNT).remote() for actor in actors]
        answered, _ = self.ray.wait(asked, num_returns=len(asked), timeout=ANSWER)
        return [self._get_count(each) if each in answered else -1 for each in asked]

    def _get_count(self, reference: Any) -> int:
        try:
            return int(self.ray.get(reference))
        except self.ray.exceptions.RayError:  # what happened to the actor shows in `ready`
            return -1

    def ready(self, timeout: float) -> list[Collected | int]:
        done, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=timeout)
        answers: list[Collected | int] = []
        for reference in done:
            actor = self.pending.pop(reference)
            try:
                answers.append(Collected(actor, *self.ray.get(reference)))
            except self.ray.exceptions.RayTaskError as error:
                raise failure(error.cause).error(actor) from None
            except self.ray.exceptions.RayError:  # the actor, its node, or what it sent is lost
                answers.append(actor)
        return answers

    def _end(self, actor: int) -> None:
        if actor in self.workers:
            self.ray.kill(self.workers.pop(actor))
            self.pending = {reference: owner for reference, owner in self.pending.items() if owner != actor}

    def close(self) -> None:
        for actor in list(self.workers):
            self._end(actor)
        if self.owns:
            self.ray.shutdown()


class RayWorker:
    """A Worker that returns its segments."""

    def __init__(self, assignment: Assignment, spec: Spec) -> None:
        self.taken = np.zeros((), np.int64)
        self.worker: Worker | None = None  # made by the first `collect`: an error here would look like a lost actor
        self.assignment, self.spec = assignment, spec

    def count(self) -> int:
        """Steps taken so far."""
        return int(self.taken)

    def collect(
        self, weights: tuple[Array, int], step: int
    ) -> tuple[int, Transition[Array], Array, list[list[Episode]]]:
        """Return one segment: the version of its weights, its rows, which are alive, and the episodes that ended."""
        self.worker = self.worker or Worker(self.assignment, self.taken)
        vector, version = weights
        shape = (self.assignment.max_rows, self.assignment.num_envs)
        rows, alive = allocate(self.spec, *shape), np.zeros(shape, np.bool_)
        episodes = self.worker.collect(torch.from_numpy(vector.copy()), step, rows, alive)
        return version, rows, alive, episodes
