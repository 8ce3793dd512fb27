"""Files that are whole or not there: written under another name, flushed to the disk, then renamed."""

import os
from contextlib import suppress
from pathlib import Path


def write_text(file: Path, text: str) -> None:
    """Write `text`, or leave what was there before."""
    part = file.with_name(f"{file.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        commit(part, file)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def commit(part: Path, file: Path) -> None:
    """Give a finished file its name."""
    _flush(part)
    part.replace(file)
    _flush(file.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
