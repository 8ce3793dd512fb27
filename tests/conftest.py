"""What holds for every test."""

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
    """The count of this session."""
    return TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY.injected:
        terminalreporter.write_line(f"{TALLY.injected} faults injected, {TALLY.survived} survived")
