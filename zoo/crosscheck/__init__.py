"""Proof that entries compute what they claim: against Stable-Baselines3 where it has a twin, else against oracles.

Rung 1: the same data gives the same targets. Rung 2: the same weights, batches and noise give the same updates.
This package is the only one that imports stable_baselines3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from zoo import registry
from zoo.errors import UserError, nearest


@dataclass(frozen=True)
class Check:
    """One comparison: the largest absolute difference, and how large it may be."""

    entry: str
    rung: int
    reference: str
    what: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the two agree; NaN does not."""
        return self.difference <= self.tolerance


def crosscheck(names: list[str], rungs: list[int]) -> Iterator[Check]:
    """The checks of these entries (all of them if none is named) on these rungs, as they are made."""
    from zoo.crosscheck import data, oracles, updates

    known = sorted({*data.CHECKS, *updates.CHECKS, *oracles.CHECKS})
    for name in names:
        registry.get(name)
        if name not in known:
            raise UserError(f"nothing to check {name!r} against{nearest(name, known)}; there is: {', '.join(known)}")
    for name in names or known:
        if 1 in rungs:
            yield from data.CHECKS.get(name, lambda: iter(()))()
        if 2 in rungs:
            yield from updates.CHECKS.get(name, lambda: iter(()))()
            yield from oracles.CHECKS.get(name, lambda: iter(()))()
