"""Checkpoints: all the state of a run, so that after any interruption it goes on as if there had been none.

A checkpoint is one file. It is written under another name, flushed to the disk and renamed, then entered into the
manifest, with its digest, in the same way; the last two are kept. So whenever a run is killed, the newest entry whose
file has its digest is a whole checkpoint.
"""

import hashlib
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Protocol, Self

import torch
from safetensors import SafetensorError
from torch import Tensor

from zoo.actors import device_of
from zoo.errors import DivergedError, Interrupted, StorageError, UserError
from zoo.files import Folder, open_folder
from zoo.loop import Learner
from zoo.state import Unpacker, pack
from zoo.tensors import read_tensors, write_tensors
from zoo.untrusted import SLACK, TENSORS_LIMIT, brief, read_json
from zoo.vector import SIGNALS

SCHEMA = 2
FOLDER, MANIFEST, KEPT = "checkpoints", "manifest.json", 2
HEADER_LIMIT = 2**26  # bytes of a checkpoint's header, where the numbers and texts are
EVERY = "5min"
NO_CHECKPOINT = "the run stopped before its first checkpoint: it starts from the beginning"


def save(run: Folder, state: dict[str, Any], step: int) -> None:
    """Write a checkpoint of `state` into the folder of a run; a StorageError where that fails, which harms no other."""
    name = f"{step:012}.safetensors"
    tensors: dict[str, Tensor] = {}
    packed = {key: pack(value, key, tensors) for key, value in state.items()}
    try:
        with run.folder(FOLDER, make=True) as folder:
            with folder.write(name) as file:
                digest = write_tensors(file, tensors, {"schema": str(SCHEMA), "state": json.dumps(packed)})
            entries = [entry for entry in _entries(folder) if entry["file"] != name]
            kept = [*entries, {"file": name, "step": step, "sha256": digest}][-KEPT:]
            folder.write_json(MANIFEST, {"schema": SCHEMA, "checkpoints": kept})
            for old in set(_checkpoints(folder)) - {entry["file"] for entry in kept}:
                folder.remove(old)
    except OSError as error:
        path = run.path / FOLDER
        raise StorageError(f"no checkpoint could be written to {path}: {error}; earlier ones are whole") from error


def load(run: Folder, state: dict[str, Any], device: torch.device | str = "cpu") -> tuple[int, list[str]]:
    """Give the objects of `state` the newest whole checkpoint of a run; returns its step and warnings.

    Step 0 means that the run stopped before its first checkpoint, so that nothing changes.
    A UserError where none is whole, or where it does not fit the run.
    """
    if not run.exists(FOLDER):
        return 0, [NO_CHECKPOINT]
    warnings: list[str] = []
    with run.folder(FOLDER) as folder:
        entries = _entries(folder)
        if not folder.exists(MANIFEST) and entries:
            warnings.append(f"{folder.path / MANIFEST} is missing; it is made anew from the checkpoints that are there")
            folder.write_json(MANIFEST, {"schema": SCHEMA, "checkpoints": entries})
        for entry in reversed(entries):
            path = folder.path / entry["file"]
            try:
                if _digest(folder, entry["file"]) != entry["sha256"]:
                    raise UserError(f"{path} is damaged: it has not the digest that the manifest has")
            except (OSError, UserError) as error:
                warnings.append(f"{error}; trying the checkpoint before it")
                continue
            _restore(folder, entry["file"], state, device)
            return entry["step"], warnings
    if not entries:
        return 0, [NO_CHECKPOINT]
    raise UserError("; ".join([*warnings, "but there is none"]))


def budget(run: Folder) -> int:
    """Bytes that the networks and optimisers of a run may take: what its newest checkpoint warrants, or a limit."""
    if not run.exists(FOLDER):
        return TENSORS_LIMIT
    with run.folder(FOLDER) as folder:
        sizes = [folder.size(entry["file"]) for entry in _entries(folder) if folder.exists(entry["file"])]
    return 2 * sizes[-1] + SLACK if sizes else TENSORS_LIMIT


