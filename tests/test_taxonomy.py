"""The cube: eight cells, and paths that name them."""

import copy
import re
from dataclasses import FrozenInstanceError
from itertools import product

import pytest

from zoo.errors import UserError
from zoo.taxonomy import AXES, CELLS, Cell, Data, Strategy, Target, parse_axis


def test_the_cube_has_eight_cells() -> None:
    assert len(CELLS) == len(set(CELLS)) == 8
    assert {str(cell) for cell in CELLS} == {"/".join(p) for p in product(*AXES.values())}


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_cell_is_its_path(cell: Cell) -> None:
    assert Cell(str(cell)) == Cell(str(cell).upper()) == cell
    assert hash(Cell(str(cell))) == hash(cell)
    assert copy.deepcopy(cell) == cell


def test_a_cell_is_three_answers() -> None:
    cell = Cell("policy/on/v")
    assert (cell.strategy, cell.data, cell.target) == (Strategy.POLICY, Data.ON, Target.V)
    with pytest.raises(FrozenInstanceError):
        cell.data = Data.OFF  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("policy/on", "'policy/on' is not strategy/data/target"),
        ("policy/on/v/x", "not strategy/data/target"),
        ("", "not strategy/data/target"),
        ("policies/on/v", "strategy 'policies' is not one of value, policy"),
        ("policy/both/v", "data 'both' is not one of off, on"),
        ("policy/on/a", "target 'a' is not one of q, v"),
    ],
)
def test_a_wrong_path_names_its_part(path: str, expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        Cell(path)


def test_parse_axis_ignores_case() -> None:
    assert parse_axis("data", Data, "OFF") is Data.OFF
