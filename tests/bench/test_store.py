"""What is kept of a sweep, and files that are no store."""

import contextlib
import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sweeps import TINY, fake, opened

from zoo.bench.plan import job
from zoo.errors import StorageError, UserError


def test_rows_are_appended_and_a_finished_one_counts(tmp_path: Path) -> None:
    store, one = opened(tmp_path), job("zoo", "ppo", "CartPole-v1", 0, TINY)
    assert store.find(one) is None
    store.add(one, "failed", {"error": "first"})
    store.add(one, "done", fake(1.0))
    store.add(one, "failed", {"error": "later"})
    found = store.find(one)
    assert found is not None
    assert found.status == "done"
    assert found.finished is not None
    assert found.finished.end == 1.0
    store.close()
    rows = sqlite3.connect(tmp_path / "results.sqlite").execute("select status from runs").fetchall()
    assert rows == [("failed",), ("done",), ("failed",)]


def test_another_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_text("not a database, but long enough to be looked at as one " * 40)
    with pytest.raises(UserError, match="not a store of results"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("status", "data"),
    [
        ("done", "no JSON"),
        ("done", "[" * 100_000),
        ("done", "{}"),
        ("done", json.dumps(fake(1.0) | {"end": "1"})),
        ("done", json.dumps(fake(1.0) | {"end": float("nan")})),
        ("done", json.dumps(fake(1.0, returns=[]))),
        ("done", json.dumps(fake(1.0, curve=[1]))),
        ("done", json.dumps(fake(1.0, steps_per_second="fast"))),
        ("done", json.dumps(fake(1.0, ignored=[1]))),
        ("failed", json.dumps({"error": 1})),
        ("other", json.dumps(fake(1.0))),
        ("done", b"\xff"),
    ],
)
def test_a_row_that_is_no_result_is_refused_by_name(status: str, data: Any, tmp_path: Path) -> None:
    store, one = opened(tmp_path), job("random", "", "CartPole-v1", 0, {})
    store.add(one, "done", fake(1.0))
    assert store.find(one) is not None
    with store.connection:
        store.connection.execute("update runs set status = ?, data = ?", (status, data))
    store.speed("random", "", "CartPole-v1")
    with pytest.raises(UserError, match=r"results.sqlite, the row of random on CartPole-v1, seed 0: neither a result"):
        store.find(one)


def test_a_database_of_another_kind_is_not_a_store(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "results.sqlite")) as connection:
        connection.execute("create table runs (key text)")
    with pytest.raises(UserError, match="is not a store of results"):
        opened(tmp_path).find(job("random", "", "CartPole-v1", 0, {}))


def test_a_journal_that_names_another_file_is_not_played_back(tmp_path: Path) -> None:
    """SQLite removes the file that it names."""
    opened(tmp_path).close()
    (tmp_path / "outside").write_text("mine")
    name, magic = os.fsencode(tmp_path / "outside"), bytes.fromhex("d9d505f920a163d7")
    pages = (tmp_path / "results.sqlite").stat().st_size // 4096
    header = (magic + struct.pack(">IIIII", 0, 1, pages, 512, 4096)).ljust(512, b"\0")
    names = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    (tmp_path / "results.sqlite-journal").write_bytes(header + names)
    with pytest.raises(UserError, match=r"results\.sqlite-journal names another file"):
        opened(tmp_path)
    assert (tmp_path / "outside").exists()
    connection = sqlite3.connect(tmp_path / "results.sqlite")  # control: it would have been removed
    connection.execute("select * from runs").fetchall()
    connection.close()
    assert not (tmp_path / "outside").exists()


KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma cache_size = 1")
connection.execute("begin")
connection.execute("delete from runs")
row = "insert into runs (created, key, side, algorithm, env, seed, status, data) values ('', '', '', '', '', 0, '', ?)"
for _ in range(2000):
    connection.execute(row, ["x" * 1000])
os.kill(os.getpid(), 9)
"""


def test_a_transaction_that_was_killed_is_taken_back(tmp_path: Path) -> None:
    one = job("random", "", "CartPole-v1", 0, {})
    store = opened(tmp_path)
    store.add(one, "failed", {"error": "no"})
    store.close()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "results.sqlite")]
    assert subprocess.run(command, check=False).returncode == -9
    assert (tmp_path / "results.sqlite-journal").stat().st_size
    assert opened(tmp_path).find(one) is not None


def test_results_that_cannot_be_written_are_a_matter_of_the_folder(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.connection.execute("create trigger t before insert on runs begin select raise(fail, 'no space'); end")
    with pytest.raises(StorageError, match=r"results\.sqlite cannot be written: no space; earlier results are whole"):
        store.add(job("random", "", "CartPole-v1", 0, {}), "failed", {"error": "no"})
