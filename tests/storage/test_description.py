"""Spaces survive a file, and files of the first format are read and written as ever."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from pydantic import ValidationError

import zoo
from zoo.spaces import Stacked
from zoo.spec import Spec
from zoo.storage.agent import DESCRIPTION, WEIGHTS
from zoo.storage.description import Spaces, describe

CHOICE = spaces.Discrete(3)
OBS = spaces.Box(-1, 1, (2,))
INF = np.inf
FROZEN = Path(__file__).parent / "frozen"


def half_bounded() -> spaces.Box:
    return spaces.Box(np.array([-INF, -3, 0, -3], np.float32), np.array([1, INF, INF, 1], np.float32))


def acting(action: spaces.Space[Any], *, scale_actions: bool = True) -> Spec:
    return Spec(OBS, action, scale_actions=scale_actions)


def written(spec: Spec) -> Any:
    return json.loads(json.dumps(describe(spec).model_dump(), allow_nan=False))


def reread(spec: Spec) -> Spec:
    """The same Spec after a file."""
    return Spaces.model_validate(written(spec)).spec()


@pytest.mark.parametrize(
    "space",
    [
        CHOICE,
        spaces.Discrete(5, start=-2),
        spaces.Box(-INF, INF, (3,)),
        half_bounded(),
        spaces.Box(0.1, 0.7, (2, 3)),
        spaces.Box(-1 / 3, np.pi, (2,), np.float64),
        spaces.Box(np.array([0.1, -0.2]), np.array([0.3, 1e300]), dtype=np.float64),
        spaces.Box(0, 255, (8, 8, 3), np.uint8),
        spaces.Box(-1, 1, ()),
        spaces.Box(0, 1, (10, 10, 4), np.bool_),
        Stacked(spaces.Box(0, 255, (8, 8), np.uint8), 4),
        Stacked(half_bounded(), 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("scale_actions", [False, True])
def test_observation_spaces_survive_json(space: spaces.Space[Any], scale_actions: bool) -> None:
    spec = Spec(space, CHOICE, scale_actions=scale_actions)
    loaded = reread(spec)
    assert loaded.observation_space == space
    assert type(loaded.observation_space) is type(space)
    assert loaded.observation_space.dtype == space.dtype
    assert loaded.num_frames == spec.num_frames
    assert loaded.scale_actions is scale_actions
    loaded.check_same(spec)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=1),
        spaces.Box(-3, 1, (2, 2), np.float64),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [-2, 3]]),
        spaces.MultiDiscrete([2, 3], dtype=np.int32),
        half_bounded(),
    ],
    ids=str,
)
def test_action_spaces_survive_json(space: spaces.Space[Any]) -> None:
    assert reread(acting(space)).action_space == space


def test_integers_that_were_saved_as_floats_are_read() -> None:
    data = written(acting(spaces.Box(-2, 5, (1,), np.int8)))
    data["action_space"] |= {"low": ["-2.0"], "high": ["5.0"]}
    assert Spaces.model_validate(data).spec().action_space == spaces.Box(-2, 5, (1,), np.int8)


def test_integers_are_not_rounded_to_floats() -> None:
    bounds = np.array([-3]), np.array([2**63 - 1])
    space = spaces.Box(*bounds, (1,), np.int64)
    assert written(acting(space))["action_space"]["high"] == ["9223372036854775807"]
    assert reread(acting(space)).action_space == space


FIRST: dict[str, tuple[Any, Any]] = {
    "box": (
        spaces.Box(np.array([-INF, -3, 0], np.float32), np.array([1, INF, 0.1], np.float32)),
        spaces.Box(-1 / 3, np.pi, (2,), np.float64),
    ),
    "bytes": (
        spaces.Box(0, 255, (2, 3), np.uint8),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [-2, 3]]),
    ),
    "discrete": (spaces.Discrete(5, start=-2), spaces.Discrete(3, start=1)),
}


@pytest.mark.parametrize("case", FIRST)
def test_an_agent_of_the_first_format_is_read_and_written_as_ever(case: str, tmp_path: Path) -> None:
    """Files of an untrained PPO, written before the models of today."""
    spec = Spec(*FIRST[case], scale_actions=case != "box")
    agent = zoo.load(FROZEN / case)
    agent.spec.check_same(spec)
    assert agent.spec.scale_actions == spec.scale_actions
    agent.save(tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == (FROZEN / case / WEIGHTS).read_bytes()
    frozen, again = (json.loads((folder / DESCRIPTION).read_text()) for folder in (FROZEN / case, tmp_path))
    assert again["config"].items() >= frozen["config"].items()  # settings that are newer have been added
    assert {**again, "config": ...} == {**frozen, "config": ...}


@pytest.mark.parametrize(
    "change", [{"frames": 0}, {"frames": 2**22}, {"frames": "4"}, {"source": {"type": "Discrete", "n": 3, "start": 0}}]
)
def test_stacks_of_no_size_are_refused(change: dict[str, Any]) -> None:
    data = written(Spec(Stacked(spaces.Box(0, 255, (8, 8), np.uint8), 4), CHOICE))
    data["observation_space"] |= change
    with pytest.raises(ValidationError):
        Spaces.model_validate(data)
