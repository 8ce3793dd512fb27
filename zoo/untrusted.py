"""Reading files that may be a stranger's: nothing in them is executed, and what they may cost is bounded first."""

import json
import stat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.errors import UserError

TEXT_LIMIT = 2**20  # bytes of a JSON file, and of the header of a file of tensors
TENSORS_LIMIT = 2**32  # bytes of a file of weights
SLACK = 2**25  # bytes that a network may take whatever the size of its file of weights
OVERHEAD = 2**10  # bytes that a tensor takes besides its elements, so that their number is bounded, too


def read_json(file: Path) -> Any:
    """The content of a JSON file that may be a stranger's; a UserError unless it is a plain file, small and valid."""
    plain_size(file)
    try:
        with file.open("rb") as opened:
            text = opened.read(TEXT_LIMIT + 1)
        if len(text) > TEXT_LIMIT:
            raise ValueError(f"it has more than {TEXT_LIMIT:,} bytes")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise UserError(f"{file} cannot be read: it is nested too deeply") from None
    except (ValueError, OSError) as error:
        raise UserError(brief(f"{file} cannot be read: {error}")) from None


def plain_size(file: Path) -> int:
    """The bytes of a plain file; a UserError for a link, which may lead anywhere, or a pipe, which may never end."""
    try:
        status = file.lstat()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{file} is not a plain file; links, folders, pipes and devices are not read")
    return status.st_size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def brief(message: str) -> str:
    """One line of bearable length: what a message quotes may be a stranger's."""
    line = " ".join(message.split())
    return line if len(line) <= 600 else f"{line[:450]} ... {line[-130:]}"


# What layers and parameters are made with.
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


class Budget(TorchFunctionMode):
    """Adds up the tensors that are made from a shape, and refuses those above `budget` bytes before they are allocated.

    Whatever else a constructor makes (copies of networks, moments of gradients) is made of these, and so is bounded,
    too. Sizes come from torch's meta device, which allocates nothing. Building all on that device would be simpler, but
    loads torch's compiler, which takes a second.
    """

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.left = self.budget = budget

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES:
            shaped = {key: value for key, value in kwargs.items() if key != "generator"} | {"device": "meta"}
            self.left -= func(*args, **shaped).nbytes + OVERHEAD
            if self.left < 0:
                raise UserError(f"it needs more than the {self.budget:,} bytes that the file of its weights warrants")
        return func(*args, **kwargs)


def tensors_size(file: Path) -> int:
    """The bytes of a file of weights; a UserError if it or its header, whose length comes first, is too large."""
    size = plain_size(file)
    with file.open("rb") as opened:
        header = int.from_bytes(opened.read(8), "little")
    for found, limit, what in ((size, TENSORS_LIMIT, "it"), (header, TEXT_LIMIT, "its header")):
        if found > limit:
            raise UserError(f"{file} cannot be read: {what} has {found:,} bytes; expected at most {limit:,}")
    return size


# safetensors' names of types
DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def check_tensors(file: Path, name: str, saved: Any, expected: dict[str, Tensor]) -> None:
    """A UserError that names the first differences between a file's header and the weights of a new agent."""
    keys = saved.keys()
    slices = {key: saved.get_slice(key) for key in keys}
    found = {key: f"shape {tuple(each.get_shape())} of {each.get_dtype()}" for key, each in slices.items()}
    wanted = {key: f"shape {tuple(each.shape)} of {DTYPES.get(each.dtype)}" for key, each in expected.items()}
    wrong = [
        f"{key!r:.100} has {found.get(key, 'no value')}, {name} here expects {wanted.get(key, 'no such tensor')}"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if wrong:
        more = f"; and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise UserError(f"{file}: {'; '.join(wrong[:2])}{more}")
