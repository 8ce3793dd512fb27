"""The result of a comparison."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A comparison: the largest absolute difference, and its tolerance."""

    entry: str
    rung: int
    reference: str
    what: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.difference <= self.tolerance
