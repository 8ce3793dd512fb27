"""Every entry against Stable-Baselines3 or an oracle, and mistakes that these comparisons must notice."""

import math

import pytest

from zoo import registry
from zoo.crosscheck import Check, crosscheck
from zoo.crosscheck.mutations import plant
from zoo.crosscheck.sb3 import COUNTERPARTS
from zoo.errors import UserError


@pytest.mark.parametrize("name", sorted(registry.load().algorithms))
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_entry_equals_its_references(name: str) -> None:
    checks = list(crosscheck([name], [1, 2]))
    assert {check.rung for check in checks} <= {1, 2}
    assert [check for check in checks if check.rung == 2]
    assert not [check for check in checks if not check.passed]
    rungs = {check.rung for check in checks if check.reference == "SB3"}
    assert rungs == ({1, 2} if name in COUNTERPARTS else set())


@pytest.mark.parametrize(("difference", "passed"), [(0.0, True), (1.0, True), (1.1, False), (math.nan, False)])
def test_a_check_passes_within_its_tolerance(difference: float, passed: bool) -> None:
    assert Check("ppo", 2, "SB3", "", difference, tolerance=1.0).passed is passed


def test_an_unknown_entry_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'ppo'"):
        list(crosscheck(["pppo"], [1]))
    with pytest.raises(UserError, match="no mistakes are planted in nobody"):
        list(plant(["nobody"]))
