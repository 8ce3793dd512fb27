"""The replay: the last transitions, sampled again and again."""

import contextlib
import mmap
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Generator

from zoo.buffers.priorities import SumTree
from zoo.buffers.rows import allocate, check_memory, in_spaces
from zoo.errors import UserError
from zoo.protocol import Segment, Transition, map_fields
from zoo.spec import Array, Spec

TOGETHER = 16  # samples of a replay that are gathered at once
UNWRITTEN = np.finfo(np.float32).min  # in the place of a TD error: no update writes it, not even one that diverges

STORED = tuple(name for name in Transition._fields if name != "next_obs")


def record_of(spec: Spec) -> np.dtype[np.void]:
    """Return what a replay keeps of a transition, side by side, since a sample needs all of it: all but the successor.

    Of a stack of frames it keeps the newest.
    """
    row = newest_frames(allocate(spec, 1), spec)._asdict()
    row = {name: field[0] for name, field in row.items()}
    names = sorted(STORED, key=lambda name: -row[name].itemsize)  # large ones first: no gaps between them
    fields = [(name, row[name].dtype, row[name].shape) for name in names]
    return np.dtype([*fields, ("startable", np.bool_)], align=True)


def newest_frames(batch: Transition[Array], spec: Spec) -> Transition[Array]:
    """Transitions, (B, ...), with the newest frame of each observation alone, if observations are stacks of frames."""
    if spec.num_frames == 1:
        return batch
    return batch._replace(obs=batch.obs[:, -1], next_obs=batch.next_obs[:, -1])


def fields_of(records: Array, next_obs: Array) -> Transition[Array]:
    """Records and their successors as a Transition whose arrays share their memory."""
    return Transition(next_obs=next_obs, **{name: records[name] for name in STORED})


