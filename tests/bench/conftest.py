"""What tests of tables and of their summary share."""

from pathlib import Path

import pytest
from sweeps import fake, opened

from zoo.bench.plan import plan
from zoo.bench.summary import Summary, summarise


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
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
