"""The state of objects as plain data, and back: what checkpoints are made of.

An object names in `saved` the attributes that are its state, besides the parameters and buffers that an nn.Module
knows of. Numbers and text become JSON, arrays and tensors become safetensors; nothing that is loaded can be executed.
"""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.protocol import Algorithm, Checked, Stateful
from zoo.spec import Array


def pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The state of `value` as JSON; arrays and tensors go into `tensors`, under names that begin with `path`."""
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
        if value and not hasattr(value, "_fields") and all(isinstance(each, Tensor | np.ndarray) for each in value):
            rows = [torch.as_tensor(each) for each in value]
            if len({row.shape for row in rows}) == 1:
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


def saved_names(value: Any) -> tuple[str, ...]:
    """The attributes that a checkpoint keeps; a TypeError for an object that says nothing about it.

    Of a module that says nothing these are none, besides its parameters and buffers; of an algorithm, its `generator`.
    """
    if isinstance(value, Stateful):
        return value.saved
    if isinstance(value, Algorithm):
        return ("generator",)
    if isinstance(value, nn.Module):
        return ()
    raise TypeError(f"{type(value).__name__} names no attributes in `saved`")


class Unpacker:
    """Gives objects the state that `pack` took from their like; a UserError names what does not fit.

    Tensors that stand for themselves, not for a part of a module, come to `device`.
    """

    def __init__(self, tensors: dict[str, Tensor], device: torch.device | str = "cpu") -> None:
        self.tensors, self.device = tensors, device
        self.unused = set(tensors)

    def restore(self, like: Any, state: Any, path: str) -> Any:
        """What stands for `like` from now on: itself with new content, or a new value where it is a plain one."""
        if isinstance(like, Tensor | np.ndarray):
            found = self._tensor(path, like)
            torch.as_tensor(like).copy_(found)
        elif isinstance(like, torch.Generator):
            like.set_state(self._tensor(path, like.get_state()))
        elif isinstance(like, np.random.Generator):
            like.bit_generator.state = state
        elif hasattr(like, "_fields"):
            for i, (each, part) in enumerate(zip(like, self._items(path, state), strict=True)):
                self.restore(each, part, f"{path}.{i}")
        elif like is None or isinstance(like, bool | int | float | str | list | tuple | dict | deque):
            return self._plain(like, state, path)
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
            new = self.restore(old, state[name], f"{path}.{name}")
            if new is not old:
                setattr(like, name, new)
        if isinstance(like, Checked) and not like.check_state():
            raise UserError(f"{path} has counters that point outside of what it holds")

    def _plain(self, like: Any, state: Any, path: str) -> Any:
        value = self._build(state, path)
        if like is None or value is None:
            return value
        sequence = isinstance(value, list) and isinstance(like, list | tuple | deque)
        if type(value) is not type(like) and not sequence:
            raise UserError(f"{path} is {value!r:.50}; expected a {type(like).__name__}")
        return deque(value, like.maxlen) if isinstance(like, deque) else value

    def _build(self, state: Any, path: str) -> Any:
        if isinstance(state, list):
            return [self._build(each, f"{path}.{i}") for i, each in enumerate(state)]
        if not isinstance(state, dict):
            return state
        if state == {"tensor": path}:
            return self._tensor(path).to(self.device)
        if state == {"tensors": path}:
            return list(self._tensor(path).to(self.device).unbind())
        if state == {"array": path}:
            return self._tensor(path).numpy()
        if state == {"arrays": path}:
            return list(self._tensor(path).numpy())
        return {key: self._build(each, f"{path}.{key}") for key, each in state.items()}

    def _items(self, path: str, state: Any) -> list[Any]:
        if not isinstance(state, list):
            raise UserError(f"{path} is {state!r:.50}; expected a list")
        return state

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
