"""Rollouts: consecutive transitions of each environment, of the policy that acts now."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from zoo.buffers.rows import allocate, check_memory, in_spaces
from zoo.protocol import Transition, map_fields
from zoo.spec import Array, Spec


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

    def add(self, transition: Transition[Array], alive: Array) -> None:
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
        return inside and min(self._taken, self._unused) >= 0 and in_spaces(self._rows, self.spec)

    def cut(self, columns: Array) -> None:
        """What comes next for these environments does not follow on what came before, which is dropped."""
        self._unused += int(self._filled[columns].sum())
        self._filled[columns] = 0

    def learned(self, batch: Transition[Tensor]) -> None:
        """The learner has made one update: nothing depends on it."""

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

    def batches(self) -> Iterator[Transition[Tensor]]:
        """Return the rollout, (T, B, ...), once it is full; its memory is reused by the next."""
        if self._due():
            self._filled[:] = 0
            yield self._tensors

    def _due(self) -> bool:
        return not np.count_nonzero(self._filled < self.num_steps)
