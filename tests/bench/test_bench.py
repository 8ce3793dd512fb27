"""Sweeps: what they consist of, what is kept, what a crash does, and what is printed."""

import contextlib
import csv
import io
import json
import os
import re
import sqlite3
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
import yaml
from click.testing import CliRunner
from tally import Tally

from zoo import registry
from zoo.bench import plan as planning
from zoo.bench import tables
from zoo.bench.plan import Job, Plan, Preset, code, job, plan, presets, references
from zoo.bench.queue import LAST, WIDTH, Answer, Local, Outcome, Words, describe
from zoo.bench.store import Store
from zoo.bench.summary import normalize, scores, summarise
from zoo.cli import cli
from zoo.crosscheck import curves
from zoo.errors import StorageError, UserError
from zoo.statistics import Estimate, estimate
from zoo.storage.files import open_folder

FIGURES = ("curve-CartPole-v1", "curve-Pendulum-v1", "performance-profile", "sample-efficiency", "score-against-time")
TINY = {"total_steps": 512, "num_envs": 1, "num_steps": 128, "batch_size": 64}


def opened(path: Path) -> Store:
    """The store of a sweep's folder."""
    with open_folder(path) as folder:
        return Store(folder)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of seconds in the place of quick."""
    envs = {"CartPole-v1": {"ppo": TINY}, "Pendulum-v1": {"ppo": TINY}}
    monkeypatch.setattr(planning, "presets", lambda: {"quick": Preset(about="", seeds=2, envs=envs)})
    monkeypatch.setattr(planning, "EPISODES", 1)
    monkeypatch.setattr(planning, "FINAL_EPISODES", 2)


def bench(out: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["bench", "--out", str(out), *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def fake(end: float, **more: Any) -> dict[str, Any]:
    """A result as a job gives it."""
    base = {"returns": [end, end + 1], "end": end, "curve": [[10, end]], "seconds": 2.0, "steps_per_second": 50.0}
    return base | {"parameters": 9, "memory": 1e8, "command": "", "versions": {}, "machine": {}} | more


# Plans


@pytest.mark.parametrize("preset", presets())
def test_every_entry_is_in_every_preset(preset: str) -> None:
    sweep = plan(preset, algorithms=[], envs=[], seeds=1, against="sb3")
    assert {name for side, name in sweep.rows if side == "zoo"} == set(registry.load().algorithms)
    assert {job.algorithm for job in sweep.jobs if job.side == "zoo"} == set(registry.load().algorithms)
    assert {job.algorithm for job in sweep.jobs if job.side == "sb3"} == set(planning.SB3)
    assert {job.env for job in sweep.jobs if job.side == "random"} == set(sweep.envs)


def test_what_cannot_play_says_why() -> None:
    sweep = plan("quick", algorithms=["dqn", "sac"], envs=[], seeds=1)
    assert sweep.unsupported == {
        ("dqn", "Pendulum-v1"): "needs Discrete actions",
        ("sac", "CartPole-v1"): "needs Box actions",
    }
    assert [(job.row, job.env) for job in sweep.jobs] == [
        ("random", "CartPole-v1"),
        ("zoo/dqn", "CartPole-v1"),
        ("random", "Pendulum-v1"),
        ("zoo/sac", "Pendulum-v1"),
    ]


def test_settings_decide_who_a_result_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    first = job("zoo", "ppo", "CartPole-v1", 0, TINY).key
    assert first == job("zoo", "ppo", "CartPole-v1", 0, dict(TINY)).key
    others = [
        job("sb3", "ppo", "CartPole-v1", 0, TINY),
        job("zoo", "a2c", "CartPole-v1", 0, {"total_steps": 512}),
        job("zoo", "ppo", "CartPole-v1", 1, TINY),
        job("zoo", "ppo", "CartPole-v1", 0, TINY | {"learning_rate": 0.01}),
    ]
    assert len({first, *(other.key for other in others)}) == 5
    monkeypatch.setattr(planning, "code", lambda side, algorithm: "changed")
    assert job("zoo", "ppo", "CartPole-v1", 0, TINY).key != first


def test_a_twin_gets_the_same_settings() -> None:
    ours, theirs = (job(side, "sac", "Pendulum-v1", 3, {"total_steps": 500}) for side in ("zoo", "sb3"))
    assert ours.settings == theirs.settings
    assert ours.command == "zoo run sac --env Pendulum-v1 --seed 3 --total-steps 500"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'CartPole-v1'"):
        plan("quick", algorithms=[], envs=["Cartpole-v1"], seeds=1)
    with pytest.raises(UserError, match="ppoo"):
        plan("quick", algorithms=["ppoo"], envs=[], seeds=1)


# The store


def test_rows_are_appended_and_a_finished_one_counts(tmp_path: Path) -> None:
    store, one = opened(tmp_path), job("zoo", "ppo", "CartPole-v1", 0, TINY)
    assert store.find(one) is None
    store.add(one, "failed", {"error": "first"})
    store.add(one, "done", fake(1.0))
    store.add(one, "failed", {"error": "later"})
    found = store.find(one)
    assert found is not None
    assert (found["status"], found["end"]) == ("done", 1.0)
    store.close()
    rows = sqlite3.connect(tmp_path / "results.sqlite").execute("select status from runs").fetchall()
    assert rows == [("failed",), ("done",), ("failed",)]


def test_another_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_text("not a database, but long enough to be looked at as one " * 40)
    with pytest.raises(UserError, match="not a store of results"):
        opened(tmp_path)


# The queue


def test_a_job_that_crashes_stops_no_other(tiny: None) -> None:
    good, bad = job("random", "", "CartPole-v1", 0, {}), job("zoo", "ppo", "CartPole-v1", 0, TINY)
    bad.settings["run"]["total_steps"] = -1
    outcomes = {outcome.job.row: outcome for outcome in Local(2).run([bad, good], lambda job, row: None)}
    assert outcomes["random"].error is None
    assert outcomes["random"].result is not None
    assert outcomes["zoo/ppo"].result is None
    assert "total_steps" in str(outcomes["zoo/ppo"].error)


@pytest.mark.parametrize(
    ("code", "errors", "expected"),
    [
        (-9, [], "killed by signal 9"),
        (1, ["Traceback\n", "ValueError: what\n", "\n"], "ValueError: what"),
        (3, [], "exit code 3"),
    ],
)
def test_an_end_is_described_in_a_line(code: int, errors: list[str], expected: str) -> None:
    assert describe(code, errors) == expected


MEDDLE = """
import os, signal, subprocess, sys
from gymnasium.envs.classic_control import CartPoleEnv
def noise():
    print("python says [/red]", flush=True)
    os.write(1, b'{{"result": {{}}}}\\n'), os.write(2, b"\\xff\\xfe no text")