def sparse(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return zeros that take memory, by pages, only where something is written.

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
    """Return the same memory as records without fields, which numpy copies twice as fast."""
    return records.view(f"V{records.itemsize}")


def part_of(segment: Segment, which: slice) -> Segment:
    """Return some of its trajectories."""
    rows, *others = segment
    return Segment(map_fields(lambda field: field[:, which], rows), *(each[which] for each in others))


class _Gathered:
    """Memory that `count` samples, each of N trajectories of n rows, are gathered into, and the segments that read it.

    It is used again and again: the views of a small sample take longer to make than its records to copy.
    """

    def __init__(self, dtype: np.dtype[np.void], n: int, size: int, count: int) -> None:
        self.slots = np.zeros((n, count * size), np.int64)
        self.weight, self.error = np.zeros((2, count * size), np.float32)
        fields, newest, startable = self._allocate(dtype)
        whole = Segment(
            map_fields(torch.from_numpy, fields), *map(torch.from_numpy, (self.weight, self.slots[0], self.error))
        )
        self.segments = [part_of(whole, slice(start, start + size)) for start in range(0, count * size, size)]
        views = (self.slots, newest, fields.terminated, fields.truncated, startable)
        self._flat = [view.reshape(-1, *view.shape[2:]) for view in views]  # views, too

    def _allocate(self, dtype: np.dtype[np.void]) -> tuple[Transition[Array], Array, Array]:
        """Allocate memory; returns, as views of it, transitions, and of their successors the newest frame and flag."""
        shape = self.slots.shape
        self.after = np.zeros(shape, np.int64)
        records, successors = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self._to = opaque(records), opaque(successors)
        return fields_of(records, successors["obs"]), successors["obs"], successors["startable"]

    def _take(self, replay: "ReplayBuffer") -> None:
        """Copy the records at `slots`, and those of their successors."""
        np.add(self.slots, replay.num_envs, out=self.after)
        for slots, memory in zip((self.slots, self.after), self._to, strict=True):
            replay.opaque.take(slots, 0, memory, "wrap")

    def gather(self, replay: "ReplayBuffer") -> list[Segment]:
        """The segments, of the transitions at `slots`; an episode's last successor stands in the replay's `final`."""
        self._take(replay)
        starts, newest, terminated, truncated, startable = self._flat
        (ended,) = (terminated | truncated).nonzero()
        if len(ended):
            newest[ended] = replay.final[starts[ended]]
        # What follows the newest transition is not known yet.
        truncated |= ~(startable | terminated)
        return self.segments


class _GatheredStacks(_Gathered):
    """The same of observations that are stacks of frames.

    The frames of obs and of next_obs, which share all but two, lie side by side.
    """

    def __init__(self, dtype: np.dtype[np.void], n: int, size: int, count: int, frames: int) -> None:
        self.frames = frames
        super().__init__(dtype, n, size, count)

    def _allocate(self, dtype: np.dtype[np.void]) -> tuple[Transition[Array], Array, Array]:
        records = np.zeros((*self.slots.shape, self.frames + 1), dtype)
        self._into = opaque(records)
        obs, rows = records["obs"], records[:, :, -2]
        fields = fields_of(rows, obs[:, :, 1:])._replace(obs=obs[:, :, :-1])
        return fields, obs[:, :, -1], records["startable"][:, :, -1]

    def _take(self, replay: "ReplayBuffer") -> None:
        replay.opaque.take(replay.frames_around(self.slots), 0, self._into, "wrap")


class ReplayBuffer:
    """The last `capacity // num_envs` transitions of each environment (`n_step`, if that is more), however short its
    episodes; once there are more than `learning_starts`, `num_updates` samples of them for every `train_every` steps,
    all environments together. A sample is `batch_size` trajectories of `n_step` rows.

    Each observation is stored once: a column is the stream of one environment's observations, and the successor of a
    row is the next row's observation. Only where an episode ended, that is the first of another: the final observation
    stands in a second array, which takes memory only there. So is each frame, where an observation is a stack of them
    (zoo.spaces.Stacked): the frames before it are those of the rows before it, or the first of its episode again.

    Sampling is uniform with replacement, or proportional to priority^`priority_exponent` (Schaul et al. 2016, section
    3.3) where that is above 0; then each update must write its TD errors into `error`. The weight of a sample is then
    what undoes all of the bias, relative to the largest in the batch, min_j P(j) / P(i); to the power of β it undoes a
    part of it.
    """

    # The finals come after the records, which say whose they are.
    saved = ("rng", "_next", "_used", "_stored", "_unlearned", "_startable", "contents", "finals", "_priorities")
    pending = False

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        generator: Generator,
        *,
        capacity: int,
        batch_size: int,
        learning_starts: int = 0,
        train_every: int = 1,
        num_updates: int = 1,
        n_step: int = 1,
        priority_exponent: float = 0.0,
    ) -> None:
        self.spec, self.num_envs, self.batch_size, self.n_step = spec, num_envs, batch_size, n_step
        self.learning_starts, self.train_every, self.num_updates = learning_starts, train_every, num_updates
        self.num_steps = max(train_every // num_envs, 1)
        self.rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
        # One more for the newest successor, and those that hold only frames of the oldest stacks.
        num_rows = max(capacity // num_envs, n_step) + spec.num_frames
        self.num_slots = num_rows * num_envs
        row_bytes = replay_bytes(spec, prioritized=priority_exponent > 0)
        check_memory("a replay", self.num_slots, row_bytes, "capacity")
        together = (spec.num_frames + 1) * TOGETHER * n_step  # with their successors
        check_memory("a sample", batch_size * together, row_bytes, "batch_size", each=together)
        self._records = np.zeros(self.num_slots, record_of(spec))
        self._startable = self._records["startable"]  # which slots hold a whole transition
        # By the slot that ended its episode.
        self.final = sparse((self.num_slots, *self._records["obs"].shape[1:]), spec.obs_dtype)
        self._row, self._successor = np.zeros((2, num_envs), record_of(spec))  # of one step
        self._row["startable"] = True
        # Before the first row of each column there is no frame, as before that of any episode.
        self._records["truncated"][-num_envs:] = spec.num_frames > 1
        self.opaque, self._opaque = opaque(self._records), (opaque(self._row), opaque(self._successor))
        self._gathered: dict[int, _Gathered] = {}  # by the number of samples
        self._next = np.arange(num_envs)  # the slot that each environment writes next
        self._used = 0  # slots below this may be startable
        self._stored = self._unlearned = 0
        self._priorities = SumTree(self.num_slots, priority_exponent) if priority_exponent else None

    def add(self, transition: Transition[Array], alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""
        transition = newest_frames(transition, self.spec)
        for name in STORED:
            self._row[name] = getattr(transition, name)
        self._successor["obs"] = transition.next_obs
        slots = self._next[alive]
        successors = self._after(slots)
        row, successor = self._opaque
        self.opaque[slots], self.opaque[successors] = row[alive], successor[alive]
        forgotten = successors
        if self.spec.num_frames > 1:
            forgotten = self._after(slots, self.spec.num_frames)
            self._startable[forgotten] = False  # but its frame still belongs to the stacks that follow
        (ended,) = (alive & (transition.terminated | transition.truncated)).nonzero()
        if len(ended):
            self.final[self._next[ended]] = transition.next_obs[ended]
        self._next[alive] = successors
        self._used = max(self._used, int(successors.max(initial=0)) + 1)
        self._stored += len(slots)
        self._unlearned += len(slots)
        if self._priorities is not None:
            self._priorities.add(slots)
            self._priorities.remove(forgotten)

    def check_state(self) -> bool:
        """Whether a restored state makes sense."""
        inside = (
            (self._next >= 0) & (self._next < self.num_slots) & (self._next % self.num_envs == np.arange(self.num_envs))
        )
        due = self._unlearned >= self.train_every  # which is no state between steps
        counts = 0 <= self._unlearned <= self._stored and not due and self._used <= self.num_slots
        any_left = self._startable[: self._used].any() == (self._stored > 0)
        rows = self.contents._replace(next_obs=self.finals["obs"])
        return bool(inside.all()) and counts and any_left and in_spaces(rows, self.spec)

    @property
    def contents(self) -> Transition[Array]:
        """The rows in use, without their successors."""
        return fields_of(self._records[: self._used], np.zeros(0))

    @property
    def finals(self) -> dict[str, Array]:
        """The final observations of the rows in use that ended their episodes, (E, ...), in the order of the rows."""
        rows = slice(self._used)
        return {"obs": self.final[rows][self._ended(rows)]}

    @finals.setter
    def finals(self, found: dict[str, Array]) -> None:
        rows = slice(self._used)
        ended, obs = self._ended(rows), np.asarray(found["obs"])
        shape = (np.count_nonzero(ended), *self.final.shape[1:])
        if (obs.shape, obs.dtype) != (shape, self.final.dtype):
            raise UserError(
                f"final observations have shape {obs.shape} of {obs.dtype}; expected {shape} of {self.final.dtype}"
            )
        self.final[rows][ended] = obs

    def _ended(self, slots: Array | slice) -> Array:
        """Return which of `slots` hold transitions that ended their episodes."""
        terminated, truncated = (self._records[name][slots] for name in ("terminated", "truncated"))
        ended: Array = self._startable[slots] & (terminated | truncated)
        return ended

    def cut(self, columns: Array) -> None:
        """What comes next for these environments does not follow on what came before: that was truncated."""
        newest = self._after(self._next[columns], -1)
        running = newest[self._startable[newest] & ~self._ended(newest)]
        self._records["truncated"][running] = True
        self.final[running] = self._records["obs"][self._after(running)]

    def batches(self) -> Iterator[Segment]:
        """Return the samples that are due, each (n, N, ...)."""
        if self._stored <= self.learning_starts:
            self._unlearned %= self.train_every
            return
        while self._unlearned >= self.train_every:
            self._unlearned -= self.train_every
            # Each update changes the priorities that the next sample is drawn by.
            together = TOGETHER if self._priorities is None else 1
            for done in range(0, self.num_updates, together):
                yield from self.samples(min(together, self.num_updates - done))

    def num_batches(self, total_steps: int) -> int:
        """Return how many samples are due in so many steps."""
        return max(total_steps - self.learning_starts, 0) // self.train_every * self.num_updates

    def metrics(self) -> dict[str, float]:
        """None: every step is kept until `capacity` newer ones have come."""
        return {}

    def sample(self) -> Segment:
        """Return one sample, (n, N, ...), in memory that the next one reuses."""
        return self.samples(1)[0]

    def samples(self, count: int) -> list[Segment]:
        """That many samples, which takes little longer than one, in memory that the next call reuses."""
        if count not in self._gathered:
            self._gathered[count] = self._gathering(count)
        gathered = self._gathered[count]
        rows = gathered.slots
        rows[0], gathered.weight[:] = self._draw(rows.shape[1])
        if self._priorities is not None:
            gathered.error.fill(UNWRITTEN)
        for row in range(1, len(rows)):
            following = self._after(rows[row - 1])
            # Past the newest transition there is nothing: it stands twice, cut off by its own truncation.
            rows[row] = np.where(self._startable[following], following, rows[row - 1])
        return gathered.gather(self)

    def _gathering(self, count: int) -> _Gathered:
        sizes = self._records.dtype, self.n_step, self.batch_size, count
        frames = self.spec.num_frames
        return _Gathered(*sizes) if frames == 1 else _GatheredStacks(*sizes, frames)

    def frames_around(self, slots: Array) -> Array:
        """Where the frames of the stacks at `slots`, (n, N), are kept, oldest first, then that of the successor.

        Before the first row of a trajectory that row stands again. Returns (n, N, frames + 1).
        """
        around = [self._after(slots), slots]
        ended = self._records["terminated"], self._records["truncated"]
        for _ in range(self.spec.num_frames - 1):
            before = self._after(around[-1], -1)
            around.append(np.where(ended[0][before] | ended[1][before], around[-1], before))
        return np.stack(around[::-1], -1)

    def learned(self, batch: Segment) -> None:
        """The learner has made one update on `batch`: its absolute TD errors become priorities.

        Raises UserError if the update wrote none for some of its samples.
        """
        if self._priorities is not None:
            error = batch.error.cpu().numpy()
            if UNWRITTEN in error:
                raise UserError(
                    "the update wrote no TD errors into batch.error, by which a replay with priority_exponent above 0 "
                    "samples: write them there, (N,), or set priority_exponent to 0"
                )
            self._priorities.set(batch.slot.cpu().numpy(), np.abs(error))

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
        """Return the slots so many time steps later in the same columns."""
        return (slots + rows * self.num_envs) % self.num_slots


def replay_bytes(spec: Spec, *, prioritized: bool) -> int:
    """Return the bytes of a slot of a replay.

    Final observations smaller than a page of memory share theirs with others, and are counted for each slot. Larger
    ones, images for the most part, are not counted: they take memory only where an episode ended, at most as much again
    as the observations, were every episode a single step.
    """
    record = record_of(spec)
    obs_bytes = record["obs"].itemsize
    final_bytes = obs_bytes if obs_bytes < mmap.PAGESIZE else 0
    # A tree of priorities has up to four nodes of 8 bytes for each slot.
    return record.itemsize + final_bytes + 32 * prioritized
