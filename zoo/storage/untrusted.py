"""Reading files that may be a stranger's: nothing in them is executed, and what they may cost is bounded first."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from zoo.errors import UserError, brief
from zoo.storage.files import Folder

TEXT_LIMIT = 2**20  # bytes of a JSON file, and of the header of a file of tensors
ROWS_LIMIT = 2**25  # bytes of a file of rows of metrics
TENSORS_LIMIT = 2**32  # bytes of a file of weights
SLACK = 2**25  # bytes that a network may take whatever the size of its file of weights
OVERHEAD = 2**10  # bytes that a tensor takes besides its elements, so that their number is bounded, too

Row = dict[str, float]  # metrics by name; `step` is a whole number


def read_json(folder: Folder, name: str) -> Any:
    """Read a JSON file that may be a stranger's. Raises UserError unless it is a plain, small and valid one."""
    return _parse(folder.path / name, _content(folder, name, TEXT_LIMIT))


def read_rows(folder: Folder, name: str) -> list[Row]:
    """Read rows of metrics, one a line, from a file that may be a stranger's; without a file there are none.

    A last line that does not end, as a run that is under way or was killed may leave it, is left out. Raises UserError
    unless all other lines are rows.
    """
    file, rows = folder.path / name, []
    if not folder.exists(name):
        return []
    for number, line in enumerate(io.BytesIO(_content(folder, name, ROWS_LIMIT)), 1):
        if not line.endswith(b"\n"):
            break
        row = _parse(file, line)
        if not is_row(row):
            raise UserError(f"{file} cannot be read: line {number} is no row of metrics")
        rows.append(row)
    return rows


def is_row(row: Any) -> bool:
    """Whether this is a row of metrics: finite numbers, among them a step and the seconds that it took to get there."""
    if not isinstance(row, dict):
        return False
    kinds = all(type(value) is (int if key == "step" else float) for key, value in row.items())
    finite = kinds and all(abs(value) < float("inf") for value in row.values())
    return finite and 0 < row.get("step", 0) < 2**53 and row.get("seconds", 0) > 0


def _content(folder: Folder, name: str, limit: int) -> bytes:
    """Return what is in a file. Raises UserError unless it is a plain one of at most `limit` bytes."""
    file = folder.path / name
    try:
        with folder.read(name) as opened:
            content = opened.read(limit + 1)
    except OSError as error:
        raise UserError(brief(f"{file} cannot be read: {error}")) from None
    if len(content) > limit:
        raise UserError(f"{file} cannot be read: it has more than {limit:,} bytes")
    return content


def _parse(file: Path, text: bytes) -> Any:
    """Return what JSON from `file` says. Raises UserError if it is none."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise UserError(f"{file} cannot be read: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(brief(f"{file} cannot be read: {error}")) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


# What layers and parameters are made with.
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


class Budget(TorchFunctionMode):
    """Inside, tensors that are made from a shape may have `budget` bytes in all.

    Raises UserError before a tensor above that is allocated.

    Constructors make everything else (copies of networks, moments of gradients) from these tensors, so it is bounded,
    too. Sizes come from torch's meta device, which allocates nothing. Making whole networks on that device would be
    simpler, but loads torch's compiler, which takes a second.
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
