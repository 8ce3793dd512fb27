"""Checkpoints: all the state of a run, so that after any interruption it goes on as if there had been none.

A checkpoint is one file, which has a number: one more than any file before it, so that none is ever written over. It
is written under another name, flushed to the disk and renamed, then entered into the manifest, with its digest, in the
same way; the last two are kept. So whenever a run is killed, the entries of the manifest are whole checkpoints.
"""

import hashlib
import json
import re
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from torch import Tensor

from zoo.errors import StorageError, UserError, brief
from zoo.storage.files import Folder
from zoo.storage.state import Unpacker, pack
from zoo.storage.tensors import read_tensors, write_tensors
from zoo.storage.untrusted import SLACK, TENSORS_LIMIT, read_json

SCHEMA = 2
FOLDER, MANIFEST, KEPT = "checkpoints", "manifest.json", 2
HEADER_LIMIT = 2**26  # bytes of a checkpoint's header, where the numbers and texts are
# What state that is not of this run raises where it is restored.
MISFITS = (
    *(SafetensorError, OSError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
)
NO_CHECKPOINT = "the run stopped before its first checkpoint: it starts from the beginning"


def save(run: Folder, state: dict[str, Any], step: int) -> None:
    """Write a checkpoint of `state` into the folder of a run.

    Raises StorageError if that fails; earlier checkpoints stay as they are.
    """
    tensors: dict[str, Tensor] = {}
    packed = {key: pack(value, key, tensors) for key, value in state.items()}
    try:
        with run.folder(FOLDER, make=True) as folder:
            entries = _entries(folder)
            name = _new_name(folder)
            with folder.write(name) as file:
                metadata = {"schema": str(SCHEMA), "step": str(step), "state": json.dumps(packed)}
                digest = write_tensors(file, tensors, metadata)
            kept = [*entries, {"file": name, "step": step, "sha256": digest}][-KEPT:]
            _write_manifest(folder, kept)
            for old in set(_checkpoints(folder)) - {entry["file"] for entry in kept}:
                folder.remove(old)
    except OSError as error:
        path = run.path / FOLDER
        raise StorageError(f"no checkpoint could be written to {path}: {error}; earlier ones are whole") from error


def load(run: Folder, state: dict[str, Any], device: torch.device | str = "cpu") -> tuple[int, list[str]]:
    """Restore the newest whole checkpoint of a run into the objects of `state`; returns its step and warnings.

    Newer ones, which are damaged, leave the manifest: they do not count among those that are kept. Step 0 means that
    the run stopped before its first checkpoint, so that nothing changes. Raises UserError if no checkpoint is whole, or
    if it does not fit the run.
    """
    if not run.exists(FOLDER):
        return _nothing(run)
    warnings: list[str] = []
    with run.folder(FOLDER) as folder:
        entries = _entries(folder)
        if not entries:
            return _nothing(run)
        if not folder.exists(MANIFEST):
            warnings.append(f"{folder.path / MANIFEST} is missing; it is made anew from the checkpoints that are there")
        while entries and (damage := _damage(folder, entries[-1])):
            warnings.append(f"{damage}; trying the checkpoint before it")
            entries.pop()
        if not entries:
            raise UserError("; ".join([*warnings, "but there is none"]))
        _restore(folder, entries[-1]["file"], state, device)
        if warnings:
            _write_manifest(folder, entries)
        return entries[-1]["step"], warnings


def _nothing(run: Folder) -> tuple[int, list[str]]:
    """Return what `load` does for a run without a checkpoint. Raises UserError if the run is finished."""
    if run.exists("final"):
        raise UserError(f"{run.path} is finished, and has no checkpoint to go on from; train anew with another --out")
    return 0, [NO_CHECKPOINT]


def _damage(folder: Folder, entry: dict[str, Any]) -> str:
    """Say what is wrong with the file of an entry; empty if it has its digest."""
    try:
        if _digest(folder, entry["file"]) == entry["sha256"]:
            return ""
    except (OSError, UserError) as error:
        return str(error)
    return f"{folder.path / entry['file']} is damaged: it has not the digest that the manifest has"


def budget(run: Folder) -> int:
    """Return how many bytes the networks and optimisers of a run may take, by the size of its newest checkpoint."""
    if not run.exists(FOLDER):
        return TENSORS_LIMIT
    with run.folder(FOLDER) as folder:
        sizes = [folder.size(entry["file"]) for entry in _entries(folder) if folder.exists(entry["file"])]
    return 2 * sizes[-1] + SLACK if sizes else TENSORS_LIMIT


def _restore(folder: Folder, name: str, state: dict[str, Any], device: torch.device | str) -> None:
    try:
        free = psutil.virtual_memory().available
        with read_tensors(folder, name, limit=free, header_limit=HEADER_LIMIT) as (_, opened):
            header = opened.metadata() or {}
            if header.get("schema") != str(SCHEMA):
                raise UserError(f"schema {header.get('schema')!r}; expected {SCHEMA}")
            packed = json.loads(header["state"])
            unpacker = Unpacker({key: opened.get_tensor(key) for key in opened.keys()}, device)  # noqa: SIM118
        if not isinstance(packed, dict) or set(packed) != set(state):
            raise UserError(f"it does not have exactly {', '.join(state)}")
        for key, like in state.items():
            unpacker.restore(like, packed[key], key)
        if unpacker.unused:
            raise UserError(f"it has {sorted(unpacker.unused)[0]}, which this run does not")
    except MISFITS as error:
        raise UserError(brief(f"{folder.path / name} does not fit this run: {error}")) from None


def _checkpoints(folder: Folder) -> list[str]:
    """Return the names of all checkpoints in a folder, the oldest first, and of those that were never finished."""
    names = [name for name in folder.names() if re.fullmatch(r"\d{12,}\.safetensors(\.part)?", name)]
    return sorted(names, key=_number)


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _new_name(folder: Folder) -> str:
    newest = max(map(_number, _checkpoints(folder)), default=0)
    return f"{newest + 1:012}.safetensors"


def _write_manifest(folder: Folder, entries: list[dict[str, Any]]) -> None:
    folder.write_json(MANIFEST, {"schema": SCHEMA, "checkpoints": entries})


def _entries(folder: Folder) -> list[dict[str, Any]]:
    """Return the manifest's entries, the oldest first; without a manifest, those of the whole files in the folder.

    Raises UserError if there is a manifest that is none.
    """
    if not folder.exists(MANIFEST):
        return [entry for name in _checkpoints(folder) if (entry := _entry(folder, name)) is not None]
    data = read_json(folder, MANIFEST)
    entries = data.get("checkpoints") if isinstance(data, dict) and data.get("schema") == SCHEMA else None
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise UserError(f"{folder.path / MANIFEST} is not a manifest of schema {SCHEMA}")
    return entries


def _entry(folder: Folder, name: str) -> dict[str, Any] | None:
    """Return what the manifest has of a file; None unless it has its final name and the length that its header says."""
    if name.endswith(".part"):
        return None
    try:
        with read_tensors(folder, name, header_limit=HEADER_LIMIT) as (_, opened):
            step = (opened.metadata() or {}).get("step", str(_number(name)))  # files were numbered by their step once
    except (OSError, RuntimeError, SafetensorError, UserError):  # RuntimeError: too large to be mapped
        return None
    if not re.fullmatch(r"\d{1,15}", step):
        return None
    return {"file": name, "step": int(step), "sha256": _digest(folder, name)}


def _is_entry(entry: Any) -> bool:
    kinds = {"file": str, "step": int, "sha256": str}
    if not isinstance(entry, dict) or {key: type(value) for key, value in entry.items()} != kinds:
        return False
    return entry["step"] >= 0 and re.fullmatch(r"\d{12,}\.safetensors", entry["file"]) is not None


def _digest(folder: Folder, name: str) -> str:
    with folder.read(name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
