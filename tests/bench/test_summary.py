"""What a sweep comes to: interquartile means, normalised scores, differences from twins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeps import fake, opened

from zoo.bench import tables
from zoo.bench.plan import plan, presets, references
from zoo.bench.summary import normalize, scores, summarise
from zoo.statistics import Estimate, estimate


def test_cells_hold_the_interquartile_mean_over_seeds(summary: dict[str, Any]) -> None:
    row = next(row for row in summary["rows"] if row["id"] == "zoo/ppo")
    cell, expected = row["cells"]["CartPole-v1"], estimate(np.array([100.0, 110, 120]))
    assert (cell["iqm"], cell["low"], cell["high"]) == (expected.value, expected.low, expected.high) == (110, 100, 120)
    assert cell["normalized"] == pytest.approx((110 - 22.1) / (500 - 22.1))
    assert (cell["seeds"], cell["failed_seeds"], cell["steps_per_second"]) == (3, 0, 50)


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
