"""Tables hold the numbers of a summary, in every format."""

import csv
import io
from pathlib import Path

from sweeps import fake, opened

from zoo.bench import tables
from zoo.bench.plan import plan
from zoo.bench.summary import Summary, summarise


def test_every_kind_of_hole_says_why(summary: Summary) -> None:
    shown = {row.name: [tables.score(row.standings[env]) for env in summary.envs] for row in summary.contenders}
    assert shown["a2c"] == ["failed: out of luck"] * 2
    assert shown["dqn"] == ["not run", "needs Discrete actions"]
    assert shown["ppo"] == ["110.0 [100.0, 120.0]"] * 2


def test_all_formats_hold_the_same_numbers(summary: Summary) -> None:
    assert "| policy/on/v | ppo | 110.0 [100.0, 120.0] | 110.0 [100.0, 120.0] |" in tables.markdown(summary)
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(summary))))
    (row,) = [row for row in rows if (row["entry"], row["env"]) == ("ppo", "Pendulum-v1")]
    assert (row["iqm"], row["low"], row["high"]) == ("110.0", "100.0", "120.0")
    assert r"ppo & \textbf{110.0} \scriptsize[100.0, 120.0]" in tables.latex(summary)
    assert tables.terminal(summary).row_count == len(summary.contenders)


def test_a_twin_says_what_it_has_to_do_without(tmp_path: Path) -> None:
    store = opened(tmp_path)
    sweep = plan("quick", algorithms=["dqn"], envs=["CartPole-v1"], seeds=3, against="sb3")
    for each in sweep.jobs:
        ignored = ["double"] if each.side == "sb3" else []
        store.add(each, "done", {**fake(100.0), "ignored": ignored})
    found = summarise(sweep, store, title="test", command="zoo bench")
    shown = [tables.score(row.standings["CartPole-v1"]) for row in found.contenders]
    assert shown[1:] == ["100.0 [100.0, 100.0]", "100.0 [100.0, 100.0] without double"]
    assert [row["without"] for row in csv.DictReader(io.StringIO(tables.comma_separated(found)))] == ["", "", "double"]
