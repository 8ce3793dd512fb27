"""The command: what it trains, prints and writes, and what a crash does."""

import contextlib
import csv
import json
import os
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sweeps import TINY, bench, fake, opened, refused
from tally import Tally

from zoo.bench.plan import plan
from zoo.storage.files import open_folder

FIGURES = ("curve-CartPole-v1", "curve-Pendulum-v1", "performance-profile", "sample-efficiency", "score-against-time")


def test_a_sweep_trains_publishes_and_is_not_repeated(tiny: None, tmp_path: Path) -> None:
    arguments = "--algos", "ppo,ddpg", "--envs", "CartPole-v1", "--against", "sb3", "--seeds", "1"
    first = bench(tmp_path, *arguments)
    assert "zoo/ppo on CartPole-v1, seed 0:" in first
    assert "sb3/ppo on CartPole-v1, seed 0:" in first
    assert "needs Box actions" in first
    files = {file.name for file in tmp_path.iterdir()}
    written = {"table.md", "table.csv", "table.tex", "report.html"}
    assert files == {".lock", "results.sqlite", "summary.json", "figures"} | written
    assert (tmp_path / "figures" / "curve-CartPole-v1.png").stat().st_size > 1000
    assert "seed 0:" not in bench(tmp_path, *arguments)
    summary = json.loads((tmp_path / "summary.json").read_text())
    (run,) = [run for run in summary["runs"] if (run["id"], run["env"]) == ("zoo/ppo", "CartPole-v1")]
    assert run["command"].startswith("zoo run ppo --env CartPole-v1 --seed 0 --total-steps 512")
    assert run["settings"]["config"]["num_steps"] == 128


def test_dry_run_lists_jobs_and_time_and_trains_nothing(tiny: None, tmp_path: Path) -> None:
    output = bench(tmp_path, "--dry-run", "--algos", "ppo")
    assert "zoo/ppo on CartPole-v1, seed 1: 512 steps" in output
    assert "6 jobs to do, 0 done before" in output
    assert not (tmp_path / "table.md").exists()


def test_what_is_done_so_far_can_be_shown_without_training(tiny: None, tmp_path: Path) -> None:
    bench(tmp_path, "--algos", "ppo", "--envs", "CartPole-v1", "--seeds", "1")
    output = bench(tmp_path, "--algos", "ppo", "--seeds", "1", "--no-train")
    assert "4 jobs, 2 of them done before" in output
    assert "seed 0:" not in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "no-train" not in summary["command"]
    (row,) = [row for row in summary["rows"] if row["id"] == "zoo/ppo"]
    assert {env: cell["status"] for env, cell in row["cells"].items()} == {
        "CartPole-v1": "done",
        "Pendulum-v1": "missing",
    }


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--no-train"]])
@pytest.mark.parametrize(
    ("pair", "message"),
    [("ppo", "expected two rows"), ("ppo,ppoo", "no row 'zoo/ppoo'"), ("ppo,sb3/ppo", "no row 'sb3/ppo'")],
)
def test_a_pair_is_checked_before_anything_is_trained(
    pair: str, message: str, more: list[str], tiny: None, tmp_path: Path
) -> None:
    assert message in refused(tmp_path, "--pair", pair, *more)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_trained_into_by_one_sweep(tiny: None, tmp_path: Path) -> None:
    arguments = "--algos", "ppo", "--envs", "CartPole-v1", "--seeds", "1"
    with open_folder(tmp_path) as folder, folder.locked():
        assert f"{tmp_path} is in use" in refused(tmp_path, *arguments)
        assert "2 jobs to do" in bench(tmp_path, *arguments, "--dry-run")
        assert "not run" in bench(tmp_path, *arguments, "--no-train")
    assert "2/2" in bench(tmp_path, *arguments)


