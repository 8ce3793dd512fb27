"""The one record of experience, and the two places it is kept."""

import contextlib
import mmap
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import psutil
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from zoo.errors import UserError
from zoo.spec import Array, Spec

TOGETHER = 16  # samples of a replay that are gathered at once


class Transition(NamedTuple):
    """One step of every environment, (B, ...); a rollout is (T, B, ...), a replay sample (N, ...).

    Arrays of numpy on their way into a buffer, tensors on their way out.
    """

    obs: Any
    action: Any  # as the algorithm drew it: unclipped, in its own units
    reward: Any
    next_obs: Any  # the true successor, also at an episode's end: never the observation after a reset
    terminated: Any  # the future ends here
    truncated: Any  # the future goes on, but not in this trajectory
    log_prob: Any  # log μ(a|s) of the policy that acted


class Segment(NamedTuple):
    """A replay sample: N short trajectories of n rows, (n, N, ...), that start at the sampled transitions.

    The fields are those of Transition. Rows after an episode's end, or after the newest transition, belong to
    another trajectory: `terminated` or `truncated` of the row before cuts them off.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    truncated: Tensor
    log_prob: Tensor
    weight: Tensor  # of each sample in the loss, (N,): 1 unless sampling was prioritised
    slot: Tensor  # where each sample is kept, (N,)


Batch = TypeVar("Batch", Transition, Segment)


def map_fields(fn: Callable[[Any], Any], batch: Batch) -> Batch:
    """`fn` of every field."""
    return type(batch)(*map(fn, batch))


class Buffer(Protocol):
    """When learning is due, and on what: the loop adds and asks, and knows no more."""

    num_steps: int  # rows of a column that remote actors should collect at once

    @property
    def pending(self) -> bool:
        """Whether steps wait for a batch that is not full yet; a run ends at the first moment that none do."""

    def add(self, transition: Transition, alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""

    def cut(self, columns: Array) -> None:
        """What comes next for these environments does not follow on what came before."""

    def batches(self) -> Iterator[Any]:
        """The batches to learn from now; none while learning is not due."""

    def num_batches(self, total_steps: int) -> int:
        """How many there will be, roughly, in so many steps."""

    def metrics(self) -> dict[str, float]:
        """What happened since the last call, if it is worth a column."""


def allocate(spec: Spec, *shape: int) -> Transition:
    """Zeroed arrays for transitions of `spec`, each with the leading `shape`."""
    return Transition(
        obs=np.zeros((*shape, *spec.obs_shape), spec.obs_dtype),
        action=np.zeros((*shape, *spec.action_shape), spec.action_dtype),
        reward=np.zeros(shape, np.float32),
        next_obs=np.zeros((*shape, *spec.obs_shape), spec.obs_dtype),
        terminated=np.zeros(shape, np.bool_),
        truncated=np.zeros(shape, np.bool_),
        log_prob=np.zeros(shape, np.float32),
    )


def exist(rows: Transition, spec: Spec) -> bool:
    """Whether the discrete actions and observations of `rows` are among those of `spec`."""
    choices = [] if isinstance(spec.action_space, spaces.Box) else [(rows.action, np.array(spec.action_sizes))]
    if isinstance(spec.observation_space, spaces.Discrete):
        choices += [(obs, spec.observation_space.n) for obs in (rows.obs, rows.next_obs)]
    return all(((values >= 0) & (values < count)).all() for values, count in choices)


class _Columns:
    """`num_steps` consecutive transitions of each environment.

    Columns fill on their own: a row of an environment that is only resetting is skipped, so that time runs
    without gaps down each column and no algorithm ever needs a mask. What comes for a full column is dropped.
    """

    saved: tuple[str, ...] = ("_rows", "_filled", "_taken", "_unused")

    def __init__(self, spec: Spec, num_envs: int, num_steps: int) -> None:
        self.spec, self.num_steps = spec, num_steps
        row_bytes = sum(field.nbytes for field in allocate(spec, 1))
        check_memory("a rollout", num_steps * num_envs, row_bytes, "num_steps", each=num_envs)
        self._rows = allocate(spec, num_steps, num_envs)
        self._tensors = map_fields(torch.from_numpy, self._rows)
        self._filled = np.zeros(num_envs, np.int64)
        self._taken = self._unused = 0  # steps, and those of them that were dropped, since the last report

    def add(self, transition: Transition, alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""
        take = alive & (self._filled < self.num_steps)
        first = int(self._filled[0])
        if np.count_nonzero(take & (self._filled == first)) == len(take):
            for rows, values in zip(self._rows, transition, strict=True):
                rows[first] = values
            self._taken += len(take)
        else:
            columns = np.flatnonzero(take)
            for rows, values in zip(self._rows, transition, strict=True):
                rows[self._filled[columns], columns] = values[columns]
            taken = int(np.count_nonzero(alive))
            self._taken += taken
            self._unused += taken - len(columns)
        self._filled += take

    def check_state(self) -> bool:
        """Whether a restored state makes sense: between steps, a full column may wait, but no batch is due."""
        inside = bool(((self._filled >= 0) & (self._filled <= self.num_steps)).all()) and not self._due()
        return inside and min(self._taken, self._unused) >= 0 and exist(self._rows, self.spec)

    def cut(self, columns: Array) -> None:
        """What comes next for these environments does not follow on what came before, which is dropped."""
        self._unused += int(self._filled[columns].sum())
        self._filled[columns] = 0

    def num_batches(self, total_steps: int) -> int:
        """How many rollouts fill in so many steps."""
        return total_steps // self._rows.reward.size

    def metrics(self) -> dict[str, float]:
        """`unused`: how many steps were dropped since the last call, for each that was taken; none where none were."""
        taken, unused, self._taken, self._unused = self._taken, self._unused, 0, 0
        return {"unused": unused / max(taken, 1)} if unused else {}

    def _due(self) -> bool:
        """Whether there is something to learn from."""
        raise NotImplementedError


class RolloutBuffer(_Columns):
    """Rollouts of the policy that acts now: each is yielded once, when its slowest column is full, and forgotten.

    What faster columns would add meanwhile is dropped, since the next rollout belongs to another policy.
    """

    @property
    def pending(self) -> bool:
        """Whether a rollout has begun."""
        return bool(self._filled.any())

    def batches(self) -> Iterator[Transition]:
        """The rollout, (T, B, ...), once it is full; its memory is reused by the next."""
        if self._due():
            self._filled[:] = 0
            yield self._tensors

    def _due(self) -> bool:
        return not np.count_nonzero(self._filled < self.num_steps)


class SegmentBuffer(_Columns):
    """Segments of any policy: columns are yielded as soon as they are full, and wait for no slower one.

    With `replayed`, that many older batches follow each fresh one, drawn from a replay of `capacity` transitions.
    """

    saved = (*_Columns.saved, "pending", "replay")

    def __init__(
        self, spec: Spec, num_envs: int, num_steps: int, generator: Generator, *, replayed: int = 0, capacity: int = 0
    ) -> None:
        super().__init__(spec, num_envs, num_steps)
        self.pending = True  # until there was one
        self.replayed = replayed
        config = SegmentReplay(capacity=capacity, batch_size=num_envs, n_step=num_steps)
        self.replay = ReplayBuffer(spec, num_envs, config, generator) if replayed else None

    def add(self, transition: Transition, alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""
        super().add(transition, alive)
        if self.replay is not None:
            self.replay.add(transition, alive)

    def cut(self, columns: Array) -> None:
        """What comes next for these environments does not follow on what came before."""
        super().cut(columns)
        if self.replay is not None:
            self.replay.cut(columns)

    def batches(self) -> Iterator[Transition]:
        """The full columns, (T, full, ...), and replayed segments, (T, B, ...)."""
        if not self._due():
            return
        full = self._filled == self.num_steps
        self._filled[full] = 0
        self.pending = False
        columns = torch.from_numpy(np.flatnonzero(full))
        yield self._tensors if full.all() else map_fields(lambda field: field[:, columns], self._tensors)
        for _ in range(self.replayed):
            assert self.replay is not None
            yield Transition(*self.replay.sample()[: len(Transition._fields)])

    def num_batches(self, total_steps: int) -> int:
        """How many segments of all columns fill in so many steps, and the replayed ones."""
        return super().num_batches(total_steps) * (1 + self.replayed)

    def _due(self) -> bool:
        return bool((self._filled == self.num_steps).any())


class ReplayConfig(Protocol):
    """The settings of a replay, as fields of an algorithm's Config."""

    @property
    def capacity(self) -> int:
        """Transitions kept."""

    @property
    def batch_size(self) -> int:
        """Trajectories in a sample."""

    @property
    def learning_starts(self) -> int:
        """Steps before the first sample."""

    @property
    def train_every(self) -> int:
        """Steps between samples, all environments together."""

    @property
    def num_updates(self) -> int:
        """Samples each time."""

    @property
    def n_step(self) -> int:
        """Rows of each trajectory."""


