"""Where experience comes from: this process, others, or a Ray cluster. One loop learns from any of them.

The data axis decides what remote actors may do. An off-policy entry learns from whichever segment is ready, drawn
by weights that lag behind; its learner never waits for a slow actor. An on-policy entry learns in rounds: each actor
fills its columns of one rollout with the newest weights, and the learner waits for all of them, so its lag is 0.
"""

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.random import SeedSequence
from torch import Tensor, nn

from zoo.algos.base import Algorithm, Progress
from zoo.buffers import Transition, allocate
from zoo.envs import NONE, Envs, Episode, Step
from zoo.errors import ActorError, UserError
from zoo.machine import safe_path, set_processor
from zoo.spec import Array, Spec
from zoo.taxonomy import Data
from zoo.vector import EnvLike, vectorize

OUTSTANDING = 2  # segments that an off-policy actor may be asked for ahead, so that it never idles
MAX_RESTARTS = 3  # of each actor: a lost node takes several at once
TIMEOUT = 120.0  # seconds in which no actor that is waited for takes a step
ANSWER = 10.0  # seconds that an actor on Ray may take to say how many steps it has taken
COUNT = "count"  # its concurrency group for that: it answers while it collects


class Source(Protocol):
    """One step of experience after another."""

    def step(self, progress: Progress) -> Step:
        """The next step's transitions; rows that are not `alive` have nothing to add."""

    def learned(self) -> None:
        """The learner has made one update."""

    def metrics(self) -> dict[str, float]:
        """What happened since the last call, if it is worth a column."""

    def resume(self) -> list[str]:
        """Go on from a restored state; returns what could not be continued exactly, in words."""

    def close(self) -> None:
        """Let go of environments and processes."""


class Inline:
    """Acting in this process; with `copy`, by a copy of the learner that is refreshed every `lag` updates."""

    saved = ("copy", "envs", "updates")

    def __init__(self, algo: Algorithm, envs: Envs, *, copy: Algorithm | None = None, lag: int = 0) -> None:
        self.algo, self.envs, self.copy, self.lag = algo, envs, copy, lag
        self.actor = copy or algo
        self.updates = 0
        self.device = device_of(algo)
        self.broken = NONE
        if copy is not None:
            load_weights(copy, weights_of(algo))
        envs.reset()

    def step(self, progress: Progress) -> Step:
        step = act_and_step(self.actor, self.envs, progress, self.device)
        if len(self.broken):
            step, self.broken = step._replace(broken=self.broken), NONE
        return step

    def learned(self) -> None:
        self.updates += 1
        if self.copy is not None and self.updates % self.lag == 0:
            load_weights(self.copy, weights_of(self.algo))

    def resume(self) -> list[str]:
        self.broken = self.envs.replay()
        if not len(self.broken):
            return []
        columns = ", ".join(map(str, self.broken))
        return [f"episodes in environment {columns} start anew: replaying their actions led elsewhere"]

    def metrics(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self.envs.close()


def act_and_step(actor: Algorithm, envs: Envs, progress: Progress, device: torch.device) -> Step:
    """Choose an action for every environment and take it."""
    progress = Progress(progress.step, progress.total, envs.lengths == 0)
    with torch.inference_mode():
        action, log_prob = actor.act(torch.from_numpy(envs.obs).to(device), progress)
    return envs.step(action.cpu().numpy(), None if log_prob is None else log_prob.cpu().numpy())


def device_of(algo: Any) -> torch.device:
    """The device of an algorithm's parameters."""
    return next(iter(algo.parameters())).device


def acting_parameters(algo: Any) -> list[Tensor]:
    """The parameters that acting can depend on: all that are trained."""
    return [p for p in algo.parameters() if p.requires_grad]


def weights_of(algo: Any) -> Tensor:
    """The trained parameters as one vector on the CPU."""
    return nn.utils.parameters_to_vector(acting_parameters(algo)).detach().cpu()


def load_weights(algo: Any, weights: Tensor) -> None:
    """Set the trained parameters from one vector."""
    with torch.no_grad():
        parameters = acting_parameters(algo)
        pieces = weights.to(device_of(algo)).split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))


@dataclass(frozen=True)
class Job:
    """All that an actor needs to know to make its own environments and its own copy of the algorithm."""

    make: Callable[[Spec, SeedSequence], Algorithm]
    env: EnvLike
    num_envs: int  # of each actor
    vec: str
    scale_actions: bool
    num_steps: int  # rows of a column that a segment brings
    max_rows: int  # of a segment: more where rows that only reset are among them
    total_steps: int
    seeds: SeedSequence


