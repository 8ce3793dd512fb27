"""What every entry of the zoo is: a final nn.Module with these members, and no common parent."""

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from gymnasium import spaces
from torch import Generator, Tensor

from zoo.buffers import Buffer, Transition
from zoo.spec import Array, Spec
from zoo.taxonomy import Cell

__all__ = ["END", "Algorithm", "Buffer", "Progress", "Spec", "Transition"]

Space = spaces.Space[Any]


class Progress(NamedTuple):
    """How far a run is, in environment steps, and which environments are at the first step of an episode."""

    step: int
    total: int
    started: Array | None = None  # (B,) bool, where it is known: when acting

    @property
    def fraction(self) -> float:
        """From 0 at the start to 1 at the end; schedules follow it."""
        return min(self.step / self.total, 1.0)


END = Progress(2**63 - 1, 2**63 - 1)  # of a run of any length: after every warm-up, where every schedule ends


@runtime_checkable
class Algorithm(Protocol):
    """An actor-critic."""

    cell: ClassVar[Cell]
    spaces: ClassVar[tuple[type[Space], ...]]  # the action spaces it supports
    Config: ClassVar[type]  # a frozen dataclass made with zoo.config.config, one Field per setting
    config: Any

    def __init__(self, spec: Spec, config: Any, generator: Generator) -> None:
        """Networks and optimisers; all later randomness comes from `generator`."""

    def make_buffer(self, spec: Spec, num_envs: int) -> Buffer:
        """Where experience goes: this line is the data axis."""

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, Tensor | None]:
        """The behaviour policy, exploration included: actions (B, ...), and log μ(a|s), (B,), if `update` needs it."""

    def greedy(self, obs: Tensor) -> Tensor:
        """The evaluation policy: actions (B, ...), without noise."""

    def update(self, batch: Transition, progress: Progress) -> dict[str, Tensor]:
        """Learn from one batch of the buffer; returns scalar metrics."""
