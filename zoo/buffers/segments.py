"""Segments: consecutive transitions of each environment, of whatever policy drew them."""

import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from zoo.buffers.replay import ReplayBuffer
from zoo.buffers.rollout import _Columns
from zoo.protocol import Transition, map_fields
from zoo.spec import Array, Spec


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
        # As many segments as there are columns, whenever asked; none is due by itself.
        sizes = {"capacity": capacity, "batch_size": num_envs, "n_step": num_steps, "train_every": sys.maxsize}
        self.replay = ReplayBuffer(spec, num_envs, generator, **sizes) if replayed else None

    def add(self, transition: Transition[Array], alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""
        super().add(transition, alive)
        if self.replay is not None:
            self.replay.add(transition, alive)

    def cut(self, columns: Array) -> None:
        """What comes next for these environments does not follow on what came before."""
        super().cut(columns)
        if self.replay is not None:
            self.replay.cut(columns)

    def batches(self) -> Iterator[Transition[Tensor]]:
        """Return the full columns, (T, full, ...), and replayed segments, (T, B, ...)."""
        if not self._due():
            return
        full = self._filled == self.num_steps
        self._filled[full] = 0
        self.pending = False
        columns = torch.from_numpy(np.flatnonzero(full))
        yield self._tensors if full.all() else map_fields(lambda field: field[:, columns], self._tensors)
        for _ in range(self.replayed):
            assert self.replay is not None
            yield self.replay.sample().rows

    def num_batches(self, total_steps: int) -> int:
        """Return how many segments of all columns fill in so many steps, and the replayed ones."""
        return super().num_batches(total_steps) * (1 + self.replayed)

    def _due(self) -> bool:
        return bool((self._filled == self.num_steps).any())
