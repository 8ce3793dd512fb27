"""A run that stopped halfway, whose copies tests spoil."""

from pathlib import Path

import pytest

from runs.test_checkpoint import StopError, train


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(StopError):
        train(folder, "dqn", stop_at=300, every=50)
    return folder
