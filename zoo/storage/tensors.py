"""Files of tensors, in safetensors' format, in folders that may be a stranger's."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedWriter
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from zoo.errors import UserError
from zoo.storage.files import Folder

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


def write_tensors(
    file: BufferedWriter, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write tensors, and text beside them; returns the SHA-256 of the file.

    safetensors writes to paths alone, where links are followed, or into a copy of everything in memory. The format:
    the header's length, the header, the elements (https://github.com/huggingface/safetensors#format).
    """
    # Large elements first, so that each tensor is aligned to its own.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[key] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()

    def write(part: bytes | memoryview) -> None:
        digest.update(part)
        file.write(part)

    write(len(text).to_bytes(8, "little"))
    write(text)
    for _, tensor in ordered:
        flat = tensor.detach().cpu().contiguous().as_strided((tensor.numel(),), (1,))  # of one element: any stride
        write(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Saved(NamedTuple):
    """An open file of tensors: its size in bytes, and safetensors' handle."""

    size: int
    tensors: Any


@contextmanager
def read_tensors(folder: Folder, name: str, *, limit: int | None = None, header_limit: int) -> Iterator[Saved]:
    """Open a file of tensors. Raises UserError if it is not a plain one, or if it or its header has too many bytes.

    Raises SafetensorError if the format is another.
    """
    with folder.read(name) as file:
        size, header = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        for found, most, what in ((size, limit, "it"), (header, header_limit, "its header")):
            if most is not None and found > most:
                path = folder.path / name
                raise UserError(f"{path} cannot be read: {what} has {found:,} bytes; expected at most {most:,}")
        with safe_open(f"/dev/fd/{file.fileno()}", "pt") as opened:
            yield Saved(size, opened)


def check_tensors(file: str, name: str, saved: Any, expected: dict[str, Tensor]) -> None:
    """Raise UserError, with the first differences, unless a file has the names, types and shapes of a new agent."""
    keys = saved.keys()
    slices = {key: saved.get_slice(key) for key in keys}
    found = {key: f"shape {tuple(each.get_shape())} of {each.get_dtype()}" for key, each in slices.items()}
    wrong = differences(name, found, forms(expected))
    if wrong:
        raise UserError(f"{file}: {wrong}")


def forms(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return shapes and types of tensors, as messages say them."""
    return {key: f"shape {tuple(each.shape)} of {DTYPES.get(each.dtype)}" for key, each in tensors.items()}


def differences(name: str, found: dict[str, str], wanted: dict[str, str]) -> str:
    """Say where `found` forms of tensors are not those that `name` wants: the first two; empty if they are the same."""
    wrong = [
        f"{key!r:.100} has {found.get(key, 'no value')}, {name} here expects {wanted.get(key, 'no such tensor')}"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    more = f"; and {len(wrong) - 2} more" if len(wrong) > 2 else ""
    return f"{'; '.join(wrong[:2])}{more}"
