"""All that the program asks of an algorithm, a buffer and a source of experience, and the records between them.

An entry of the zoo is a final nn.Module with the members of `Algorithm`, and no common parent. What an entry may have
beside them is a protocol of its own: `Stepwise`, `Minibatched`, `FewGuards`, `Stateful`.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
from gymnasium import spaces
from torch import Generator, Tensor

from zoo.spec import Array, Spec
from zoo.taxonomy import Cell

Space = spaces.Space[Any]
T = TypeVar("T")  # arrays or tensors
U = TypeVar("U")

NONE = np.zeros(0, np.int64)


class Transition(NamedTuple, Generic[T]):
    """One step of every environment, (B, ...); a rollout is (T, B, ...), the rows of a replay sample are (n, N, ...).

    Transition[Array] on its way into a buffer, Transition[Tensor] on its way out. Either way its fields may be views of
    memory that is used again: of what `Envs.step` returns, at its next call; of a batch, once the next one is due.
    """

    obs: T
    action: T  # as the algorithm drew it: unclipped, in its own units
    reward: T
    next_obs: T  # the true successor, also at an episode's end: never the observation after a reset
    terminated: T  # the future ends here
    truncated: T  # the future goes on, but not in this trajectory
    log_prob: T  # log μ(a|s) of the policy that acted


class Segment(NamedTuple):
    """A replay sample: N short trajectories of n rows, which start at the sampled transitions.

    Rows after an episode's end, or after the newest transition, belong to another trajectory: `terminated` or
    `truncated` of the row before cuts them off.

    All fields are views of memory that the next sample is gathered into: whoever keeps one beyond `update` clones it.
    """

    rows: Transition[Tensor]  # (n, N, ...)
    weight: Tensor  # of each sample in the loss, (N,): 1 unless sampling was prioritised
    slot: Tensor  # where each sample is kept, (N,)
    error: Tensor  # for `update` to write TD errors into, (N,), where sampling is prioritised by them

    @property
    def obs(self) -> Tensor:
        """Where the trajectories start, (N, ...)."""
        return self.rows.obs[0]

    @property
    def action(self) -> Tensor:
        """What was done there, (N, ...)."""
        return self.rows.action[0]


Batch = Transition[Tensor] | Segment


@overload
def map_fields(fn: Callable[[T], U], batch: Transition[T]) -> Transition[U]: ...


@overload
def map_fields(fn: Callable[[Tensor], Tensor], batch: Segment) -> Segment: ...


def map_fields(fn: Callable[[Any], Any], batch: Any) -> Any:
    """Return the record of `fn` of every array or tensor."""
    return type(batch)(*(map_fields(fn, each) if isinstance(each, Transition) else fn(each) for each in batch))


class Episode(NamedTuple):
    """One finished episode; `number` counts the episodes started before it."""

    number: int
    episode_return: float  # undiscounted, of the environment's own rewards
    length: int


class Step(NamedTuple):
    """What `Envs.step` returns."""

    transition: Transition[Array]  # (B, ...)
    alive: Array  # which rows are real steps, (B,)
    episodes: list[Episode]  # those that ended
    broken: Array = NONE  # columns in which it does not follow on the step before


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


class Source(Protocol):
    """One step of experience after another."""

    num_envs: int  # columns of each step

    def step(self, progress: Progress, on_wait: Callable[[], None] = lambda: None) -> Step:
        """Return the next step's transitions; rows that are not `alive` have nothing to add.

        `on_wait` is called again and again while others are waited for; it may end the run by an exception.
        """

    def learned(self) -> None:
        """The learner has made one update."""

    def metrics(self) -> dict[str, float]:
        """Return what happened since the last call, if it is worth a column."""

    def resume(self) -> list[str]:
        """Go on from a restored state; returns what could not be continued exactly, in words."""

    def close(self) -> None:
        """Let go of environments and processes."""


@runtime_checkable
class Buffer(Protocol):
    """When learning is due, and on what: the loop adds and asks, and knows no more."""

    num_steps: int  # rows of a column that remote actors should collect at once

    @property
    def pending(self) -> bool:
        """Whether steps wait for a batch that is not full yet; a run ends at the first moment that none do."""

    def add(self, transition: Transition[Array], alive: Array) -> None:
        """Store the rows of one step whose environments are `alive`, (B,)."""

    def cut(self, columns: Array) -> None:
        """What comes next for these environments does not follow on what came before."""

    def batches(self) -> Iterator[Batch]:
        """The batches to learn from now, none while learning is not due; each is valid until the next is asked for."""

    def learned(self, batch: Any) -> None:
        """The learner has made one update on `batch`, the last that `batches` gave."""

    def num_batches(self, total_steps: int) -> int:
        """Return how many there will be, roughly, in so many steps."""

    def metrics(self) -> dict[str, float]:
        """Return what happened since the last call, if it is worth a column."""


@runtime_checkable
class Discounted(Protocol):
    """A Config with a discount of the future, per step. `normalize_reward` needs one."""

    gamma: float


@runtime_checkable
class WithModel(Protocol):
    """A Config of an entry that looks ahead by a model: the environment's own, "exact", or one that it learns."""

    model: str


