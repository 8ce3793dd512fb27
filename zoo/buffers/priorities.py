"""Priorities of samples, kept as sums."""

import numpy as np

from zoo.spec import Array


class SumTree:
    """Priorities whose sum over any prefix is found in logarithmic time; row k of `tree` has 2^k sums."""

    saved = ("sums", "largest")

    def __init__(self, size: int, exponent: float) -> None:
        self.depth = max(size - 1, 1).bit_length()
        self.sums = np.zeros(2 << self.depth)  # a heap: node i has children 2i and 2i + 1, the root is 1
        self.exponent = exponent
        self.largest = 1.0

    def check_state(self) -> bool:
        """Whether a restored state makes sense."""
        return self.largest > 0

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