@pytest.mark.parametrize("kept", [[], ["random"], ["random", "zoo"]])
def test_a_sweep_without_results_has_tables_too(kept: list[str], tmp_path: Path) -> None:
    """Nothing done, random actions alone, and every job failed."""
    sweep, store = plan("quick", algorithms=[], envs=[], seeds=1), opened(tmp_path)
    for each in sweep.jobs:
        if each.side in kept and each.side == "random":
            store.add(each, "done", fake(20.0, seconds=0.0, curve=[]))
        elif each.side in kept:
            store.add(each, "failed", {"error": "out of luck"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = bench(tmp_path, "--no-train", "--seeds", "1", "--pair", "ppo,a2c")
    assert ("failed: out of luck" if "zoo" in kept else "not run") in output
    pictures = [f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == sorted(pictures)


@pytest.mark.parametrize("name", ["results.sqlite", "results.sqlite-journal", "results.sqlite-wal", ".lock"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_sweep_writes_to_nothing_outside(name: str, kind: str, tiny: None, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "bench").mkdir()
    make = {"link": Path.symlink_to, "hard link": Path.hardlink_to, "pipe": lambda place, _: os.mkfifo(place)}
    make[kind](tmp_path / "bench" / name, tmp_path / "outside")
    if (name, kind) != (".lock", "hard link"):  # a lock is not written to
        arguments = "--algos", "ppo", "--envs", "CartPole-v1", "--seeds", "1"
        assert f"{tmp_path / 'bench' / name} " in refused(tmp_path / "bench", *arguments)
    assert (tmp_path / "outside").read_text() == "mine"


@pytest.mark.parametrize("name", ["summary.json", "table.md", "report.html", "figures/curve-CartPole-v1.svg"])
def test_what_a_sweep_writes_takes_the_place_of_links(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    for place in (tmp_path / "bench" / name, tmp_path / "bench" / f"{name}.part"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(tmp_path / "outside")
    bench(tmp_path / "bench", "--no-train", "--envs", "CartPole-v1")
    assert (tmp_path / "outside").read_text() == "mine"
    assert (tmp_path / "bench" / name).stat().st_size > 10
    assert not (tmp_path / "bench" / name).is_symlink()


SWEEP = """
from zoo.bench import plan
plan.presets()["quick"].envs["CartPole-v1"]["sarsa"] = {"total_steps": 200}
plan.EPISODES, plan.FINAL_EPISODES = 1, 2
from zoo.cli import main
main()
"""


def test_standard_output_that_goes_away_does_not_end_a_sweep(tmp_path: Path) -> None:
    arguments = ["--algos", "sarsa", "--envs", "CartPole-v1", "--seeds", "2", "--jobs", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-c", SWEEP, "bench", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert errors == ""
    assert "standard output cannot be written" in (tmp_path / "notes.txt").read_text()
    assert "zoo/sarsa" in (tmp_path / "summary.json").read_text()
    connection = sqlite3.connect(tmp_path / "results.sqlite")
    assert connection.execute("select count(*) from runs where status = 'done'").fetchone() == (3,)
    connection.close()


DRIVER = """
import sys
from zoo.bench import plan as planning
from zoo.cli import main
tiny = {tiny!r}
envs = {{"CartPole-v1": {{"ppo": tiny}}, "Pendulum-v1": {{"ppo": tiny}}}}
planning.presets = lambda: {{"quick": planning.Preset(about="", seeds=2, envs=envs)}}
planning.EPISODES, planning.FINAL_EPISODES = 1, 2
main(["bench", "--algos", "ppo", "--out", sys.argv[1]])
"""


MEASURED = {"seconds", "steps_per_second", "memory"}  # what no two runs have in common


def results(out: Path) -> list[tuple[Any, ...]]:
    """Side, environment, seed and end of every finished job, however often it was tried."""
    query = "select side, env, seed, json_extract(data, '$.returns') from runs where status = 'done' order by 1, 2, 3"
    with contextlib.closing(sqlite3.connect(out / "results.sqlite")) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.faults
def test_a_sweep_killed_ten_times_ends_as_an_undisturbed_one(tmp_path: Path, tally: Tally) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(tiny=TINY))
    command = [sys.executable, str(script)]
    began = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    duration = time.monotonic() - began
    rng = np.random.default_rng(0)
    for _ in range(10):
        with tally.fault():
            sweep = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.1, duration / 2))
            jobs = psutil.Process(sweep.pid).children(recursive=True)
            sweep.kill()
            sweep.wait()
            assert not psutil.wait_procs(jobs, timeout=20)[1]  # nobody trains for nobody
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    tables = []
    for name in ("whole", "killed"):
        rows = list(csv.DictReader((tmp_path / name / "table.csv").read_text().splitlines()))
        tables.append([{key: value for key, value in row.items() if key not in MEASURED} for row in rows])
    assert tables[0] == tables[1]
