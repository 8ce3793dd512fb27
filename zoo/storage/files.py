"""Folders that may be a stranger's, and files that are whole or not there.

Everything in a `Folder` is opened relative to its descriptor. Links in it are not followed, at any level; pipes and
devices are refused without waiting for them. A file is written under another name, flushed to the disk, then renamed.
For Linux and macOS: descriptors of folders, locks and the flushing of a folder are POSIX's. What the two answer
differently to is seen to where it matters.
"""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

from zoo.errors import StorageError, UserError

# O_NONBLOCK: to open a pipe would otherwise wait for its other end.
CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A link; a socket or pipe, on Linux; a socket, on macOS; a folder.
NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP, errno.EISDIR)

# Of a run: its rows of metrics; what the terminal could not be told.
METRICS, NOTES = "metrics.jsonl", "notes.txt"


class Folder:
    """An open folder; `path` is what messages call it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor

    def exists(self, name: str) -> bool:
        """Whether there is anything of this name, also a link that leads nowhere."""
        return self._status(name) is not None

    def names(self) -> list[str]:
        """Return the names of all that is in it, sorted."""
        return sorted(os.listdir(self.descriptor))

    def size(self, name: str) -> int:
        """Return the number of bytes of a plain file. Raises UserError if it is none, or missing."""
        with self.read(name) as file:
            return os.fstat(file.fileno()).st_size

    def check(self, *, files: tuple[str, ...], folders: tuple[str, ...]) -> None:
        """Raise UserError if one of these names is taken by something else than a plain file, or than a folder."""
        for names, is_right, wrong in ((files, stat.S_ISREG, self._no_file), (folders, stat.S_ISDIR, self._no_folder)):
            for name in names:
                status = self._status(name)
                if status is not None and not is_right(status.st_mode):
                    raise wrong(name)

    @contextmanager
    def folder(self, name: str, *, make: bool = False) -> Iterator["Folder"]:
        """Open the folder of this name, made if asked for. Raises UserError if it is a link or no folder."""
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self.descriptor)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | CAREFULLY, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise self._no_folder(name) from None
            raise
        try:
            yield Folder(self.path / name, descriptor)
        finally:
            os.close(descriptor)

    def read(self, name: str) -> BufferedReader:
        """Open a plain file for reading. Raises UserError if it is missing, or something else."""
        try:
            return os.fdopen(self._open(name, os.O_RDONLY), "rb")
        except OSError as error:
            raise UserError(f"{self.path / name} cannot be read: {error.strerror}") from None

    def append(self, name: str) -> BufferedRandom:
        """Open a plain file for reading and for writing at its end; it is made if it is missing.

        Raises UserError if it is something else, or if it is a file elsewhere as well (a hard link).
        """
        descriptor = self._open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise UserError(f"{self.path / name} has another name elsewhere; a hard link is not written to")
        return os.fdopen(descriptor, "a+b")

    def create(self, name: str) -> BufferedWriter:
        """Open a new file for writing. Raises OSError if there is anything of this name."""
        return os.fdopen(self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")

    @contextmanager
    def write(self, name: str) -> Iterator[BufferedWriter]:
        """Open a file to write, which gets its name once all is on the disk; an error leaves what was there before."""
        part = f"{name}.part"
        try:
            if self.exists(part):
                self.remove(part)
            with self.create(part) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self._rename(part, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=self.descriptor)
            raise

    def write_product(self, name: str, data: bytes) -> None:
        """Write what a command was asked for. Raises StorageError if that fails; then what was there before stays."""
        try:
            with self.write(name) as file:
                file.write(data)
        except OSError as error:
            raise StorageError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def write_text(self, name: str, text: str) -> None:
        """Write text; an error leaves what was there before."""
        with self.write(name) as file:
            file.write(text.encode(errors="backslashreplace"))

    def write_json(self, name: str, data: Any) -> None:
        """Write plain data as JSON; an error leaves what was there before."""
        self.write_text(name, json.dumps(data, indent=2) + "\n")

    def remove(self, name: str) -> None:
        """Remove a file, or a link itself. Raises UserError for a folder."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except OSError:  # of a folder: EISDIR on Linux, EPERM on macOS
            status = self._status(name)
            if status is not None and stat.S_ISDIR(status.st_mode):
                raise self._no_file(name) from None
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out of `locked` of this folder. Raises UserError if one is in it."""
        try:
            descriptor = self._open(".lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UserError(f"{self.path} cannot be locked: {error.strerror}") from None
        with os.fdopen(descriptor):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.path} is in use: another process is at work in it; wait for its end") from None
            yield

    def _rename(self, part: str, name: str) -> None:
        os.replace(part, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that cannot flush a folder
                raise

    def _open(self, name: str, flags: int) -> int:
        try:
            descriptor = os.open(name, flags | CAREFULLY, 0o666, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in NO_FILE:
                raise self._no_file(name) from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._no_file(name)
        return descriptor

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _no_file(self, name: str) -> UserError:
        return UserError(f"{self.path / name} is not a plain file; links, folders, pipes and devices are not opened")

    def _no_folder(self, name: str) -> UserError:
        return UserError(f"{self.path / name} is not a folder; links are not followed")


@contextmanager
def open_folder(path: Path, *, make: bool = False) -> Iterator[Folder]:
    """Open the folder at `path`, made (with its parents) if asked for. Raises UserError if it is missing or no folder.

    `path` itself may be a link: it is the caller's own.
    """
    try:
        if make:
            path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{path} cannot be {'made' if make else 'opened'}: {error.strerror}") from None
    except ValueError as error:  # a NUL byte
        raise UserError(f"{str(path)!r} is no path: {error}") from None
    try:
        yield Folder(path, descriptor)
    finally:
        os.close(descriptor)
