"""Errors name the nearest fix."""

import pytest

from zoo.errors import nearest


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("Pendulun", ["CartPole", "Pendulum"], "; did you mean 'Pendulum'?"),
        ("pendulum", ["CartPole", "Pendulum"], "; did you mean 'Pendulum'?"),
        ("xyz", ["b", "a"], "; known: a, b"),
        ("xyz", [], ""),
    ],
)
def test_nearest_suggests_or_lists(name: str, known: list[str], expected: str) -> None:
    assert nearest(name, iter(known)) == expected
