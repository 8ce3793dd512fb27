"""How many faults were injected, and how many survived."""

from collections.abc import Iterator
from contextlib import contextmanager


class Tally:
    """Counts the faults that tests inject, and those that end as they should."""

    def __init__(self) -> None:
        self.injected = self.survived = 0

    @contextmanager
    def fault(self) -> Iterator[None]:
        """One fault: survived if nothing is raised out of this."""
        self.injected += 1
        yield
        self.survived += 1
