"""Reading an agent: a damaged one is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from small import small

import zoo
from zoo.errors import UserError
from zoo.storage.agent import DESCRIPTION, WEIGHTS


def spoil(folder: Path, how: str) -> None:
    weights, description = folder / WEIGHTS, folder / DESCRIPTION
    if how == "missing":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "not json":
        description.write_text("{")
    else:
        data = json.loads(description.read_text())
        changes: dict[str, Any] = {
            "schema": {"schema": 99},
            "algorithm": {"algorithm": "a2c"},
            "shape": {"config": data["config"] | {"hidden": [9]}},
            "unknown": {"config": data["config"] | {"gama": 1}},
        }
        description.write_text(json.dumps(data | changes[how]))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "is missing"),
        ("truncated", "cannot be read"),
        ("not json", "cannot be read"),
        ("schema", "schema 99; expected 1"),
        ("algorithm", "no setting"),
        ("shape", "has shape"),
        ("unknown", "did you mean 'gamma'"),
    ],
)
def test_a_damaged_agent_is_refused_by_name(how: str, message: str, tmp_path: Path) -> None:
    zoo.train("ppo", "CartPole-v1", out=tmp_path / "run", **small("ppo"))
    spoil(tmp_path / "run" / "final", how)
    with pytest.raises(UserError, match=message):
        zoo.load(tmp_path / "run")
