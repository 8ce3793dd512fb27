"""The result of a comparison."""

from dataclasses import dataclass


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