class Worker:
    """An actor: environments and a copy of the algorithm; collects one segment after another.

    `taken` counts its steps, and the making of its environments as one; others may watch it.
    """

    def __init__(self, job: Job, taken: Array) -> None:
        set_processor(1)
        env_seeds, algo_seeds = job.seeds.spawn(2)
        vector = vectorize(job.env, job.num_envs, job.vec)
        self.envs = Envs(vector, env_seeds, scale_actions=job.scale_actions)
        self.algo = job.make(self.envs.spec, algo_seeds)
        self.fills_columns = self.algo.cell.data is Data.ON
        self.job, self.taken, self.device = job, taken, torch.device("cpu")
        self.envs.reset()
        self.taken += 1

    def collect(self, weights: Tensor, step: int, rows: Transition, alive: Array) -> list[list[Episode]]:
        """Fill `rows`, (max_rows, B, ...), and `alive`, (max_rows, B), from the top with one segment.

        A segment has `num_steps` rows or, of an on-policy entry, as many as leave `num_steps` alive ones in each
        column: a whole rollout, so that no row of it outlives the update. Returns the episodes that each row ended.
        """
        load_weights(self.algo, weights)
        progress = Progress(step, self.job.total_steps)
        filled = np.zeros(self.job.num_envs, np.int64)
        episodes: list[list[Episode]] = []
        alive[:] = False
        while filled.min() < self.job.num_steps:
            taken = act_and_step(self.algo, self.envs, progress, self.device)
            self.taken += 1
            for row, value in zip(rows, taken.transition, strict=True):
                row[len(episodes)] = value
            alive[len(episodes)] = taken.alive
            filled += taken.alive if self.fills_columns else 1
            episodes.append(taken.episodes)
        return episodes


class Collected(NamedTuple):
    """One segment of an actor: views of its memory, good until the actor is asked again."""

    actor: int
    version: int  # of the weights that acted
    rows: Transition  # (max_rows, B, ...)
    alive: Array  # (max_rows, B); False below the segment's last row
    episodes: list[list[Episode]]  # that each of the segment's rows ended
    first: bool = False  # of this incarnation of the actor: it follows on no segment before


class Backend(Protocol):
    """How actors are started, asked and heard."""

    def start(self, actor: int, job: Job) -> None:
        """Start (or replace) an actor."""

    def publish(self, weights: Tensor, version: int) -> None:
        """Make these weights the ones that later requests act with."""

    def request(self, actor: int, step: int) -> None:
        """Ask for one more segment, acted as at `step` of the run."""

    def ready(self, timeout: float) -> list[Collected | int]:
        """Segments that have come, at most one an actor; the bare number of an actor that has died."""

    def taken(self, actors: list[int]) -> list[int]:
        """How many steps each of these actors has taken since it was started; -1 where it does not answer."""

    def close(self) -> None:
        """End all actors; none outlives this."""


class Remote:
    """Steps of `num_actors` actors elsewhere; columns [k B, (k + 1) B) belong to actor k."""

    saved = ("version", "starts")

    def __init__(self, algo: Algorithm, job: Job, spec: Spec, backend: Backend, num_actors: int) -> None:
        self.algo, self.job, self.backend, self.num_actors = algo, job, backend, num_actors
        self.actors = list(range(num_actors))
        self.waits = algo.cell.data is Data.ON
        self.num_envs = num_actors * job.num_envs
        self.blank = allocate(spec, self.num_envs)
        self.version = self.starts = 0
        self.deaths = [0] * num_actors
        self.delivered = self.behind = 0  # alive rows since the last report, and the sum of their lags
        self.queue: deque[tuple[Step, Array]] = deque()  # with the version that acted in each row, (B,)
        self.backlog: deque[Collected] = deque()
        self.unheard: set[int] = set()  # actors that have delivered nothing since they were started
        self.quiet: list[int] = []  # the counts of steps when nothing had come for TIMEOUT seconds
        self.dirty = self.fresh = True

    def step(self, progress: Progress) -> Step:
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
        seeds = self.job.seeds
        child = SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, self.starts))
        self.backend.start(actor, replace(self.job, seeds=child))
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
        """One segment of each actor, in their order."""
        segments: dict[int, Collected] = {}
        for actor in self.actors:
            self.backend.request(actor, step)
        while len(segments) < self.num_actors:
            missing = [actor for actor in self.actors if actor not in segments]
            segments |= {each.actor: each for each in self._hear(missing, step)}
        return [segments[actor] for actor in self.actors]

    def _hear(self, waited: list[int], step: int) -> list[Collected]:
        """What comes next, perhaps nothing; actors that died are replaced, and asked again if they are `waited` for."""
        answers = self.backend.ready(TIMEOUT)
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
        return np.arange(each.actor * self.job.num_envs, (each.actor + 1) * self.job.num_envs)

    def _side_by_side(self, collected: list[Collected]) -> Iterator[tuple[Step, Array]]:
        """The segments of all actors as one; where some have more rows, the others' further ones are not alive."""
        versions = np.repeat([each.version for each in collected], self.job.num_envs)
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


