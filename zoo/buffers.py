"""The one record of experience, and the two places it is kept."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from zoo.spec import Array, Spec


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

    def map(self, fn: Any) -> "Transition":
        """`fn` of every field."""
        return Transition(*(fn(field) for field in self))


class Buffer(Protocol):
    """When learning is due, and on what: the loop adds and asks, and knows no more."""

    @property
    def pending(self) -> bool:
        """Whether steps wait for a batch that is not full yet; a run ends at the first moment that none do."""

    def add(self, transition: Transition, alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""

    def batches(self) -> Iterator[Transition]:
        """The batches to learn from now; none while learning is not due."""


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


class RolloutBuffer:
    """`num_steps` consecutive transitions of every environment; each rollout is yielded once and forgotten.

    Columns fill on their own: a row of an environment that is only resetting is skipped, so that time runs
    without gaps down each column and no algorithm ever needs a mask. The rollout is full when its slowest column
    is; what faster columns would add meanwhile is dropped, since the next rollout belongs to another policy.
    """

    def __init__(self, spec: Spec, num_envs: int, num_steps: int) -> None:
        self.num_steps = num_steps
        self._rows = allocate(spec, num_steps, num_envs)
        self._tensors = self._rows.map(torch.from_numpy)
        self._filled = np.zeros(num_envs, np.int64)

    @property
    def pending(self) -> bool:
        """Whether a rollout has begun."""
        return bool(self._filled.any())

    def add(self, transition: Transition, alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""
        take = alive & (self._filled < self.num_steps)
        first = self._filled[0]
        if take.all() and (self._filled == first).all():
            for rows, values in zip(self._rows, transition, strict=True):
                rows[first] = values
        else:
            columns = np.flatnonzero(take)
            for rows, values in zip(self._rows, transition, strict=True):
                rows[self._filled[columns], columns] = values[columns]
        self._filled += take

    def batches(self) -> Iterator[Transition]:
        """The rollout, (T, B, ...), once it is full; its memory is reused by the next."""
        if self._filled.min() == self.num_steps:
            self._filled[:] = 0
            yield self._tensors
