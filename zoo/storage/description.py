"""agent.json: which algorithm an agent is, with which settings, and for which spaces it was made.

The models are strict: JSON of other keys or types is refused, and so are numbers that a type does not hold.
"""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import numpy as np
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from zoo.envs.models import ExactModel
from zoo.spaces import Array, Flat, Stacked
from zoo.spec import Spec

SPACE_LIMIT = 2**22  # elements of a space with all of its parts: an image of 1024 x 1024 x 4
PARTS_LIMIT = 1000  # of a Dict or a Tuple

Integer = Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
Number = Literal[Integer, "bool", "float16", "float32", "float64"]


class _Strict(BaseModel):
    """JSON of exactly these keys and types."""

    model_config = ConfigDict(strict=True, extra="forbid")


class BoxSpace(_Strict):
    """A Box; one bound stands for all if they are equal. Bounds are text, which keeps every number, and infinity."""

    type: Literal["Box"]
    low: Annotated[list[str], FailFast()]
    high: Annotated[list[str], FailFast()]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=SPACE_LIMIT)]], Field(max_length=32)]
    dtype: Number

    def space(self) -> spaces.Box:
        """Make the space."""
        shape, dtype = tuple(self.shape), np.dtype(self.dtype)
        low, high = (_numbers(texts).astype(dtype) for texts in (self.low, self.high))
        if len(low) == 1:
            return spaces.Box(np.full(shape, low[0]), np.full(shape, high[0]), shape, dtype.type)
        return spaces.Box(low.reshape(shape), high.reshape(shape), shape, dtype.type)

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @model_validator(mode="after")
    def _has_bounds_that_fit(self) -> Self:
        if not len(self.low) == len(self.high) in {1, self.size}:
            found = f"{len(self.low)} low and {len(self.high)} high"
            raise ValueError(f"{found} bounds; shape {self.shape} needs 1 or {self.size} of each")
        for name in ("low", "high"):
            if not _fits(_numbers(getattr(self, name)), self.dtype):
                raise ValueError(f"{name} has values that are no {self.dtype}")
        return self


class StackedSpace(_Strict):
    """Stacks of the last `frames` observations of a Box."""

    type: Literal["Stacked"]
    source: BoxSpace
    frames: Annotated[int, Field(ge=1, le=SPACE_LIMIT)]

    def space(self) -> Stacked:
        """Make the space."""
        return Stacked(self.source.space(), self.frames)

    @property
    def size(self) -> int:
        """The number of its elements."""
        return self.frames * self.source.size


class DiscreteSpace(_Strict):
    """A Discrete space: `n` integers from `start` on."""

    type: Literal["Discrete"]
    n: Annotated[int, Field(ge=1)]
    start: int
    dtype: Integer

    def space(self) -> spaces.Discrete:
        """Make the space."""
        dtype: Any = np.dtype(self.dtype).type
        return spaces.Discrete(self.n, start=self.start, dtype=dtype)

    @property
    def size(self) -> int:
        """The number of its choices, which networks see one-hot."""
        return self.n

    @model_validator(mode="after")
    def _fits_its_dtype(self) -> Self:
        if not all(_fits(np.array(value), self.dtype) for value in (self.n, self.start, self.start + self.n - 1)):
            raise ValueError(f"{self.n} values from {self.start} on are no {self.dtype}")
        return self


class MultiDiscreteSpace(_Strict):
    """A MultiDiscrete space: for each dimension, so many integers from a start on."""

    type: Literal["MultiDiscrete"]
    nvec: list[Any]
    start: list[Any]
    dtype: Integer

    def space(self) -> spaces.MultiDiscrete:
        """Make the space."""
        dtype: Any = np.dtype(self.dtype).type
        return spaces.MultiDiscrete(np.array(self.nvec), dtype=dtype, start=np.array(self.start))

    @property
    def size(self) -> int:
        """The number of choices of all dimensions."""
        return sum(map(int, np.array(self.nvec).reshape(-1)))

    @model_validator(mode="after")
    def _fits_its_dtype(self) -> Self:
        for name in ("nvec", "start"):
            if not _fits(np.array(getattr(self, name)), self.dtype):
                raise ValueError(f"{name} has values that are no {self.dtype}")
        return self


class MultiBinarySpace(_Strict):
    """A MultiBinary space: an array of this shape of 0 and 1."""

    type: Literal["MultiBinary"]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=SPACE_LIMIT)]], Field(min_length=1, max_length=32)]

    def space(self) -> spaces.MultiBinary:
        """Make the space."""
        return spaces.MultiBinary(self.shape if len(self.shape) > 1 else self.shape[0])

    @property
    def size(self) -> int:
        """The number of choices of all dimensions."""
        return 2 * math.prod(self.shape)


class NamedSpace(_Strict):
    """A part of a Dict."""

    name: Annotated[str, Field(max_length=1000)]
    space: "AnySpace"


class DictSpace(_Strict):
    """A Dict of spaces, in the order in which gymnasium flattens them."""

    type: Literal["Dict"]
    parts: Annotated[list[NamedSpace], Field(max_length=PARTS_LIMIT)]

    def space(self) -> spaces.Dict:
        """Make the space."""
        return spaces.Dict([(part.name, part.space.space()) for part in self.parts])

    @property
    def size(self) -> int:
        """The sizes of its parts together."""
        return sum(part.space.size for part in self.parts)


