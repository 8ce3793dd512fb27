"""Each side does the same work, and is timed while it does it."""

import time
from typing import Any

import pytest
from sweeps import A2C, SAC

from zoo.bench import stopwatch


@pytest.mark.parametrize("task", [A2C, SAC], ids=["a2c", "sac"])
@pytest.mark.parametrize("side", ["zoo", "sb3"])
def test_turns_are_timed_after_the_warmup(side: str, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    said: list[tuple[int, dict[str, float]]] = []
    at = stopwatch.TurnClock.at

    def spy(self: stopwatch.TurnClock, step: int) -> None:
        steps.append(step)
        at(self, step)

    monkeypatch.setattr(stopwatch.TurnClock, "at", spy)
    found = stopwatch.LEARNERS[side]({**task, "side": side}, lambda answer: said.append((steps[-1], answer)))
    assert found["first"] > 0
    assert [step for step, _ in said] == [80, 160, 240]
    assert said[0][1] == {}
    assert all(answer["steps_per_second"] > 0 for _, answer in said[1:])


def test_the_time_between_turns_does_not_count() -> None:
    watch = stopwatch.TurnClock(
        {"warmup": 0, "steps": 10, "turns": 1}, lambda answer: rates.append(answer) or time.sleep(0.2)
    )
    rates: list[dict[str, float]] = []
    watch.at(0)
    time.sleep(0.01)
    watch.at(10)
    assert 10 / 0.1 < rates[1]["steps_per_second"] < 10 / 0.01


def test_both_sides_make_the_same_number_of_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    import stable_baselines3

    from zoo.algos import a2c

    counts = {"zoo": 0, "sb3": 0}

    def counted(cls: Any, name: str, side: str) -> None:
        method = getattr(cls, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            counts[side] += 1
            return method(*args, **kwargs)

        monkeypatch.setattr(cls, name, wrapper)

    counted(a2c.A2C, "step", "zoo")
    counted(stable_baselines3.A2C, "train", "sb3")
    for side in counts:
        stopwatch.LEARNERS[side]({**A2C, "side": side}, lambda answer: None)
    assert counts == {"zoo": 12, "sb3": 12}  # 240 steps in rollouts of 20


def test_a_profile_has_shares_that_add_up() -> None:
    shares = stopwatch.zoo_side({**A2C, "profile": True}, lambda answer: None)["shares"]
    assert shares.keys() == set(stopwatch.PARTS)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(0 < share < 1 for share in shares.values())


def test_limits_are_measured() -> None:
    assert stopwatch.env_side(A2C)["steps_per_second"] > 1000
    counted = stopwatch.flops_side(A2C)
    # Two nets of 4-64-64-(2 and 1) on one row: forward 2·(4·64 + 64·64) each, and twice that backward; the critic
    # is asked twice more for targets, and the policy once more to act. Between twice and ten times the forward pass.
    forward = 2 * 2 * (4 * 64 + 64 * 64)
    assert 2 * forward < counted["flops"] < 10 * forward
    assert counted["rate"] > 1e8