@runtime_checkable
class Optimizer(Protocol):
    """A module that steps parameters down a loss. Its own tensors stay out of saved agents."""

    def minimize(self, loss: Tensor, learning_rate: Any) -> Tensor:
        """Make one step; returns the gradient's norm before clipping, a scalar."""


@runtime_checkable
class Algorithm(Protocol):
    """An actor-critic. Checkpoints keep its parameters, its buffers (torch's) and `generator`; see also `Stateful`."""

    cell: ClassVar[Cell]
    spaces: ClassVar[tuple[type[Space], ...]]  # the action spaces it supports
    Config: ClassVar[type]  # a frozen dataclass made with zoo.config.config, one Field per setting
    config: Any  # the instance of Config that it was made with
    generator: Generator  # the one that it was made with, which all noise is drawn from

    def __init__(self, spec: Spec, config: Any, generator: Generator) -> None:
        """Networks and optimisers; all later randomness comes from `generator`."""

    def make_buffer(self, spec: Spec, num_envs: int) -> Buffer:
        """Where experience goes: this line is the data axis.

        The algorithm keeps no reference to the buffer, and nothing of it changes but `generator`, which a replay draws
        its seed from. Raises UserError if the settings do not go together with `num_envs`.
        """

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, Tensor | None]:
        """The behaviour policy, exploration included: actions (B, ...), and log μ(a|s), (B,), if `update` needs it."""

    def greedy(self, obs: Tensor) -> Tensor:
        """Return the evaluation policy: actions (B, ...), without noise."""

    def update(self, batch: Any, progress: Progress) -> dict[str, Tensor]:
        """Learn from one batch of the buffer, which is valid until this returns; returns scalar metrics."""


@runtime_checkable
class Stepwise(Protocol):
    """An algorithm whose `update` leaves its arithmetic to `step`, once for each batch unless it is Minibatched.

    `step` is a function of tensors alone, with all noise drawn before it; long runs compile it.
    """

    step: Callable[..., Any]


@runtime_checkable
class Minibatched(Stepwise, Protocol):
    """An algorithm whose `update` takes several steps."""

    def steps_per_batch(self, num_envs: int) -> int:
        """Return how many times `update` calls `step` for a batch of so many environments, at most."""


@runtime_checkable
class FewGuards(Stepwise, Protocol):
    """An algorithm whose objects stay what they are, so that torch need not check them at each compiled step.

    It promises that once it is made its layers, parameters, helpers and methods are not replaced, only the numbers in
    them change, and that its Config is frozen. Plain numbers and text are checked all the same, however deep they lie.
    """

    few_guards: ClassVar[bool]


@runtime_checkable
class Stateful(Protocol):
    """An object whose state a checkpoint keeps: the attributes that it names.

    An algorithm that names none has its `generator` saved; one that names some names all of them, `generator` included.
    """

    saved: ClassVar[tuple[str, ...]]


@runtime_checkable
class Checked(Protocol):
    """An object that can tell whether a restored state makes sense."""

    def check_state(self) -> bool:
        """Whether it does."""
