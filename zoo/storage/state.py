"""The state of objects as plain data, and back: what checkpoints are made of.

An object names in `saved` the attributes that are its state, besides the parameters and buffers that an nn.Module
knows of. Numbers and text become JSON, arrays and tensors become safetensors; nothing that is loaded can be executed.

What may come back is decided before it comes: an attribute keeps its kind. The class (or the property) declares the
types of collections, and of attributes that are None at first: `best: float | None`, `sums: dict[str, Tensor]`. Whole
numbers count something. What types cannot say, such as how two counts belong together, an object's `check_state` does.
"""

from collections import deque
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.protocol import Algorithm, Checked, Stateful
from zoo.spec import Array


def pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return the state of `value` as JSON; arrays and tensors go into `tensors`, under names that begin with `path`.

    Raises TypeError if an object does not name its state.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        tensors[path] = torch.as_tensor(value).detach()
        return {_kind(value): path}
    if isinstance(value, torch.Generator):
        return pack(value.get_state(), path, tensors)
    if isinstance(value, np.random.Generator):
        return dict(value.bit_generator.state)
    if isinstance(value, list | tuple | deque):
        if value and not _is_record(type(value)) and all(isinstance(each, Tensor | np.ndarray) for each in value):
            rows = [torch.as_tensor(each) for each in value]
            if len({(row.shape, row.dtype) for row in rows}) == 1 and rows[0].numel():
                tensors[path] = torch.stack(rows).detach()
                return {f"{_kind(value[0])}s": path}
        return [pack(each, f"{path}.{i}", tensors) for i, each in enumerate(value)]
    if isinstance(value, dict):
        return {key: pack(each, f"{path}.{key}", tensors) for key, each in value.items()}
    if isinstance(value, nn.Module):
        tensors.update({f"{path}.{key}": tensor for key, tensor in value.state_dict().items()})
    return {name: pack(getattr(value, name), f"{path}.{name}", tensors) for name in saved_names(value)}


def _kind(value: Tensor | Array) -> str:
    return "tensor" if isinstance(value, Tensor) else "array"


def declared(owner: type, name: str) -> Any:
    """Return the type that a class declares for an attribute, or for what a property returns; None if it does not."""
    attribute = getattr(owner, name, None)
    if isinstance(attribute, property):
        return get_type_hints(attribute.fget).get("return")
    return get_type_hints(owner).get(name)


SCALARS = {bool: "true or false", int: "a count below 2^53", float: "a finite number", str: "text", NoneType: "nothing"}
STACKS = {"tensors": Tensor, "arrays": np.ndarray}
LIMIT = 2**53  # whole numbers below it are exact in every type that counts


def _is_scalar(kind: type, state: Any) -> bool:
    if kind is int:
        return type(state) is int and 0 <= state < LIMIT
    if kind is float:
        return type(state) in (int, float) and abs(state) < (LIMIT if type(state) is int else float("inf"))
    return type(state) is kind


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _is_record(kind: Any) -> bool:
    """Whether a type is a NamedTuple, whose elements have types of their own."""
    return isinstance(kind, type) and issubclass(kind, tuple) and kind is not tuple


def _elements(kind: Any, count: int) -> list[Any]:
    """Return the types of the elements of a sequence, of which there are `count`."""
    if _is_record(_origin(kind)):
        return list(get_type_hints(_origin(kind)).values())
    return list(get_args(kind)) if get_origin(kind) is tuple else [get_args(kind)[0]] * count


def _wrong(kind: Any, state: Any, path: str) -> UserError:
    origin = _origin(kind)
    return UserError(f"{path} is {state!r:.50}; expected {SCALARS.get(origin, f'a {origin.__name__}')}")


def saved_names(value: Any) -> tuple[str, ...]:
    """Return the names of the attributes that a checkpoint keeps, beside the parameters and buffers of a module.

    An algorithm without `saved` keeps its `generator`, another module nothing. Raises TypeError for other objects.
    """
    if isinstance(value, Stateful):
        return value.saved
    if isinstance(value, Algorithm):
        return ("generator",)
    if isinstance(value, nn.Module):
        return ()
    raise TypeError(f"{type(value).__name__} names no attributes in `saved`")


