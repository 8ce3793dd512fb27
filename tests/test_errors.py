"""Errors name the nearest fix."""

import pytest

from zoo.errors import nearest


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("Pendulun", ["CartPole", "Pendulum"], "; did you mean 'Pendulum'?"),
        ("pendulum", ["CartPole", "Pendulum"], "; did you mean 'Pendulum'?"),
        ("lr", ["batch_size", "learning_rate", "learning_rate_end"], "; did you mean 'learning_rate'?"),
        ("ls", ["learning_rate"], "; known: learning_rate"),
        ("x", ["xylophone", "a"], "; known: a, xylophone"),
        ("xyz", ["b", "a"], "; known: a, b"),
        ("xyz", [], ""),
    ],
)
def test_nearest_suggests_or_lists(name: str, known: list[str], expected: str) -> None:
    assert nearest(name, iter(known)) == expected
