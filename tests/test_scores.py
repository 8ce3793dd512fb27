"""zoo/scores.yaml: generated, complete, and of the registry's settings alone."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from zoo import registry
from zoo.settings import resolve

ROOT = Path(__file__).parents[1]
FILE = ROOT / "zoo" / "scores.yaml"
SCORES = yaml.safe_load(FILE.read_text(encoding="utf-8"))


@pytest.fixture
def script() -> ModuleType:
    """docs/scores.py"""
    spec = importlib.util.spec_from_file_location("scores", ROOT / "docs" / "scores.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(seed: int, end: float, name: str = "sarsa", **changes: Any) -> dict[str, Any]:
    """A run of a sweep's summary."""
    settings = resolve(name, "CartPole-v1", {"seed": seed, "eval_every": 7, **changes}).to_json()
    shown = {"run": settings["run"], "config": settings["config"]}
    return {"id": f"zoo/{name}", "env": "CartPole-v1", "seed": seed, "settings": shown, "status": "done", "end": end}


def summary(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"runs": list(runs), "commit": "abc", "created": "2026-01-02T03:04:05"}


def test_scores_belong_to_tuned_settings() -> None:
    assert {(name, env) for name, found in SCORES.items() for env in found} <= {
        (name, env) for name, entry in registry.load().algorithms.items() for env in entry.envs
    }
    assert registry.scores("ppo")["Pendulum-v1"].median == SCORES["ppo"]["Pendulum-v1"]["median"]
    assert registry.scores("no such entry") == {}


def test_every_score_says_what_was_measured_and_when() -> None:
    scores = [score for name in SCORES for score in registry.scores(name).values()]
    assert all(score.low <= score.median <= score.high and score.seeds > 0 for score in scores)
    assert all(score.commit and score.date.year >= 2026 for score in scores)


def test_the_file_is_as_the_command_writes_it(script: ModuleType) -> None:
    assert script.text(SCORES) == FILE.read_text(encoding="utf-8")


def test_a_score_is_the_median_and_the_range_over_seeds(script: ModuleType) -> None:
    ends = [10.04, 30.0, 20.0]
    found = script.scores_of(summary(*(run(seed, end) for seed, end in enumerate(ends))))
    expected = {"median": 20.0, "low": 10.0, "high": 30.0, "seeds": 3, "commit": "abc", "date": "2026-01-02"}
    assert found == {("sarsa", "CartPole-v1"): expected}


@pytest.mark.parametrize("changes", [{"total_steps": 8}, {"gamma": 0.5}, {"num_envs": 1}])
def test_runs_with_other_settings_are_named_and_left_out(
    changes: dict[str, Any], script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    found = script.scores_of(summary(run(0, 1.0), run(1, 9.0, **changes)))
    assert [score["median"] for score in found.values()] == [1.0]
    assert "sarsa on CartPole-v1, seed 1: left out" in capsys.readouterr().out


def test_failed_runs_and_twins_have_no_score(script: ModuleType) -> None:
    failed, twin = run(0, 1.0) | {"status": "failed"}, run(1, 2.0) | {"id": "sb3/sarsa"}
    assert script.scores_of(summary(failed, twin)) == {}