class TupleSpace(_Strict):
    """A Tuple of spaces."""

    type: Literal["Tuple"]
    parts: Annotated[list["AnySpace"], Field(max_length=PARTS_LIMIT)]

    def space(self) -> spaces.Tuple[Any]:
        """Make the space."""
        return spaces.Tuple([part.space() for part in self.parts])

    @property
    def size(self) -> int:
        """The sizes of its parts together."""
        return sum(part.size for part in self.parts)


class FlatSpace(_Strict):
    """Observations of another space as flat vectors, with the masks of so many actions behind them."""

    type: Literal["Flat"]
    source: "AnySpace"
    masks: Annotated[int, Field(ge=0, le=SPACE_LIMIT)]

    def space(self) -> Flat:
        """Make the space."""
        return Flat(self.source.space(), self.masks)

    @property
    def size(self) -> int:
        """The number of its elements."""
        return self.source.size + self.masks


def _numbers(texts: Iterable[str]) -> Array:
    """Return the numbers that bounds are saved as; integers are not rounded to floats."""
    return np.array([int(text) if text.lstrip("-").isdecimal() else float(text) for text in texts])


def _fits(values: Array, dtype: str) -> bool:
    """Whether `dtype` holds these numbers exactly; a cast would wrap others around in silence."""
    if values.dtype.kind not in "iuf":
        return False
    with np.errstate(all="ignore"):
        return bool((values.astype(dtype).astype(values.dtype) == values).all())


AnySpace = Annotated[
    BoxSpace
    | StackedSpace
    | DiscreteSpace
    | MultiDiscreteSpace
    | MultiBinarySpace
    | DictSpace
    | TupleSpace
    | FlatSpace,
    Field(discriminator="type"),
]


class Spaces(_Strict):
    """The two spaces of a Spec, and whether its actions are scaled."""

    observation_space: AnySpace
    action_space: AnySpace
    scale_actions: bool

    @model_validator(mode="after")
    def _are_small(self) -> Self:
        for name in ("observation_space", "action_space"):
            size = getattr(self, name).size
            if size > SPACE_LIMIT:
                raise ValueError(f"{name} has {size:,} elements; expected at most {SPACE_LIMIT:,}")
        return self

    def spec(self) -> Spec:
        """Make the Spec. Raises ValueError or AssertionError if there are no such spaces, or none that it supports."""
        return Spec(self.observation_space.space(), self.action_space.space(), scale_actions=self.scale_actions)


class Source(_Strict):
    """The environment whose exact model an agent looks ahead with."""

    env: Annotated[str, Field(max_length=100)]
    kwargs: dict[Annotated[str, Field(max_length=100)], Any]


class Description(_Strict):
    """An agent, but for its weights."""

    algorithm: Annotated[str, Field(max_length=100)]
    config: dict[Annotated[str, Field(max_length=100)], Any]
    spaces: Spaces
    normalize_obs: bool
    model: Source | None = None

    def spec(self) -> Spec:
        """Make the Spec. Raises ValueError, AssertionError or UserError if there is none, or none that is supported."""
        spec = self.spaces.spec()
        if self.model is not None:
            spec.model = ExactModel(self.model.env, self.model.kwargs)
        return spec


def describe(spec: Spec) -> Spaces:
    """Describe the spaces of a Spec; what is larger than `SPACE_LIMIT` can be written, but not read again."""
    return Spaces.model_construct(
        observation_space=_describe(spec.observation_space),
        action_space=_describe(spec.action_space),
        scale_actions=spec.scale_actions,
    )


def describe_model(spec: Spec) -> Source | None:
    """Describe the exact model of a Spec, if it has one."""
    if not isinstance(spec.model, ExactModel):
        return None
    return Source.model_construct(env=spec.model.env_id, kwargs=spec.model.kwargs)


def _describe(space: spaces.Space[Any]) -> AnySpace:
    dtype: Any = str(space.dtype)
    if isinstance(space, Stacked):
        source: Any = _describe(space.source)
        return StackedSpace.model_construct(type="Stacked", source=source, frames=space.frames)
    if isinstance(space, Flat):
        return FlatSpace.model_construct(type="Flat", source=_describe(space.source), masks=space.masks)
    if isinstance(space, spaces.Dict):
        named = space.spaces.items()
        parts = [NamedSpace.model_construct(name=name, space=_describe(part)) for name, part in named]
        return DictSpace.model_construct(type="Dict", parts=parts)
    if isinstance(space, spaces.Tuple):
        return TupleSpace.model_construct(type="Tuple", parts=[_describe(part) for part in space.spaces])
    if isinstance(space, spaces.MultiBinary):
        return MultiBinarySpace.model_construct(type="MultiBinary", shape=list(space.shape))
    if isinstance(space, spaces.Box):
        number = float if np.issubdtype(space.dtype, np.floating) else int
        low, high = ([str(number(x)) for x in bound.reshape(-1)] for bound in (space.low, space.high))
        if len(set(low)) == len(set(high)) == 1:
            low, high = low[:1], high[:1]
        return BoxSpace.model_construct(type="Box", low=low, high=high, shape=list(space.shape), dtype=dtype)
    if isinstance(space, spaces.Discrete):
        n, first = int(space.n), int(space.start)
        return DiscreteSpace.model_construct(type="Discrete", n=n, start=first, dtype=dtype)
    assert isinstance(space, spaces.MultiDiscrete)  # a Spec has no others
    nvec, start = space.nvec.tolist(), space.start.tolist()
    return MultiDiscreteSpace.model_construct(type="MultiDiscrete", nvec=nvec, start=start, dtype=dtype)