class Unpacker:
    """Restores the state that `pack` returned into new objects of the same kind.

    Tensors outside of modules go to `device`. All methods raise UserError, which names the attribute, if something is
    missing or of another type or shape.
    """

    def __init__(self, tensors: dict[str, Tensor], device: torch.device | str = "cpu") -> None:
        self.tensors, self.device = tensors, device
        self.unused = set(tensors)

    def restore(self, like: Any, state: Any, path: str, kind: Any = None) -> Any:
        """Restore one value; returns the object `like` with new content, or a new value if it is a plain one.

        A plain value must be of the declared type `kind`; without one, of the type that `like` has.
        """
        if isinstance(like, Tensor | np.ndarray):
            torch.as_tensor(like).copy_(self._like(like, state, path))
        elif isinstance(like, torch.Generator):
            like.set_state(self._like(like.get_state(), state, path))
        elif isinstance(like, np.random.Generator):
            like.bit_generator.state = state
        elif _is_record(type(like)):
            if not isinstance(state, list):
                raise _wrong(list, state, path)
            for i, (each, part) in enumerate(zip(like, state, strict=True)):
                self.restore(each, part, f"{path}.{i}")
        elif like is None or isinstance(like, bool | int | float | str | list | tuple | dict | deque):
            value = self._plain(kind or type(like), state, path)
            return deque(value, like.maxlen) if isinstance(like, deque) else value
        else:
            self._restore_object(like, state, path)
        return like

    def _restore_object(self, like: Any, state: Any, path: str) -> None:
        if isinstance(like, nn.Module):
            own = like.state_dict()
            loaded = {key: self._tensor(f"{path}.{key}", value) for key, value in own.items()}
            for key, tensor in loaded.items():
                if not tensor.isfinite().all():
                    raise UserError(f"{path}.{key} has values that are NaN or infinite")
            like.load_state_dict(loaded)
        names = saved_names(like)
        if not isinstance(state, dict) or set(state) != set(names):
            found = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise UserError(f"{path} has {found or 'nothing'}; expected {', '.join(names) or 'nothing'}")
        for name in names:
            old = getattr(like, name)
            new = self.restore(old, state[name], f"{path}.{name}", declared(type(like), name))
            if new is not old:
                setattr(like, name, new)
        if isinstance(like, Checked) and not like.check_state():
            raise UserError(
                f"{path} has numbers that contradict each other, or counters that point outside of what it holds"
            )

    def _plain(self, kind: Any, state: Any, path: str) -> Any:
        """Return the value of type `kind` that `state` describes. Raises UserError if it describes another."""
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if state is None and NoneType in kinds:
            return None
        kind = next((each for each in kinds if each is not NoneType), NoneType)
        origin = _origin(kind)
        if origin in (list, tuple, deque, dict) and not get_args(kind):
            raise TypeError(f"{path}: its class declares no type for what is in this {origin.__name__}")
        if origin is tuple or _is_record(origin):
            sequence = self._sequence(kind, state, path)
            return tuple(sequence) if origin is tuple else kind(*sequence)
        if origin in (list, deque):
            return self._sequence(kind, state, path)
        if origin is dict and isinstance(state, dict):
            return {key: self._plain(get_args(kind)[1], each, f"{path}.{key}") for key, each in state.items()}
        if origin is Tensor and state == {"tensor": path}:
            return self._tensor(path).to(self.device)
        if origin is np.ndarray and state == {"array": path}:
            return self._tensor(path).numpy()
        if origin in SCALARS and _is_scalar(origin, state):
            return state
        raise _wrong(kind, state, path)

    def _sequence(self, kind: Any, state: Any, path: str) -> list[Any]:
        stack = next((key for key in STACKS if state == {key: path}), None)
        parts = self._stack(path, stack) if stack else state
        kinds = _elements(kind, len(parts)) if isinstance(parts, list) else None
        if kinds is None or len(kinds) != len(parts) or (stack and {*map(_origin, kinds)} != {STACKS[stack]}):
            raise _wrong(kind, state, path)
        return (
            parts
            if stack
            else [self._plain(*pair, f"{path}.{i}") for i, pair in enumerate(zip(kinds, parts, strict=True))]
        )

    def _stack(self, path: str, stack: str) -> list[Any]:
        found = self._tensor(path)
        if not found.numel():
            raise UserError(f"{path} has no elements")
        return list(found.numpy()) if stack == "arrays" else list(found.to(self.device).unbind())

    def _like(self, like: Tensor | Array, state: Any, path: str) -> Tensor:
        if state != {_kind(like): path}:
            raise _wrong(type(like), state, path)
        return self._tensor(path, like)

    def _tensor(self, path: str, like: Any = None) -> Tensor:
        if path not in self.tensors:
            raise UserError(f"{path} is missing")
        self.unused.discard(path)
        found = self.tensors[path]
        if like is not None:
            like = torch.as_tensor(like)
            if (found.shape, found.dtype) != (like.shape, like.dtype):
                here = f"{tuple(like.shape)} of {like.dtype}"
                raise UserError(f"{path} has shape {tuple(found.shape)} of {found.dtype}; expected {here}")
        return found
