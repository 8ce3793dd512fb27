"""Values as their spaces say: casts that keep them, composite observations as flat vectors, frames in stacks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from zoo.errors import EnvError, UserError, printable, told

Array = NDArray[Any]

COMPOSITE = (spaces.Dict, spaces.Tuple, spaces.MultiBinary, spaces.MultiDiscrete)
LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


def shown(space: spaces.Space[Any]) -> str:
    """Return a space in words, on one line that is not long, whatever its bounds are."""
    text = printable(str(space))
    return text if len(text) <= 180 else f"{text[:100]} ... {text[-60:]}"


def cast(given: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return `given` as `dtype`, and which of its values that kept but for their precision: none of another kind."""
    if given.size and not _is_kind(given, dtype):
        return given, np.zeros(given.shape, np.bool_)
    with np.errstate(over="ignore"):
        typed = given.astype(dtype)
    return typed, np.isfinite(typed) == np.isfinite(given) if dtype.kind == "f" else typed == given


def complaint(given: Array, kept: Array, dtype: np.dtype[Any]) -> str:
    """Say what is wrong with an observation whose values are not all `kept` by a cast to `dtype`."""
    if not _is_kind(given, dtype):
        return f"is of {given.dtype}; its space is of {dtype}"
    return f"holds {given[~kept].flat[0]}, which does not fit {dtype}"


def _is_kind(given: Array, dtype: np.dtype[Any]) -> bool:
    return given.dtype.kind in ("biuf" if dtype.kind == "f" else "biu")


class Stacked(spaces.Box):
    """The last `frames` observations of `source` along a new first axis, the newest last.

    An episode begins with its first observation, `frames` times. So all but the newest frame of a stack are those of
    the steps before it, and a replay that knows this keeps each once.
    """

    def __init__(self, source: spaces.Box, frames: int) -> None:
        low, high = (np.repeat(bound[None], frames, 0) for bound in (source.low, source.high))
        super().__init__(low, high, dtype=source.dtype)
        self.source, self.frames = source, frames


def is_image(space: spaces.Space[Any]) -> bool:
    """Whether observations are images: (H, W, C) or (C, H, W) of bytes, or of planes of True and False, or stacks."""
    if not isinstance(space, spaces.Box) or space.dtype not in (np.uint8, np.bool_):
        return False
    return len(space.shape) == 3 or (isinstance(space, Stacked) and len(space.shape) == 4)


class Flat(spaces.Box):
    """Observations of `source` as vectors of float32, made by gymnasium's `flatten`.

    The last `masks` entries say which actions are allowed, 1 or 0 each. So a transition holds the masks of s and of s'
    wherever it is stored or sent, and a network that reads them never chooses another action.
    """

    def __init__(self, source: spaces.Space[Any], masks: int = 0) -> None:
        _check_source(source, source)
        flat = spaces.flatten_space(source)
        assert isinstance(flat, spaces.Box)  # of leaves that all have a size
        with np.errstate(over="ignore"):
            low, high = (bound.reshape(-1).astype(np.float32) for bound in (flat.low, flat.high))
        zeros = np.zeros(masks, np.float32)
        super().__init__(np.append(low, zeros), np.append(high, zeros + 1), dtype=np.float32)
        self.source, self.masks = source, masks

    def __repr__(self) -> str:
        return f"{shown(self.source)}, flat" + (f", with {self.masks} action masks" if self.masks else "")

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Flat) and (self.source, self.masks) == (other.source, other.masks)

    def flatten(self, obs: Any, mask: Array | None = None) -> Array:
        """Return one observation of `source` as a vector, (F,), with the mask, (`masks`,), behind it.

        Raises EnvError if it is none of `source`.
        """
        problem = _problem(self.source, obs, "")
        if problem:
            raise EnvError(f"observation{problem}")
        flat = np.asarray(spaces.flatten(self.source, obs), np.float32)
        return flat if mask is None else np.concatenate([flat, mask])

    def flatten_batch(self, obs: Any, masks: Sequence[Array] | None = None) -> Array:
        """Return a batch of observations, as vector environments give them, as vectors, (N, F).

        Raises EnvError if one is none of `source`, and UserError unless there are as many masks.
        """
        rows = list(_rows(self.source, obs))
        if masks is None:
            return np.stack([self.flatten(row) for row in rows])
        if len(rows) != len(masks):
            raise UserError(f"{len(masks):,} action_masks for {len(rows):,} observations; expected one for each")
        return np.stack([self.flatten(row, mask) for row, mask in zip(rows, masks, strict=True)])

    def is_batch(self, obs: Any) -> bool:
        """Whether `obs` is a batch of observations rather than one."""
        space, value = next(_leaves(self.source, obs), (self.source, 0))
        return np.ndim(value) > len(space.shape or ())