class Memory(NamedTuple):
    """What the learner shares with one actor process: two segments, used in turn."""

    rows: list[Transition]  # tensors, (max_rows, B, ...) each
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
        """A copy of the weights and their version; no lock that a dying process could keep."""
        while True:
            version = int(self.done)
            vector = self.vector.clone()
            if int(self.begun) == version == int(self.done):
                return vector, version
            time.sleep(0)


class Processes:
    """Actors as processes of this machine; segments and weights in shared memory, requests through pipes."""

    def __init__(self, algo: Algorithm, spec: Spec, job: Job) -> None:
        # spawn: no inherited pipe ends, so that an actor sees the end of its pipe when the learner dies.
        self.context = multiprocessing.get_context("spawn")
        self.spec, self.job = spec, job
        vector = weights_of(algo).clone().share_memory_()
        self.weights = Weights(vector, *(torch.zeros((), dtype=torch.int64).share_memory_() for _ in range(2)))
        self.processes: dict[int, Any] = {}
        self.pipes: dict[int, Connection] = {}
        self.memory: dict[int, Memory] = {}

    def start(self, actor: int, job: Job) -> None:
        self._end(actor)
        shape = (job.max_rows, job.num_envs)
        self.memory[actor] = Memory(
            [Transition(*(torch.from_numpy(x).share_memory_() for x in allocate(self.spec, *shape))) for _ in range(2)],
            [torch.zeros(shape, dtype=torch.bool).share_memory_() for _ in range(2)],
            torch.zeros((), dtype=torch.int64).share_memory_(),
        )
        self.pipes[actor], theirs = self.context.Pipe()
        arguments = (job, self.weights, self.memory[actor], theirs)
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
        if isinstance(answer, str):
            raise ActorError(f"actor {actor} failed: {answer}")
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


def run_actor(job: Job, weights: Weights, memory: Memory, pipe: Connection) -> None:
    """An actor process: answer requests until the pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the learner decides when to stop
        signal.signal(number, signal.SIG_IGN)
    slots = [Transition(*(field.numpy() for field in rows)) for rows in memory.rows]
    try:
        worker = Worker(job, memory.taken.numpy())
        turn = 0
        while True:
            step = pipe.recv()
            vector, version = weights.read()
            episodes = worker.collect(vector, step, slots[turn], memory.alive[turn].numpy())
            pipe.send((turn, version, episodes))
            turn = 1 - turn
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:  # sent as text: an exception may not survive the trip
        pipe.send(f"{type(error).__name__}: {error}")


class Cluster:
    """Actors on a Ray cluster: the one at `address`, or a local one on the loopback interface."""

    def __init__(self, spec: Spec, address: str | None) -> None:
        try:
            import ray
        except ImportError:
            raise UserError("--engine ray needs an extra: pip install -e '.[ray]'") from None
        self.ray: Any = ray
        self.spec = spec
        self.owns = not ray.is_initialized()
        if self.owns:
            # "local": without it Ray would join whatever cluster it finds on this machine.
            local = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
            ray.init(log_to_driver=False, **({"address": address} if address else local))
        self.workers: dict[int, Any] = {}
        self.pending: dict[Any, int] = {}
        self.jobs: dict[int, Job] = {}

    def start(self, actor: int, job: Job) -> None:
        self._end(actor)
        self.jobs[actor] = job
        options = {"num_cpus": 0, "scheduling_strategy": "SPREAD", "concurrency_groups": {COUNT: 1}}
        self.workers[actor] = self.ray.remote(**options)(RayWorker).remote(job, self.spec)

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
                raise ActorError(f"actor {actor} failed: {str(error).strip().splitlines()[-1]}") from None
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

    def __init__(self, job: Job, spec: Spec) -> None:
        self.taken = np.zeros((), np.int64)
        self.worker, self.job, self.spec = Worker(job, self.taken), job, spec

    def count(self) -> int:
        """Steps taken so far."""
        return int(self.taken)

    def collect(self, weights: tuple[Array, int], step: int) -> tuple[int, Transition, Array, list[list[Episode]]]:
        """One segment: the version of its weights, its rows, which are alive, and the episodes that ended."""
        vector, version = weights
        shape = (self.job.max_rows, self.job.num_envs)
        rows, alive = allocate(self.spec, *shape), np.zeros(shape, np.bool_)
        episodes = self.worker.collect(torch.from_numpy(vector.copy()), step, rows, alive)
        return version, rows, alive, episodes
