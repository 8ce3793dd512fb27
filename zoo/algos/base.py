"""What every entry of the zoo is: a final nn.Module with these members, and no common parent."""

from typing import Any, ClassVar, Protocol, runtime_checkable

from gymnasium import spaces
from torch import Generator, Tensor

from zoo.buffers import Buffer, Transition
from zoo.spec import Spec
from zoo.taxonomy import Cell

__all__ = ["Algorithm", "Buffer", "Spec", "Transition"]

Space = spaces.Space[Any]


@runtime_checkable
class Algorithm(Protocol):
    """An actor-critic. `progress` is the fraction of the run's steps that are done, from 0 to 1."""

    cell: ClassVar[Cell]
    spaces: ClassVar[tuple[type[Space], ...]]  # the action spaces it supports
    Config: ClassVar[type]  # a frozen dataclass made with zoo.config.config, one Field per setting
    config: Any

    def __init__(self, spec: Spec, config: Any, generator: Generator) -> None:
        """Networks and optimisers; all later randomness comes from `generator`."""

    def make_buffer(self, spec: Spec, num_envs: int) -> Buffer:
        """Where experience goes: this line is the data axis."""

    def act(self, obs: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """The behaviour policy: actions (B, ...) and their log-probabilities (B,), exploration included."""

    def greedy(self, obs: Tensor) -> Tensor:
        """The evaluation policy: actions (B, ...), without noise."""

    def update(self, batch: Transition, progress: float) -> dict[str, Tensor]:
        """Learn from one batch of the buffer; returns scalar metrics."""