noise()
step = CartPoleEnv.step
def meddle(self, action):
    {}
    return step(self, action)
CartPoleEnv.step = meddle
"""


def meddled(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """What becomes of a job in whose environment, at each step, `what` happens; it prints while it is imported, too."""
    (folder / "sitecustomize.py").write_text(MEDDLE.format(what))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(planning.__file__).parents[2])]))
    (outcome,) = Local(1).run([job("random", "", "CartPole-v1", 0, {})], lambda job, row: None)
    return outcome


def test_what_an_environment_prints_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = meddled("noise()", tmp_path, monkeypatch)
    quiet = meddled("pass", tmp_path, monkeypatch)
    assert noisy.error is None
    assert noisy.result is not None
    assert quiet.result is not None
    assert noisy.result["returns"] == quiet.result["returns"]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", r"killed by signal 9: .* no text"),
        ("os.write(2, b'\\n\\xff\\x80 garbage'); os._exit(3)", "\N{REPLACEMENT CHARACTER}{2} garbage"),
        ("os._exit(0)", r".* no text"),
        ("os.write(1, b'x' * 10**8); raise ValueError('full')", r"ValueError: full"),
        ("[print('y' * 100) for _ in range(10**6)]; raise ValueError('full')", r"ValueError: full"),
        ("subprocess.Popen(['sleep', '60']); raise ValueError('left')", r"ValueError: left"),
        ("raise ValueError('[/red] ' + chr(27))", r"ValueError: \[/red\] \x1b"),
        ("os.closerange(0, 100); os._exit(4)", r".* no text"),
    ],
)
def test_any_end_of_a_job_is_an_outcome(what: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    outcome = meddled(what, tmp_path, monkeypatch)
    assert outcome.result is None
    assert re.fullmatch(error, outcome.error or "")
    assert time.monotonic() - began < 50


def test_a_job_that_cannot_be_started_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/proc/nothing")
    (outcome,) = Local(1).run([job("random", "", "CartPole-v1", 0, {})], lambda job, row: None)
    assert "could not be started" in str(outcome.error)


def test_an_answer_is_heard_in_pieces_and_half_of_one_is_none() -> None:
    rows: list[dict[str, float]] = []
    answer = Answer(rows.append)
    text = b'{"step": 1.0}\nnobody said this\n[1]\n{"step": 2.0}\n{"result": {"end": 3}}\n{"result": {"end'
    for i in range(0, len(text), 7):
        answer.hear(text[i : i + 7])
    assert rows == [{"step": 1.0}, {"step": 2.0}]
    assert answer.result == {"end": 3}


def test_words_are_bounded_in_lines_and_width() -> None:
    words = Words()
    for _ in range(1000):
        words.hear(b"a" * 5_000 + b"\n" * 3 + b"b" * 30_000)
    assert len(words.lines()) == LAST
    assert max(map(len, words.lines())) == WIDTH
    words.hear(b"\nla")
    words.hear(b"st\n")
    assert words.lines()[-2:] == ["last", ""]


# The command


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


def refused(out: Path, *arguments: str) -> str:
    """The message of a command that ends in a UserError before anything is trained."""
    result = CliRunner().invoke(cli, ["bench", "--out", str(out), *arguments])
    assert isinstance(result.exception, UserError)
    assert "jobs" not in result.output
    return str(result.exception)


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


def test_curves_are_trained_into_a_folder_once(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder, folder.locked():
        result = CliRunner().invoke(cli, ["crosscheck", "sac", "--rung", "3", "--out", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert f"{tmp_path} is in use" in str(result.exception)


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


# What is printed


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    store = opened(tmp_path)
    sweep = plan("quick", algorithms=["ppo", "dqn", "a2c"], envs=[], seeds=3)
    for each in sweep.jobs:
        if each.algorithm == "a2c":
            store.add(each, "failed", {"error": "out of luck"})
        elif each.algorithm == "ppo":
            store.add(each, "done", fake(100.0 + 10 * each.seed))
        elif each.side == "random":
            store.add(each, "done", fake(20.0))
    return summarise(sweep, store, title="test", command="zoo bench")


def test_cells_hold_the_interquartile_mean_over_seeds(summary: dict[str, Any]) -> None:
    row = next(row for row in summary["rows"] if row["id"] == "zoo/ppo")
    cell, expected = row["cells"]["CartPole-v1"], estimate(np.array([100.0, 110, 120]))
    assert (cell["iqm"], cell["low"], cell["high"]) == (expected.value, expected.low, expected.high) == (110, 100, 120)
    assert cell["normalized"] == pytest.approx((110 - 22.1) / (500 - 22.1))
    assert (cell["seeds"], cell["failed_seeds"], cell["steps_per_second"]) == (3, 0, 50)


def test_every_kind_of_hole_says_why(summary: dict[str, Any]) -> None:
    shown = {row["name"]: [tables.score(row["cells"][env]) for env in summary["envs"]] for row in summary["rows"]}
    assert shown["a2c"] == ["failed: out of luck"] * 2
    assert shown["dqn"] == ["not run", "needs Discrete actions"]
    assert shown["ppo"] == ["110.0 [100.0, 120.0]"] * 2


def test_all_formats_hold_the_same_numbers(summary: dict[str, Any]) -> None:
    assert "| policy/on/v | ppo | 110.0 [100.0, 120.0] | 110.0 [100.0, 120.0] |" in tables.markdown(summary)
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(summary))))
    (row,) = [row for row in rows if (row["entry"], row["env"]) == ("ppo", "Pendulum-v1")]
    assert (row["iqm"], row["low"], row["high"]) == ("110.0", "100.0", "120.0")
    assert r"ppo & \textbf{110.0} \scriptsize[100.0, 120.0]" in tables.latex(summary)
    assert tables.terminal(summary).row_count == len(summary["rows"])


def test_a_twin_says_what_it_has_to_do_without(tmp_path: Path) -> None:
    store = opened(tmp_path)
    sweep = plan("quick", algorithms=["dqn"], envs=["CartPole-v1"], seeds=3, against="sb3")
    for each in sweep.jobs:
        ignored = ["double"] if each.side == "sb3" else []
        store.add(each, "done", {**fake(100.0), "ignored": ignored})
    found = summarise(sweep, store, title="test", command="zoo bench")
    shown = [tables.score(row["cells"]["CartPole-v1"]) for row in found["rows"]]
    assert shown[1:] == ["100.0 [100.0, 100.0]", "100.0 [100.0, 100.0] without double"]
    assert [row["without"] for row in csv.DictReader(io.StringIO(tables.comma_separated(found)))] == ["", "", "double"]


def test_an_entry_is_held_against_its_twin(tmp_path: Path) -> None:
    store = opened(tmp_path)
    sweep = plan("quick", algorithms=["ppo", "sarsa"], envs=["CartPole-v1"], seeds=3, against="sb3")
    for each in sweep.jobs:
        store.add(each, "done", fake({"zoo": 130.0, "sb3": 100.0}.get(each.side, 20.0) + each.seed))
    found = summarise(sweep, store, title="test", command="zoo bench")
    # Of three seeds all are the middle half. Six draws from {-1, 0, 1} sum to 4 or more with chance 28/729 = 3.8%, to 5
    # or more with 7/729 = 1.0%, so the 97.5% quantile of the difference of means is 4/3 from its value.
    expected = {"value": 30.0, "low": pytest.approx(30 - 4 / 3), "high": pytest.approx(30 + 4 / 3)}
    assert found["differences"] == {"ppo": {"CartPole-v1": expected}}
    assert "| ppo | +30.0 [+28.7, +31.3] |" in tables.markdown(found)


def test_one_run_is_judged_by_its_episodes() -> None:
    assert scores([]) is None
    assert scores([fake(5.0, returns=[1.0, 2.0, 3.0, 4.0])]) == estimate(np.array([1.0, 2, 3, 4]))


def test_normalised_scores_have_two_constants_with_a_source() -> None:
    environments = {env for preset in presets().values() for env in preset.envs}
    assert environments == set(references())
    for env, reference in references().items():
        assert reference["random"] < reference["best"]
        assert reference["source"]
        low, high = (reference[key] for key in ("random", "best"))
        assert normalize(env, Estimate(low, low, high)) == Estimate(0, 0, 1)


@pytest.mark.parametrize(
    "env", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "MountainCarContinuous-v0"]
)
def test_actions_are_of_the_type_that_is_written_down(env: str) -> None:
    assert type(gym.make(env).action_space).__name__ == references()[env]["actions"]


def test_presets_are_plain_data() -> None:
    assert set(yaml.safe_load((planning.FOLDER / "presets.yaml").read_text())) == {"quick", "standard", "full"}


def test_plan_and_job_are_values() -> None:
    assert Plan([], [], [], {}) == Plan([], [], [], {})
    one = job("zoo", "ppo", "CartPole-v1", 0, TINY)
    assert Job(**json.loads(json.dumps(one.to_json()))).key == one.key


# Faults


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


@pytest.mark.faults
def test_the_jobs_of_a_lost_node_are_tried_elsewhere(tiny: None, tally: Tally, two_nodes: Any) -> None:
    from zoo.bench.cluster import Cluster

    jobs = [job("zoo", "ppo", "CartPole-v1", seed, {**TINY, "total_steps": 2048}) for seed in range(6)]
    with tally.fault():
        seen = []
        for outcome in Cluster(two_nodes.address).run(jobs, lambda job, row: None):
            assert outcome.error is None
            seen.append(outcome.job.seed)
            if len(seen) == 1:
                two_nodes.lose_one()
        assert sorted(seen) == list(range(6))


def test_results_belong_to_the_code_of_their_entry_and_their_side() -> None:
    """What that code is: bench/test_fingerprint.py."""
    keys = {code(side, name) for side, name in (("zoo", "ppo"), ("zoo", "a2c"), ("sb3", "ppo"), ("random", ""))}
    assert len(keys) == 4


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


def test_figures_are_not_drawn_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "figures").symlink_to(tmp_path / "outside")
    arguments = ["bench", "--out", str(tmp_path / "bench"), "--no-train", "--envs", "CartPole-v1"]
    assert "figures is not a folder" in str(CliRunner().invoke(cli, arguments).exception)
    assert not list((tmp_path / "outside").iterdir())


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


SWEEP = """
from zoo.bench import plan
plan.presets()["quick"].envs["CartPole-v1"]["sarsa"] = {"total_steps": 200}
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


