"""What holds for every test, and the count of injected faults, over all processes of the test run."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

# Test processes and those that they start share the cores; threads of their own would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from sweeps import TINY
from tally import Tally

from zoo.bench import plan as planning
from zoo.bench.plan import Preset


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks as small as these are many times slower with the threads that torch would take."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def subnormal_numbers() -> Iterator[None]:
    """Actors that a test makes in this process take subnormal numbers for 0, and keep doing so."""
    yield
    torch.set_flush_denormal(False)


TALLY = Tally()


@pytest.fixture
def tally() -> Tally:
    """The count of this test run."""
    return TALLY


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of pytest-xdist tells its count."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = (TALLY.injected, TALLY.survived)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The main process of pytest-xdist hears it."""
    injected, survived = getattr(node, "workeroutput", {}).get("faults", (0, 0))
    TALLY.injected += injected
    TALLY.survived += survived


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the count."""
    if TALLY.injected:
        terminalreporter.write_line(f"{TALLY.injected} faults injected, {TALLY.survived} survived")


class TwoNodes:
    """A Ray cluster of two nodes on this machine: this process belongs to the head, the other may be lost."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self.ray = ray
        head = {"num_cpus": 1, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, connect=True, head_node_args=head)
        self.second = self.cluster.add_node(num_cpus=1)
        self.address = self.cluster.address
        self._wait_for(lambda: self.ray.cluster_resources().get("CPU") == 2)

    def lose_one(self) -> None:
        """As if its machine were switched off; returns once the cluster has noticed, which takes it some seconds."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self._wait_for(lambda: sum(node["Alive"] for node in self.ray.nodes()) == 1)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    """Of the extra `ray`: skipped without it."""
    ray = pytest.importorskip("ray")
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.cluster.shutdown()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of seconds in the place of quick."""
    envs = {"CartPole-v1": {"ppo": TINY}, "Pendulum-v1": {"ppo": TINY}}
    monkeypatch.setattr(planning, "presets", lambda: {"quick": Preset(about="", seeds=2, envs=envs)})
    monkeypatch.setattr(planning, "EPISODES", 1)
    monkeypatch.setattr(planning, "FINAL_EPISODES", 2)