@dataclass(frozen=True)
class SegmentReplay:
    """The settings of a SegmentBuffer's replay: as many segments as there are columns, whenever asked."""

    capacity: int
    batch_size: int
    n_step: int
    learning_starts: int = 0
    train_every: int = 1
    num_updates: int = 1


STORED = tuple(name for name in Transition._fields if name != "next_obs")


def record_of(spec: Spec) -> np.dtype[np.void]:
    """What a replay keeps of a transition, side by side, since a sample needs all of it: all but the successor."""
    row = allocate(spec)._asdict()
    names = sorted(STORED, key=lambda name: -row[name].itemsize)  # large ones first: no gaps between them
    fields = [(name, row[name].dtype, row[name].shape) for name in names]
    return np.dtype([*fields, ("startable", np.bool_)], align=True)


def fields_of(records: Array, next_obs: Array) -> Transition:
    """Records and their successors as a Transition whose arrays share their memory."""
    return Transition(next_obs=next_obs, **{name: records[name] for name in STORED})


def sparse(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros that take memory, by pages, only where something is written.

    numpy's own come in pages of 2 MiB on Linux, which 70 images share.
    """
    if sys.platform != "linux":
        return np.zeros(shape, dtype)
    size = max(int(np.prod(shape)) * dtype.itemsize, 1)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # of a system that knows no others
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)


def opaque(records: Array) -> Array:
    """The same memory as records without fields, which numpy copies twice as fast."""
    return records.view(f"V{records.itemsize}")


class _Gathered:
    """Memory that `count` samples, each of N trajectories of n rows, are gathered into, and the segments that read it.

    It is used again and again: the views of a small sample take longer to make than its records to copy.
    """

    def __init__(self, dtype: np.dtype[np.void], n: int, size: int, count: int) -> None:
        shape = (n, count * size)
        self.slots, self.after = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.records, self.successors = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self.weight = np.zeros(count * size, np.float32)
        fields = fields_of(self.records, self.successors["obs"])
        flat = map_fields(lambda field: field.reshape(-1, *field.shape[2:]), fields)  # views, too
        parts = [slice(start, start + size) for start in range(0, count * size, size)]
        self.segments = [
            Segment(*map(torch.from_numpy, [*(x[:, part] for x in fields), self.weight[part], self.slots[0, part]]))
            for part in parts
        ]
        self._to = opaque(self.records), opaque(self.successors)
        self._flat = self.slots.reshape(-1), flat.next_obs, flat.terminated, flat.truncated
        self._startable = self.successors["startable"].reshape(-1)

    def gather(self, stored: Array, final: Array, num_envs: int) -> list[Segment]:
        """The segments, of the opaque records at `slots`; an episode's last successor stands in `final`."""
        np.add(self.slots, num_envs, out=self.after)
        for slots, memory in zip((self.slots, self.after), self._to, strict=True):
            stored.take(slots, 0, memory, "wrap")
        starts, next_obs, terminated, truncated = self._flat
        (ended,) = (terminated | truncated).nonzero()
        if len(ended):
            next_obs[ended] = final[starts[ended]]
        # What follows the newest transition is not known yet.
        truncated |= ~(self._startable | terminated)
        return self.segments


class ReplayBuffer:
    """The last `capacity // num_envs` transitions of each environment (`n_step`, if that is more), however short its
    episodes; `num_updates` samples of them for every `train_every` steps.

    Each observation is stored once: a column is the stream of one environment's observations, and the successor of a
    row is the next row's observation. Only where an episode ended, that is the first of another: the final observation
    stands in a second array, which takes memory only there.

    Sampling is uniform with replacement, or proportional to priority^`priority_exponent` (Schaul et al. 2016, section
    3.3) where that is above 0; then `reprioritize` must follow each update. The weight of a sample is then what undoes
    all of the bias, relative to the largest in the batch, min_j P(j) / P(i); to the power of β it undoes a part of it.
    """

    # The finals come after the records, which say whose they are.
    saved = ("rng", "_next", "_used", "_stored", "_unlearned", "_startable", "contents", "finals", "_priorities")
    pending = False

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        config: ReplayConfig,
        generator: Generator,
        *,
        priority_exponent: float = 0.0,
    ) -> None:
        self.spec, self.num_envs, self.config = spec, num_envs, config
        self.num_steps = max(config.train_every // num_envs, 1)
        self.rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
        num_rows = max(config.capacity // num_envs, config.n_step) + 1  # one more for the newest successor
        self.num_slots = num_rows * num_envs
        row_bytes = replay_bytes(spec, prioritized=priority_exponent > 0)
        check_memory("a replay", self.num_slots, row_bytes, "capacity")
        together = 2 * TOGETHER * config.n_step  # with their successors
        check_memory("a sample", config.batch_size * together, row_bytes, "batch_size", each=together)
        self._records = np.zeros(self.num_slots, record_of(spec))
        self._startable = self._records["startable"]  # which slots hold a whole transition
        self._final = sparse((self.num_slots, *spec.obs_shape), spec.obs_dtype)  # by the slot that ended its episode
        self._row, self._successor = np.zeros((2, num_envs), record_of(spec))  # of one step
        self._row["startable"] = True
        self._opaque = opaque(self._records), opaque(self._row), opaque(self._successor)
        self._gathered: dict[int, _Gathered] = {}  # by the number of samples
        self._next = np.arange(num_envs)  # the slot that each environment writes next
        self._used = 0  # slots below this may be startable
        self._stored = self._unlearned = 0
        self._priorities = SumTree(self.num_slots, priority_exponent) if priority_exponent else None

    def add(self, transition: Transition, alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""
        for name in STORED:
            self._row[name] = getattr(transition, name)
        self._successor["obs"] = transition.next_obs
        slots = self._next[alive]
        successors = self._after(slots)
        records, row, successor = self._opaque
        records[slots], records[successors] = row[alive], successor[alive]
        (ended,) = (alive & (transition.terminated | transition.truncated)).nonzero()
        if len(ended):
            self._final[self._next[ended]] = transition.next_obs[ended]
        self._next[alive] = successors
        self._used = max(self._used, int(successors.max(initial=0)) + 1)
        self._stored += len(slots)
        self._unlearned += len(slots)
        if self._priorities is not None:
            self._priorities.add(slots)
            self._priorities.remove(successors)

    def check_state(self) -> bool:
        """Whether a restored state makes sense."""
        inside = (
            (self._next >= 0) & (self._next < self.num_slots) & (self._next % self.num_envs == np.arange(self.num_envs))
        )
        counts = 0 <= self._unlearned <= self._stored and self._used <= self.num_slots
        any_left = self._startable[: self._used].any() == (self._stored > 0)
        rows = self.contents._replace(next_obs=self.finals["obs"])
        return bool(inside.all()) and counts and any_left and exist(rows, self.spec)

    @property
    def contents(self) -> Transition:
        """The rows in use, without their successors."""
        return fields_of(self._records[: self._used], np.zeros(0))

    @property
    def finals(self) -> dict[str, Array]:
        """The final observations of the rows in use that ended their episodes, (E, ...), in the order of the rows."""
        rows = slice(self._used)
        return {"obs": self._final[rows][self._ended(rows)]}

    @finals.setter
    def finals(self, found: dict[str, Array]) -> None:
        rows = slice(self._used)
        ended, obs = self._ended(rows), np.asarray(found["obs"])
        shape = (np.count_nonzero(ended), *self.spec.obs_shape)
        if (obs.shape, obs.dtype) != (shape, self._final.dtype):
            raise UserError(
                f"final observations have shape {obs.shape} of {obs.dtype}; expected {shape} of {self._final.dtype}"
            )
        self._final[rows][ended] = obs

    def _ended(self, slots: Array | slice) -> Array:
        """Which of `slots` hold transitions that ended their episodes."""
        terminated, truncated = (self._records[name][slots] for name in ("terminated", "truncated"))
        ended: Array = self._startable[slots] & (terminated | truncated)
        return ended

    def cut(self, columns: Array) -> None:
        """What comes next for these environments does not follow on what came before: that was truncated."""
        newest = self._after(self._next[columns], -1)
        running = newest[self._startable[newest] & ~self._ended(newest)]
        self._records["truncated"][running] = True
        self._final[running] = self._records["obs"][self._after(running)]

    def batches(self) -> Iterator[Segment]:
        """The samples that are due, each (n, N, ...)."""
        if self._stored <= self.config.learning_starts:
            self._unlearned %= self.config.train_every
            return
        while self._unlearned >= self.config.train_every:
            self._unlearned -= self.config.train_every
            # Each update changes the priorities that the next sample is drawn by.
            together = TOGETHER if self._priorities is None else 1
            for done in range(0, self.config.num_updates, together):
                yield from self.samples(min(together, self.config.num_updates - done))

    def num_batches(self, total_steps: int) -> int:
        """How many samples are due in so many steps."""
        return max(total_steps - self.config.learning_starts, 0) // self.config.train_every * self.config.num_updates

    def metrics(self) -> dict[str, float]:
        """None: every step is kept until `capacity` newer ones have come."""
        return {}

    def sample(self) -> Segment:
        """One sample, (n, N, ...), in memory that the next one reuses."""
        return self.samples(1)[0]

    def samples(self, count: int) -> list[Segment]:
        """That many samples, which takes little longer than one, in memory that the next call reuses."""
        if count not in self._gathered:
            sizes = self.config.n_step, self.config.batch_size, count
            self._gathered[count] = _Gathered(self._records.dtype, *sizes)
        gathered = self._gathered[count]
        rows = gathered.slots
        rows[0], gathered.weight[:] = self._draw(rows.shape[1])
        for row in range(1, len(rows)):
            following = self._after(rows[row - 1])
            # Past the newest transition there is nothing: it stands twice, cut off by its own truncation.
            rows[row] = np.where(self._startable[following], following, rows[row - 1])
        return gathered.gather(self._opaque[0], self._final, self.num_envs)

    def reprioritize(self, slots: Tensor, error: Tensor) -> None:
        """Set the priorities of sampled slots, (N,), to their absolute TD errors, (N,)."""
        if self._priorities is not None:
            self._priorities.set(slots.cpu().numpy(), error.abs().cpu().numpy())

    def _draw(self, count: int) -> tuple[Array, Array | float]:
        """Slots to start from, (count,), and their weights, which may be one for all."""
        if self._priorities is not None:
            slots, share = self._priorities.draw(self.rng, count)
            return slots, (share.min() / share).astype(np.float32)
        slots = self._any(count)
        while np.count_nonzero(good := self._startable[slots]) < count:
            slots[~good] = self._any(int((~good).sum()))
        return slots, 1.0

    def _any(self, count: int) -> Array:
        """Slots in use, uniformly; `rng.integers` takes twice as long."""
        return (self.rng.random(count) * self._used).astype(np.int64)

    def _after(self, slots: Array, rows: Array | int = 1) -> Array:
        """The slots so many time steps later in the same columns."""
        return (slots + rows * self.num_envs) % self.num_slots


class SumTree:
    """Priorities whose sum over any prefix is found in logarithmic time; row k of `tree` has 2^k sums."""

    saved = ("sums", "largest")

    def __init__(self, size: int, exponent: float) -> None:
        self.depth = max(size - 1, 1).bit_length()
        self.sums = np.zeros(2 << self.depth)  # a heap: node i has children 2i and 2i + 1, the root is 1
        self.exponent = exponent
        self.largest = 1.0

    def add(self, slots: Array) -> None:
        """Give new slots the largest priority so far, so that each is learned from at least once."""
        self._assign(slots, self.largest)

    def remove(self, slots: Array) -> None:
        """Never draw these slots."""
        self._assign(slots, 0.0)

    def set(self, slots: Array, error: Array) -> None:
        """Priorities |error|^exponent, bounded away from 0."""
        priority = (error.astype(np.float64) + 1e-6) ** self.exponent
        self.largest = max(self.largest, float(priority.max()))
        self._assign(slots, priority)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
        """`count` slots, one from each equal share of the total, and the probability of each."""
        total = self.sums[1]
        mass = (np.arange(count) + rng.random(count)) * (total / count)
        node = np.ones(count, np.int64)
        for _ in range(self.depth):
            node *= 2
            left = self.sums[node]
            # Rounding must not lead into an empty branch.
            right = (mass >= left) & (self.sums[node + 1] > 0)
            mass -= left * right
            node += right
        return node - (1 << self.depth), self.sums[node] / total

    def _assign(self, slots: Array, priority: Array | float) -> None:
        node = slots + (1 << self.depth)
        self.sums[node] = priority
        for _ in range(self.depth):
            node = node // 2
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1]


def replay_bytes(spec: Spec, *, prioritized: bool) -> int:
    """The bytes of a slot of a replay.

    Final observations smaller than a page of memory share theirs with others, and are counted for each slot. Larger
    ones, images for the most part, are not counted: they take memory only where an episode ended, at most as much again
    as the observations, were every episode a single step.
    """
    obs_bytes = spec.obs_dtype.itemsize * int(np.prod(spec.obs_shape))
    final_bytes = obs_bytes if obs_bytes < mmap.PAGESIZE else 0
    # A tree of priorities has up to four nodes of 8 bytes for each slot.
    return record_of(spec).itemsize + final_bytes + 32 * prioritized


def check_memory(what: str, count: int, row_bytes: int, setting: str, *, each: int = 1) -> None:
    """Raise UserError, with the arithmetic, unless so many transitions fit the free memory.

    `setting` is what to make smaller, and `each` how many transitions one of it stands for.
    """
    needed, free = count * row_bytes, psutil.virtual_memory().available
    if needed > free:
        most = max(int(0.8 * free / row_bytes) // each, 1)
        raise UserError(
            f"{what} of {count:,} transitions x {row_bytes:,} bytes = {needed / 2**30:.1f} GiB does not fit the "
            f"{free / 2**30:.1f} GiB of free memory; set {setting} to {most:,} or less"
        )
