"""Errors name the nearest fix."""

import pytest

from zoo.errors import UserError, brief, nearest


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


def test_a_users_mistake_is_one_line_that_commands_no_terminal() -> None:
    error = UserError("a\x1b[2J\nb\u202ec  d\x9b31m")
    assert str(error) == r"a\x1b[2J b\u202ec  d\x9b31m"
    assert str(UserError(str(error))) == str(error)


def test_what_is_quoted_is_shortened_where_it_may_be_long() -> None:
    assert brief("short") == "short"
    shortened = brief(f"begin {'x' * 10**6} end")
    assert len(shortened) <= 600
    assert (shortened[:6], shortened[-4:]) == ("begin ", " end")
