"""Every entry against Stable-Baselines3 or an oracle, and mistakes that these comparisons must notice."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from zoo import registry
from zoo.cli import cli
from zoo.config import field_info
from zoo.crosscheck import Check, crosscheck, theirs
from zoo.crosscheck.mutations import Mutation, load, mutated, plant
from zoo.errors import UserError
from zoo.settings import resolve

MUTATIONS = load()


@pytest.mark.parametrize("name", sorted(registry.load().algorithms))
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_entry_equals_its_references(name: str) -> None:
    checks = list(crosscheck([name], [1, 2]))
    assert {check.rung for check in checks} <= {1, 2}
    assert [check for check in checks if check.rung == 2]
    assert not [check for check in checks if not check.passed]


def test_entries_with_a_twin_are_compared_on_both_rungs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks = [check for check in crosscheck(["sac", "a2c"], [1, 2]) if check.reference == "SB3"]
    assert {(check.entry, check.rung) for check in checks} == {("sac", 1), ("sac", 2), ("a2c", 1), ("a2c", 2)}


@pytest.mark.parametrize(("difference", "passed"), [(0.0, True), (1.0, True), (1.1, False), (math.nan, False)])
def test_a_check_passes_within_its_tolerance(difference: float, passed: bool) -> None:
    assert Check("ppo", 2, "SB3", "", difference, tolerance=1.0).passed is passed


def test_command_prints_and_writes_every_check(tmp_path: Path) -> None:
    file = tmp_path / "checks.json"
    result = CliRunner().invoke(cli, ["crosscheck", "qac", "sarsa", "--json", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "3 checks, all equal" in result.output
    checks = json.loads(file.read_text())
    assert [check["entry"] for check in checks] == ["qac", "qac", "sarsa"]
    assert all(check["passed"] for check in checks)


def test_an_unknown_entry_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'ppo'"):
        list(crosscheck(["pppo"], [1]))
    with pytest.raises(UserError, match="no mistakes are planted in nobody"):
        list(plant(["nobody"]))


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


@pytest.mark.parametrize(
    ("name", "settings", "noise", "ignored"),
    [
        ("sac", {}, None, []),
        ("sac", {"noise": "ou", "noise_std": 0.5}, OrnsteinUhlenbeckActionNoise, []),
        ("ddpg", {}, NormalActionNoise, []),
        ("td3", {"noise": "none"}, None, []),
        ("ddpg", {"n_step": 3}, NormalActionNoise, []),
        ("dqn", {"n_step": 3, "loss": "mse"}, None, ["loss"]),
        ("ppo", {"learning_rate_end": 0, "clip_eps_end": 0, "optimizer_eps": 1e-8}, None, ["optimizer_eps"]),
        ("a2c", {"optimizer": "adam", "log_std_init": -1}, None, []),
    ],
)
def test_a_twin_follows_every_setting_or_names_it(
    name: str, settings: dict[str, Any], noise: type | None, ignored: list[str]
) -> None:
    resolved = resolve(name, "CartPole-v1" if name == "dqn" else "Pendulum-v1", settings, use_tuned=False)
    model = theirs.model(resolved)
    assert type(getattr(model, "action_noise", None)) is (noise or type(None))
    assert getattr(model, "n_steps", 1) == settings.get("n_step", 1) or name in ("ppo", "a2c")
    assert theirs.ignored(resolved) == ignored


@pytest.mark.parametrize("name", sorted(theirs.SHARED))
def test_settings_of_twins_are_ours(name: str) -> None:
    assert set(theirs.SHARED[name].split()) <= set(field_info(registry.load_class(name).Config))
