"""Results of sweeps in one SQLite file: rows are appended, never changed."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zoo.bench.plan import Job
from zoo.errors import UserError

SCHEMA = """
create table if not exists runs (
    id integer primary key, created text not null, key text not null, side text not null, algorithm text not null,
    env text not null, seed integer not null, status text not null, data text not null
);
create index if not exists runs_key on runs (key);
"""


class Store:
    """Finished and failed runs; a job is looked up by its key, and its newest row counts."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.connection = sqlite3.connect(file)
            self.connection.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{file} is not a store of results: {error}") from None

    def add(self, job: Job, status: str, data: dict[str, Any]) -> None:
        """Append what became of a job (done or failed)."""
        row = (datetime.now(UTC).isoformat(timespec="seconds"), job.key, job.side, job.algorithm, job.env, job.seed)
        with self.connection:
            self.connection.execute(
                "insert into runs (created, key, side, algorithm, env, seed, status, data) values (?,?,?,?,?,?,?,?)",
                (*row, status, json.dumps(data)),
            )

    def find(self, job: Job) -> dict[str, Any] | None:
        """The newest result of exactly this job, with its status; a finished one counts more than a failed one."""
        query = "select status, data, created from runs where key = ? order by status = 'done' desc, id desc limit 1"
        found = self.connection.execute(query, (job.key,)).fetchone()
        return None if found is None else {"status": found[0], "created": found[2], **json.loads(found[1])}

    def speed(self, side: str, algorithm: str, env: str) -> float | None:
        """Steps a second of the newest finished run of an entry on an environment, whatever its settings."""
        query = (
            "select json_extract(data, '$.steps_per_second') from runs where side = ? and algorithm = ? and env = ? "
            "and status = 'done' order by id desc limit 1"
        )
        found = self.connection.execute(query, (side, algorithm, env)).fetchone()
        return None if found is None else found[0]

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
