"""Actors as processes of this machine."""

import contextlib
import multiprocessing
import time
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.actors.remote import Assignment, Collected, Failure, Worker, failure
from zoo.buffers.rows import allocate
from zoo.errors import UserError
from zoo.machine import obey_parent, safe_path
from zoo.protocol import Algorithm, Transition
from zoo.spec import Spec
from zoo.training.weights import weights_of


class Memory(NamedTuple):
    """What the learner shares with one actor process: two segments, used in turn."""

    rows: list[Transition[Tensor]]  # (max_rows, B, ...) each
    alive: list[Tensor]
    taken: Tensor  # the actor's count of steps, ()


class Weights(NamedTuple):
    """The newest weights, in shared memory; a reader checks that `begun` and `done` agree around its copy."""

    vector: Tensor
    begun: Tensor
    done: Tensor

    def write(self, vector: Tensor, version: int) -> None:
        """Replace the weights."""
        self.begun.fill_(version)
        self.vector.copy_(vector)
        self.done.fill_(version)

    def read(self) -> tuple[Tensor, int]:
        """Return a copy of the weights and their version; no lock that a dying process could keep."""
        while True:
            version = int(self.done)
            vector = self.vector.clone()
            if int(self.begun) == version == int(self.done):
                return vector, version
            time.sleep(0)


class Processes:
    """Actors as processes of this machine; segments and weights in shared memory, requests through pipes."""

    def __init__(self, algo: Algorithm, spec: Spec, assignment: Assignment) -> None:
        # spawn: no inherited pipe ends, so that an actor sees the end of its pipe when the learner dies.
        self.context = multiprocessing.get_context("spawn")
        self.spec, self.assignment = spec, assignment
        vector = weights_of(algo).clone().share_memory_()
        self.weights = Weights(vector, *(torch.zeros((), dtype=torch.int64).share_memory_() for _ in range(2)))
        self.processes: dict[int, Any] = {}
        self.pipes: dict[int, Connection] = {}
        self.memory: dict[int, Memory] = {}

    def start(self, actor: int, assignment: Assignment) -> None:
        self._end(actor)
        shape = (assignment.max_rows, assignment.num_envs)
        self.memory[actor] = Memory(
            [Transition(*(torch.from_numpy(x).share_memory_() for x in allocate(self.spec, *shape))) for _ in range(2)],
            [torch.zeros(shape, dtype=torch.bool).share_memory_() for _ in range(2)],
            torch.zeros((), dtype=torch.int64).share_memory_(),
        )
        self.pipes[actor], theirs = self.context.Pipe()
        arguments = (assignment, self.weights, self.memory[actor], theirs)
        process = self.context.Process(target=run_actor, args=arguments, daemon=True)
        try:
            with safe_path():
                process.start()
        except RuntimeError:  # of a process that is still importing its main script
            raise UserError(
                "actors import the script that starts them: train under `if __name__ == '__main__':`"
            ) from None
        self.processes[actor] = process
        theirs.close()

    def publish(self, weights: Tensor, version: int) -> None:
        self.weights.write(weights, version)

    def request(self, actor: int, step: int) -> None:
        with contextlib.suppress(OSError):  # a dead actor shows in `ready`
            self.pipes[actor].send(step)

    def ready(self, timeout: float) -> list[Collected | int]:
        numbers = {pipe: actor for actor, pipe in self.pipes.items()}
        return [self._receive(numbers[pipe], pipe) for pipe in wait(list(numbers), timeout)]  # type: ignore[index, arg-type]

    def taken(self, actors: list[int]) -> list[int]:
        return [int(self.memory[actor].taken) for actor in actors]

    def _receive(self, actor: int, pipe: Connection) -> Collected | int:
        try:
            answer = pipe.recv()
        except (EOFError, OSError):
            return actor
        if isinstance(answer, Failure):
            raise answer.error(actor)
        slot, version, episodes = answer
        memory = self.memory[actor]
        rows = Transition(*(field.numpy() for field in memory.rows[slot]))
        return Collected(actor, version, rows, memory.alive[slot].numpy(), episodes)

    def _end(self, actor: int) -> None:
        if actor in self.processes:
            self.pipes.pop(actor).close()
            process = self.processes.pop(actor)
            process.kill()  # it ignores gentler signals
            process.join(5)

    def close(self) -> None:
        for actor in list(self.processes):
            self._end(actor)


def run_actor(assignment: Assignment, weights: Weights, memory: Memory, pipe: Connection) -> None:
    """An actor process: answer requests until the pipe closes."""
    obey_parent()
    slots = [Transition(*(field.numpy() for field in rows)) for rows in memory.rows]
    try:
        worker = Worker(assignment, memory.taken.numpy())
        turn = 0
        while True:
            step = pipe.recv()
            vector, version = weights.read()
            episodes = worker.collect(vector, step, slots[turn], memory.alive[turn].numpy())
            pipe.send((turn, version, episodes))
            turn = 1 - turn
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        pipe.send(failure(error))
