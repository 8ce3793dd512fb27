"""Check what entries compute: against Stable-Baselines3 where it has a twin, else against oracles.

Rung 1: the same data gives the same targets. Rung 2: the same weights, batches and noise give the same updates.
This package is the only one that imports stable_baselines3.
"""

from collections.abc import Iterator

from zoo import registry
from zoo.crosscheck.check import Check
from zoo.errors import UserError, nearest

__all__ = ["Check", "crosscheck"]


def crosscheck(names: list[str], rungs: list[int]) -> Iterator[Check]:
    """Yield the checks of these entries (all if none is named) on these rungs. Raises UserError if one has none."""
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
