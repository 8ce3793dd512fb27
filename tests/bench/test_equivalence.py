"""Rung 3: which pairs are trained, when two sides are equivalent, and that the published page follows from the runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sweeps import fake

from zoo.bench.equivalence import Comparison, compare, judge, markdown, twins
from zoo.bench.store import Finished, Trial
from zoo.errors import UserError

RECORD = Path(__file__).parents[2] / "docs" / "crosscheck"


def test_seven_pairs_with_the_settings_of_the_twin() -> None:
    sweep = twins([], None)
    counts = {(each.algorithm, each.env): (each.steps, each.seeds) for each in compare(sweep, {})}
    assert counts == {
        ("ppo", "CartPole-v1"): (100_000, 30),
        ("a2c", "CartPole-v1"): (300_000, 30),
        ("dqn", "CartPole-v1"): (50_000, 30),
        ("ppo", "Pendulum-v1"): (100_000, 10),
        ("a2c", "Pendulum-v1"): (500_000, 10),
        ("ddpg", "Pendulum-v1"): (15_000, 10),
        ("sac", "Pendulum-v1"): (8_000, 10),
    }
    assert {job.side for job in sweep.jobs} == {"zoo", "sb3"}
    ours, theirs = (next(job for job in sweep.jobs if job.row == f"{side}/ppo") for side in ("zoo", "sb3"))
    assert ours.settings == theirs.settings
    assert ours.settings["run"]["scale_actions"] is False
    assert ours.command == "zoo run ppo --env CartPole-v1 --seed 0 --preset sb3 --total-steps 100000"


def test_entries_without_curves_are_refused() -> None:
    with pytest.raises(UserError, match="no curves to compare for qac, td3; there are some for: dqn, ddpg, sac"):
        twins(["qac", "sac", "td3"], None)
    assert [each.name for each in compare(twins(["sac"], 2), {})] == ["sac-Pendulum-v1"]


def comparison(zoo: list[float], sb3: list[float], seeds: int = 4) -> Comparison:
    """Runs that end with these returns, after a check with the same."""
    sides = ([Finished.from_json(fake(end)) for end in ends] for ends in (zoo, sb3))
    return Comparison("ppo", "CartPole-v1", 100, seeds, *sides)


@pytest.mark.parametrize(
    ("shift", "end", "area"),
    [
        (0.0, True, True),
        (23.0, True, True),
        (-23.0, True, True),
        (25.0, False, True),
        (-47.0, False, True),
        (49.0, False, False),
    ],
)
def test_margins_are_a_twentieth_and_a_tenth_of_the_range(shift: float, end: bool, area: bool) -> None:
    verdicts = judge(comparison([400.0] * 4, [400.0 - shift] * 4))  # intervals of no width; the range is 22 to 500
    assert [(each.measure, each.equivalent) for each in verdicts] == [("end", end), ("area", area)]
    assert [each.difference.value for each in verdicts] == [shift, shift]
    assert [each.margin for each in verdicts] == pytest.approx([23.9, 47.8])
    assert ("**no**" in markdown(verdicts)) == (not end)


def test_a_wide_interval_is_no_equivalence() -> None:
    first, _ = judge(comparison([300.0, 500, 300, 500], [500.0, 300, 500, 300]))
    assert first.difference.value == 0
    assert not first.equivalent


def test_nothing_is_judged_before_all_runs_are_there() -> None:
    assert judge(comparison([400.0] * 4, [400.0] * 3)) == []


def recorded() -> dict[tuple[str, str, str], list[dict[str, object]]]:
    """The runs that were published, by side, entry and environment."""
    runs = json.loads((RECORD / "summary.json").read_text())["runs"]
    found: dict[tuple[str, str, str], list[dict[str, object]]] = {}
    for run in runs:
        found.setdefault((*run["id"].split("/"), run["env"]), []).append(run)
    return found


def test_the_published_runs_are_those_of_the_preset() -> None:
    """Settings that either side does not know came or went later, with defaults that change nothing."""
    found = recorded()
    for job in twins([], None).jobs:
        run = found[job.side, job.algorithm, job.env][job.seed]
        assert (run["seed"], run["status"], len(run["curve"])) == (job.seed, "done", 10)
        now = json.loads(json.dumps(job.settings))
        steppers = {run["settings"]["run"].pop("vec", "sync"), now["run"].pop("vec")}
        assert steppers <= {"sync", "native"}  # which play the same episodes
        for part in ("run", "config"):
            before = run["settings"][part]
            assert {key: before[key] for key in before if key in now[part]} == {
                key: now[part][key] for key in now[part] if key in before
            }


def test_the_published_page_follows_from_the_published_runs() -> None:
    sweep, found = twins([], None), recorded()
    trials = {}
    for job in sweep.jobs:
        run = found[job.side, job.algorithm, job.env][job.seed]
        trials[job.key] = Trial(job, Finished.from_json(fake(run["end"], curve=run["curve"])), None)
    verdicts = [verdict for each in compare(sweep, trials) for verdict in judge(each)]
    page = (RECORD / "curves.md").read_text()
    row = r"^\| (\w+) \| ([\w-]+) \| .* \| (end|area) \| ([-.\d]+) .* \| (yes|\*\*no\*\*) \|$"
    published = re.findall(row, page, re.MULTILINE)
    assert len(published) == len(verdicts) == 14
    for (name, env, measure, value, equivalent), verdict in zip(published, verdicts, strict=True):
        assert (name, env, measure) == (verdict.comparison.algorithm, verdict.comparison.env, verdict.measure)
        assert verdict.equivalent == (equivalent == "yes")
        runs = found["zoo", name, env]
        ends = sorted(run["end"] if measure == "end" else np.mean(run["curve"], axis=0)[1] for run in runs)
        cut = len(ends) // 4
        assert float(value) == pytest.approx(np.mean(ends[cut : len(ends) - cut]), abs=0.05)
