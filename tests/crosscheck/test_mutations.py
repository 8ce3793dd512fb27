"""Mistakes that the comparisons must notice."""

from pathlib import Path

import pytest

from zoo import registry
from zoo.crosscheck.mutations import Mutation, load, mutated, plant
from zoo.errors import UserError

MUTATIONS = load()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.entry}: {mutation.mistake}")
def test_mistakes_can_still_be_planted(mutation: Mutation, tmp_path: Path) -> None:
    text = (mutated(mutation, tmp_path) / "zoo" / mutation.file).read_text()
    compile(text, mutation.file, "exec")
    assert mutation.wrong in text


def test_planted_mistakes_are_caught() -> None:
    """Two of them; `zoo crosscheck --mutations` plants them all."""
    outcomes = list(plant(["qac", "sarsa"]))
    assert len(outcomes) == 3
    assert all(outcome.caught_by for outcome in outcomes)


def test_a_mistake_that_cannot_be_planted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be planted"):
        mutated(Mutation("ppo", "nothing", "algos/ppo.py", "no such line", ""), tmp_path)


def test_more_than_fifteen_mistakes_cover_all_entries() -> None:
    assert len(MUTATIONS) >= 15
    assert {mutation.entry for mutation in MUTATIONS} == set(registry.load().algorithms)
