"""What holds for every test, and the count of injected faults, over all processes of the test run."""

from typing import Any

import pytest
import torch
from tally import Tally


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks as small as these are many times slower with the threads that torch would take."""
    torch.set_num_threads(1)


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