RUN = {"side": "zoo", "pair": "sac-Pendulum-v1", "seed": 0, "curve": [[1, -5.0]], "end": -1.0, "settings": {}}


@pytest.mark.parametrize("half", ['{"side": "zoo", "pai', "5", ""])
def test_half_a_line_of_curves_is_dropped(half: str, tmp_path: Path) -> None:
    (tmp_path / "curves.jsonl").write_text(f"{json.dumps(RUN)}\n{half}")
    with open_folder(tmp_path) as folder:
        store = curves.Store(folder)
        assert store.runs == [RUN]
        store.add(RUN)
    assert (tmp_path / "curves.jsonl").read_text() == f"{json.dumps(RUN)}\n" * 2


@pytest.mark.parametrize(
    "line", ["5", "[]", "{}", '{"side": "zoo"', json.dumps(RUN | {"end": None}), json.dumps(RUN | {"curve": [5]})]
)
def test_a_line_that_is_no_curve_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "curves.jsonl").write_text(f"{json.dumps(RUN)}\n{line}\n")
    with open_folder(tmp_path) as folder, pytest.raises(UserError, match=r"curves\.jsonl, line 2: no run of a comp"):
        curves.Store(folder)


def test_a_matplotlibrc_of_the_working_directory_is_not_obeyed(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    command = [sys.executable, "-P", "-m", "zoo", "bench", "--no-train", "--envs", "CartPole-v1", "--out", "bench"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