def _restore(folder: Folder, name: str, state: dict[str, Any], device: torch.device | str) -> None:
    try:
        with read_tensors(folder, name, header_limit=HEADER_LIMIT) as (_, opened):
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
    except (SafetensorError, OSError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(brief(f"{folder.path / name} does not fit this run: {error}")) from None


def _checkpoints(folder: Folder) -> list[str]:
    """The names of all checkpoints in a folder, also of those that were never finished, the oldest first."""
    return [name for name in folder.names() if re.fullmatch(r"\d{12}\.safetensors(\.part)?", name)]


def _entries(folder: Folder) -> list[dict[str, Any]]:
    """The manifest's entries, the oldest first; of the whole checkpoints that are there where it is missing."""
    if not folder.exists(MANIFEST):
        return [_entry(folder, name) for name in _checkpoints(folder) if _is_whole(folder, name)]
    data = read_json(folder, MANIFEST)
    entries = data.get("checkpoints") if isinstance(data, dict) and data.get("schema") == SCHEMA else None
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise UserError(f"{folder.path / MANIFEST} is not a manifest of schema {SCHEMA}")
    return entries


def _entry(folder: Folder, name: str) -> dict[str, Any]:
    return {"file": name, "step": int(name.partition(".")[0]), "sha256": _digest(folder, name)}


def _is_whole(folder: Folder, name: str) -> bool:
    """Whether a file has its final name, and the length that its header says."""
    try:
        with read_tensors(folder, name, header_limit=HEADER_LIMIT):
            return not name.endswith(".part")
    except (UserError, SafetensorError):
        return False


def _is_entry(entry: Any) -> bool:
    kinds = {"file": str, "step": int, "sha256": str}
    if not isinstance(entry, dict) or {key: type(value) for key, value in entry.items()} != kinds:
        return False
    return bool(entry["step"] >= 0 and entry["file"] == f"{entry['step']:012}.safetensors")


def _digest(folder: Folder, name: str) -> str:
    with folder.read(name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Interval(NamedTuple):
    """Between two checkpoints: environment steps, or seconds."""

    steps: int | None
    seconds: float | None


def interval(every: str | int) -> Interval:
    """What `10000` or `5min` means; a UserError for anything else."""
    text = str(every).strip().lower()
    number = text.removesuffix("min").removesuffix("m")
    try:
        value = float(number)
        if not 0 < value < 1e15 or (text == number and not value.is_integer()):
            raise ValueError
    except ValueError:
        raise UserError(f"checkpoint_every = {every!r}; expected steps, as 10000, or minutes, as 5min") from None
    return Interval(int(value), None) if text == number else Interval(None, 60 * value)


@contextmanager
def hold(path: Path, *, resumed: bool) -> Iterator[Folder]:
    """Open a run's folder, a new one unless it is `resumed`, and keep other processes out of it. Raises UserError."""
    try:
        path.mkdir(parents=True, exist_ok=resumed)
    except FileExistsError:
        raise UserError(f"{path} exists already; two runs never share a folder: choose another --out") from None
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}; choose another --out") from None
    with open_folder(path) as folder, folder.locked():
        yield folder


class Watcher(Protocol):
    """What else belongs to a run's state."""

    def mark(self) -> None:
        """A checkpoint is about to be taken."""


class Stopper:
    """Ends a run that keeps nothing when Ctrl-C is pressed: at once, or after the step if that was lost.

    Python drops what a signal's handler raises in the callback of a weak reference, of which torch's compiler has many.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a handler of the caller's own stays
            self._listen(signal.SIGINT)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def on_step(self) -> None:
        """Raises KeyboardInterrupt if a signal came."""
        if self.signal is not None:
            raise KeyboardInterrupt

    def save(self) -> None:
        """Nothing: there is no folder."""

    def _listen(self, *numbers: int) -> None:
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._on_signal) for number in numbers}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        raise KeyboardInterrupt


class Keeper(Stopper):
    """Takes checkpoints of a run: at intervals, when it is told to stop, and whenever it is asked.

    It is told by Ctrl-C, SIGTERM, and the end of its terminal (SIGHUP), unless that was to be ignored, as nohup does.
    """

    def __init__(self, folder: Folder, learner: Learner, recorder: Watcher, every: Interval) -> None:
        super().__init__()
        self.folder, self.learner, self.recorder, self.every = folder, learner, recorder, every
        self.step, self.time = 0, time.monotonic()  # of the last checkpoint

    def __enter__(self) -> Self:
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._listen(*(each for each in SIGNALS if not (nohup and each == signal.SIGHUP)))
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # The second one does not wait for the end of a step; but a closing terminal may send several.
        if self.signal is not None and number != signal.SIGHUP:
            raise KeyboardInterrupt
        self.signal = self.signal or number

    def on_step(self) -> None:
        """Take a checkpoint if one is due; raises Interrupted after it if a signal came.

        To be called between steps of the training, and of an evaluation while the training stands still.
        """
        if self.signal is not None:
            self.save()
            stopped = f"{signal.Signals(self.signal).name} at step {self.learner.step:,}"
            raise Interrupted(self.signal, f"{stopped}; go on with: zoo run --resume {self.folder.path}")
        steps, seconds = self.every
        due = seconds is not None and time.monotonic() >= self.time + seconds
        if due or (steps is not None and self.learner.step >= self.step + steps):
            self.save()

    def save(self) -> None:
        """Take a checkpoint; a DivergedError error, and none, where weights are not finite."""
        check_finite(self.learner)
        self.recorder.mark()
        save(self.folder, {"learner": self.learner, "recorder": self.recorder}, self.learner.step)
        self.step, self.time = self.learner.step - self.learner.step % (self.every.steps or 1), time.monotonic()

    def resume(self) -> list[str]:
        """Go on from the newest checkpoint; returns warnings."""
        state = {"learner": self.learner, "recorder": self.recorder}
        step, warnings = load(self.folder, state, device_of(self.learner.algo))
        self.step = step - step % (self.every.steps or 1)
        return [*warnings, *(self.learner.source.resume() if step else [])]


def check_finite(learner: Learner) -> None:
    """A DivergedError error that names the first parameter that is not finite."""
    algo: Any = learner.algo
    for name, parameter in algo.named_parameters():
        if not parameter.isfinite().all():
            raise DivergedError(
                f"{name} became NaN or infinite by step {learner.step:,}; the last checkpoint is before that"
            )
