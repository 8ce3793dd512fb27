"""What a sweep comes to: interquartile means, normalised scores, differences from twins."""

import json
from pathlib import Path

import numpy as np
import pytest
from sweeps import fake, opened

from zoo.bench import tables
from zoo.bench.plan import plan, presets, references
from zoo.bench.store import Finished
from zoo.bench.summary import Summary, normalize, scores, summarise, to_json
from zoo.statistics import Estimate, estimate


def test_cells_hold_the_interquartile_mean_over_seeds(summary: Summary) -> None:
    row = next(row for row in summary.contenders if row.id == "zoo/ppo")
    cell = row.standings["CartPole-v1"]
    assert cell.score == estimate(np.array([100.0, 110, 120])) == Estimate(110, 100, 120)
    assert cell.normalized is not None
    assert cell.normalized.value == pytest.approx((110 - 22.1) / (500 - 22.1))
    assert (cell.seeds, cell.failed_seeds, cell.steps_per_second) == (3, 0, 50)


def test_an_entry_is_held_against_its_twin(tmp_path: Path) -> None:
    store = opened(tmp_path)
    sweep = plan("quick", algorithms=["ppo", "sarsa"], envs=["CartPole-v1"], seeds=3, against="sb3")
    for each in sweep.jobs:
        store.add(each, "done", fake({"zoo": 130.0, "sb3": 100.0}.get(each.side, 20.0) + each.seed))
    found = summarise(sweep, store, title="test", command="zoo bench")
    # Of three seeds all are the middle half. Six draws from {-1, 0, 1} sum to 4 or more with chance 28/729 = 3.8%, to 5
    # or more with 7/729 = 1.0%, so the 97.5% quantile of the difference of means is 4/3 from its value.
    expected = {"value": 30.0, "low": pytest.approx(30 - 4 / 3), "high": pytest.approx(30 + 4 / 3)}
    assert to_json(found)["differences"] == {"ppo": {"CartPole-v1": expected}}
    assert "| ppo | +30.0 [+28.7, +31.3] |" in tables.markdown(found)


def test_one_run_is_judged_by_its_episodes() -> None:
    assert scores([]) is None
    assert scores([Finished.from_json(fake(5.0, returns=[1.0, 2.0, 3.0, 4.0]))]) == estimate(np.array([1.0, 2, 3, 4]))


def test_normalised_scores_have_two_constants_with_a_source() -> None:
    environments = {env for preset in presets().values() for env in preset.envs}
    assert environments == set(references())
    for env, reference in references().items():
        assert reference["random"] < reference["best"]
        assert reference["source"]
        low, high = (reference[key] for key in ("random", "best"))
        assert normalize(env, Estimate(low, low, high)) == Estimate(0, 0, 1)


NOTHING = dict.fromkeys(("iqm", "low", "high", "normalized", "normalized_low", "normalized_high"))
NOTHING |= dict.fromkeys(("steps_per_second", "seconds", "parameters", "memory"))


def test_the_json_has_every_key_that_the_report_and_users_read(summary: Summary) -> None:
    data = json.loads(json.dumps(to_json(summary)))
    assert list(data) == [
        *("title", "command", "commit", "created", "machine", "versions"),
        *("envs", "references", "rows", "differences", "runs"),
    ]
    rows = {row["id"]: row for row in data["rows"]}
    assert list(rows) == ["random", "zoo/dqn", "zoo/ppo", "zoo/a2c"]
    low, middle, high = ((value - 22.1) / (500 - 22.1) for value in (100, 110, 120))
    assert rows["zoo/ppo"]["cells"]["CartPole-v1"] == {
        "status": "done",
        "reason": None,
        "iqm": 110,
        "low": 100,
        "high": 120,
        "without": [],
        "normalized": pytest.approx(middle),
        "normalized_low": pytest.approx(low),
        "normalized_high": pytest.approx(high),
        "seeds": 3,
        "failed_seeds": 0,
        "steps_per_second": 50,
        "seconds": 2,
        "parameters": 9,
        "memory": 1e8,
    }
    assert {key: value for key, value in rows["zoo/ppo"].items() if key not in ("title", "cells")} == {
        "id": "zoo/ppo",
        "side": "zoo",
        "name": "ppo",
        "label": "ppo",
        "cell": "policy/on/v",
        "strategy": "policy",
        "data": "on",
        "target": "v",
    }
    assert rows["random"]["cell"] is rows["random"]["strategy"] is None
    assert rows["zoo/dqn"]["cells"]["Pendulum-v1"] == {
        **NOTHING,
        "status": "unsupported",
        "reason": "needs Discrete actions",
        "seeds": 0,
        "failed_seeds": 0,
        "without": [],
    }
    assert rows["zoo/a2c"]["cells"]["CartPole-v1"] == {
        **NOTHING,
        "status": "failed",
        "reason": "out of luck",
        "seeds": 0,
        "failed_seeds": 3,
        "without": [],
    }


def test_the_json_has_every_run(summary: Summary) -> None:
    runs = {(run["id"], run["env"], run["seed"]): run for run in to_json(summary)["runs"]}
    assert len(runs) == 2 + 2 * 3 + 2 * 3  # random, PPO and A2C; DQN has not run
    done, failed = runs["zoo/ppo", "CartPole-v1", 2], runs["zoo/a2c", "CartPole-v1", 2]
    for run in (done, failed):
        assert run.pop("command").startswith(f"zoo run {run['id'][4:]} --env CartPole-v1 --seed 2")
        assert run.pop("settings").keys() == {"run", "config"}
    known = {"env": "CartPole-v1", "seed": 2, "commit": None}
    assert done == {
        **known,
        "id": "zoo/ppo",
        "status": "done",
        "error": None,
        "end": 120,
        "curve": [(10, 120)],
        "seconds": 2,
        "versions": {},
        "machine": {},
    }
    nothing = dict.fromkeys(("end", "curve", "seconds", "versions", "machine"))
    assert failed == {**known, **nothing, "id": "zoo/a2c", "status": "failed", "error": "out of luck"}
