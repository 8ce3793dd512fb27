"""Keep the results of sweeps in one SQLite file: rows are appended, never changed."""

import json
import math
import os
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from zoo.bench.plan import Job
from zoo.errors import StorageError, UserError
from zoo.storage.files import Folder

SCHEMA = """
create table if not exists runs (
    id integer primary key, created text not null, key text not null, side text not null, algorithm text not null,
    env text not null, seed integer not null, status text not null, data text not null
);
create index if not exists runs_key on runs (key);
"""
FILE, BESIDE = "results.sqlite", ("-journal", "-wal", "-shm")  # SQLite's own files beside it
SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # how a journal ends that names another (sqlite.org/fileformat)


@dataclass(frozen=True)
class Finished:
    """What a job measured."""

    returns: list[float]  # of the episodes at the end
    end: float  # their mean
    curve: list[tuple[float, float]]  # steps and mean return of each check on the way
    seconds: float
    parameters: float
    memory: float  # bytes
    steps_per_second: float | None  # none of a random policy
    ignored: list[str]  # settings that a twin does not have
    versions: dict[str, Any]
    machine: dict[str, Any]
    commit: str | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Finished":
        """Read what a job returned. Raises LookupError, TypeError or ValueError where that is no result."""
        numbers = {name: _finite(data[name]) for name in ("end", "seconds", "parameters", "memory")}
        speed = data["steps_per_second"]
        ignored = list(data.get("ignored", ()))
        if not data["returns"] or not all(isinstance(name, str) for name in ignored):
            raise ValueError("no returns, or settings without a name")
        return cls(
            returns=[_finite(each) for each in data["returns"]],
            curve=[(_finite(step), _finite(value)) for step, value in data["curve"]],
            steps_per_second=None if speed is None else _finite(speed),
            ignored=ignored,
            versions=data.get("versions") or {},
            machine=data.get("machine") or {},
            commit=data.get("commit"),
            **numbers,
        )


@dataclass(frozen=True)
class Trial:
    """What became of a job: what it measured, or the error that ended it."""

    job: Job
    finished: Finished | None
    error: str | None

    @property
    def status(self) -> str:
        """done or failed."""
        return "failed" if self.finished is None else "done"


class Store:
    """Finished and failed runs; a job is looked up by its key, and its newest row counts."""

    def __init__(self, folder: Folder) -> None:
        self.file = folder.path / FILE
        for name in (FILE, *(FILE + end for end in BESIDE if folder.exists(FILE + end))):
            folder.append(name).close()  # SQLite opens paths: none of them may lead elsewhere
        _check_journal(folder)
        try:
            self.connection = sqlite3.connect(self.file)
            self.connection.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.file} is not a store of results: {error}") from None

    def add(self, job: Job, status: str, data: dict[str, Any]) -> None:
        """Append the end of a job (done or failed). Raises StorageError if the file cannot be written."""
        row = (datetime.now(UTC).isoformat(timespec="seconds"), job.key, job.side, job.algorithm, job.env, job.seed)
        insert = "insert into runs (created, key, side, algorithm, env, seed, status, data) values (?,?,?,?,?,?,?,?)"
        try:
            with self.connection:
                self.connection.execute(insert, (*row, status, json.dumps(data)))
        except sqlite3.Error as error:
            raise StorageError(f"{self.file} cannot be written: {error}; earlier results are whole") from None

    def find(self, job: Job) -> Trial | None:
        """Return the newest result of exactly this job; a finished one counts more than a failed one.

        Raises UserError if its row holds neither a result nor a failure.
        """
        query = "select status, data from runs where key = ? order by status = 'done' desc, id desc limit 1"
        found = self._first(query, job.key)
        if found is None:
            return None
        status, data = found
        return _trial(job, status, data, f"{self.file}, the row of {job.title}")

    def speed(self, side: str, algorithm: str, env: str) -> float | None:
        """Return the steps a second of the newest finished run of an entry on an environment, whatever its settings."""
        query = (
            "select case when json_valid(data) then json_extract(data, '$.steps_per_second') end from runs "
            "where side = ? and algorithm = ? and env = ? and status = 'done' order by id desc limit 1"
        )
        (speed,) = self._first(query, side, algorithm, env) or (None,)
        return speed if isinstance(speed, int | float) and speed > 0 else None

    def _first(self, query: str, *values: str) -> Any:
        try:
            return self.connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise UserError(f"{self.file} is not a store of results: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


def _check_journal(folder: Folder) -> None:
    """Raise UserError if an unfinished transaction names another file, because SQLite would remove that file.

    Only transactions over several databases name one. SQLite rolls back an unfinished transaction of one database.
    """
    name = FILE + BESIDE[0]
    if folder.exists(name):
        with folder.read(name) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - len(SUPER_JOURNAL), 0))
            if file.read() == SUPER_JOURNAL:
                raise UserError(
                    f"{folder.path / name} names another file, which SQLite would remove; remove the journal"
                )


def _trial(job: Job, status: Any, data: Any, place: str) -> Trial:
    """Read a row. Raises UserError, which names the place, unless it is what `add` writes."""
    try:
        found = json.loads(data)
        if status == "done":
            return Trial(job, Finished.from_json(found), None)
        if status == "failed" and isinstance(found["error"], str):
            return Trial(job, None, found["error"])
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        pass
    raise UserError(f"{place}: neither a result nor a failure; remove the row, and the job is done anew")


def _finite(value: Any) -> float:
    """Return a number. Raises ValueError if it is NaN or infinite, TypeError if it is no number."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value
