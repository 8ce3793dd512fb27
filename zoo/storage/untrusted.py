"""Reading files that may be a stranger's: nothing in them is executed, and what they may cost is bounded first."""

import json
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from zoo.errors import UserError
from zoo.storage.files import Folder

TEXT_LIMIT = 2**20  # bytes of a JSON file, and of the header of a file of tensors
TENSORS_LIMIT = 2**32  # bytes of a file of weights
SLACK = 2**25  # bytes that a network may take whatever the size of its file of weights
OVERHEAD = 2**10  # bytes that a tensor takes besides its elements, so that their number is bounded, too


def read_json(folder: Folder, name: str) -> Any:
    """Read a JSON file that may be a stranger's. Raises UserError unless it is a plain, small and valid one."""
    file = folder.path / name
    try:
        with folder.read(name) as opened:
            text = opened.read(TEXT_LIMIT + 1)
        if len(text) > TEXT_LIMIT:
            raise ValueError(f"it has more than {TEXT_LIMIT:,} bytes")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{file} cannot be read: it is nested too deeply") from None
    except (ValueError, OSError) as error:
        raise UserError(brief(f"{file} cannot be read: {error}")) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def brief(message: str) -> str:
    """Return a message as one line of at most 600 characters: what it quotes may be a stranger's."""
    line = " ".join(message.split())
    return line if len(line) <= 600 else f"{line[:450]} ... {line[-130:]}"


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
