"""What holds for every test."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks as small as these are many times slower with the threads that torch would take."""
    torch.set_num_threads(1)
