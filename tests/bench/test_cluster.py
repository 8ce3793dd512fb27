"""Jobs on Ray survive the loss of a node."""

from typing import Any

import pytest
from sweeps import TINY
from tally import Tally

from zoo.bench.plan import job


@pytest.mark.faults
def test_the_jobs_of_a_lost_node_are_tried_elsewhere(tiny: None, tally: Tally, two_nodes: Any) -> None:
    from zoo.bench.cluster import RayQueue

    jobs = [job("zoo", "ppo", "CartPole-v1", seed, {**TINY, "total_steps": 2048}) for seed in range(6)]
    with tally.fault():
        seen = []
        for outcome in RayQueue(two_nodes.address).run(jobs, lambda job, row: None):
            assert outcome.error is None
            seen.append(outcome.job.seed)
            if len(seen) == 1:
                two_nodes.lose_one()
        assert sorted(seen) == list(range(6))