def joined_masks(given: Any, sizes: Sequence[int]) -> Array:
    """Return the mask of an action, (ΣA,): 1 for each of the choices of its dimensions that is allowed, 0 for others.

    `given` is such an array, or a tuple of one for each dimension. Raises EnvError if it is neither, or allows nothing.
    """
    try:
        parts = [np.asarray(part).reshape(-1) for part in (given if isinstance(given, tuple) else (given,))]
    except ValueError:  # of a ragged list
        parts = []
    plain = all(part.dtype.kind in "biuf" and np.isin(part, (0, 1)).all() for part in parts)
    if not plain or [len(part) for part in parts] not in ([sum(sizes)], list(sizes)):
        found = "none" if given is None else f"{' '.join(told(given, repr).split()):.100}"
        wanted = " + ".join(f"{size:,}" for size in sizes[:9])
        raise EnvError(f"action_mask is {found}; expected {wanted} values of 0 and 1, one for each action")
    mask = np.concatenate(parts).astype(np.float32)
    if not all(part.any() for part in np.split(mask, np.cumsum(sizes)[:-1])):
        raise EnvError(f"action_mask {mask.astype(int)} allows no action")
    return mask


def _check_source(space: spaces.Space[Any], whole: spaces.Space[Any]) -> None:
    """Raise UserError unless gymnasium can flatten `space`, a part of `whole`, into a vector of one size."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        for part in parts:
            _check_source(part, whole)
        if not parts:
            raise UserError(f"observation space {shown(whole)} is empty; expected something to observe")
        return
    if not isinstance(space, LEAVES):
        names = ", ".join(each.__name__ for each in (*LEAVES, spaces.Dict, spaces.Tuple))
        raise UserError(
            f"observation space {shown(whole)}: {shown(space)} has no fixed size; a vector is made of {names}"
        )
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        raise UserError(
            f"observation space {shown(whole)}: the image {shown(space)} would become one flat vector; a wrapper "
            "(--wrap module:Wrapper) can return the image alone, or what matters of it as a vector"
        )


def _problem(space: spaces.Space[Any], value: Any, where: str) -> str:
    """Return what is wrong with a part of an observation, in words that follow its name; empty if nothing is."""
    if isinstance(space, spaces.Dict):
        missing = [key for key in space.spaces if not isinstance(value, Mapping) or key not in value]
        if missing:
            return f"{where} has no {missing[0]!r}; expected {', '.join(map(repr, space.spaces))}"
        found = (_problem(part, value[key], f"{where}[{key!r}]") for key, part in space.spaces.items())
        return next(filter(None, found), "")
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, Sequence) or len(value) != len(space.spaces):
            return f"{where} is no tuple of {len(space.spaces)}"
        found = (_problem(part, value[i], f"{where}[{i}]") for i, part in enumerate(space.spaces))
        return next(filter(None, found), "")
    return _problem_of_leaf(space, value, where)


def _problem_of_leaf(space: spaces.Space[Any], value: Any, where: str) -> str:
    if not isinstance(space, spaces.Box):
        text = " ".join(told(value, repr).split())
        return "" if space.contains(value) else f"{where} is {text:.100}, which is not in {shown(space)}"
    try:
        given = np.asarray(value)
    except ValueError as error:
        return f"{where} is no array of one shape: {error}"
    if given.shape != space.shape:
        return f"{where} has shape {given.shape}; its space says {space.shape}"
    _, kept = cast(given, np.dtype(space.dtype))
    return "" if kept.all() else f"{where} {complaint(given, kept, np.dtype(space.dtype))}"


def _leaves(space: spaces.Space[Any], value: Any) -> Iterator[tuple[spaces.Space[Any], Any]]:
    """Yield each leaf of a space and what an observation, or a batch of them, has in its place, if anything."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            if isinstance(value, Mapping) and key in value:
                yield from _leaves(part, value[key])
    elif isinstance(space, spaces.Tuple):
        for part, each in zip(space.spaces, value if isinstance(value, Sequence) else (), strict=False):
            yield from _leaves(part, each)
    else:
        yield space, value


def _rows(space: spaces.Space[Any], batch: Any) -> list[Any]:
    """Split a batch of observations, arrays (N, ...) in the place of each leaf, into N of them."""
    if isinstance(space, spaces.Dict):
        columns = {key: _rows(part, batch[key]) for key, part in space.spaces.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(space, spaces.Tuple):
        return list(zip(*(_rows(part, batch[i]) for i, part in enumerate(space.spaces)), strict=True))
    return list(np.asarray(batch))
