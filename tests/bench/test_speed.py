"""The benchmark of speed measures the same work on all sides, and its sums are right."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from zoo import registry
from zoo.bench import speed, stopwatch
from zoo.bench.speed import Measured, Side, Workload, workloads
from zoo.cli import main
from zoo.errors import UserError
from zoo.settings import resolve

TINY: dict[str, Any] = {"warmup": 80, "steps": 80, "turns": 2, "threads": 1, "profile": False, "compile": "off"}
A2C: dict[str, Any] = {"algorithm": "a2c", "env": "CartPole-v1", "settings": {"num_envs": 4, "num_steps": 5}, **TINY}
SAC: dict[str, Any] = {
    "algorithm": "sac",
    "env": "Pendulum-v1",
    "settings": {"learning_starts": 20, "hidden": [16, 16], "capacity": 1000},
    **TINY,
}


@pytest.mark.parametrize("title", workloads())
def test_workloads_are_whole_rollouts_with_settings_that_exist(title: str) -> None:
    workload = workloads()[title]
    settings = resolve(workload.algorithm, workload.env, workload.settings)
    if "num_steps" in workload.settings:
        rollout = settings.run.num_envs * settings.config.num_steps
        assert workload.warmup % rollout == workload.steps % rollout == 0


def test_every_entry_is_measured() -> None:
    assert {workload.algorithm for workload in workloads().values()} == set(registry.load().algorithms)


@pytest.mark.parametrize("task", [A2C, SAC], ids=["a2c", "sac"])
@pytest.mark.parametrize("side", ["zoo", "sb3"])
def test_turns_are_timed_after_the_warmup(side: str, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    said: list[tuple[int, dict[str, float]]] = []
    at = stopwatch.Watch.at

    def spy(self: stopwatch.Watch, step: int) -> None:
        steps.append(step)
        at(self, step)

    monkeypatch.setattr(stopwatch.Watch, "at", spy)
    found = stopwatch.LEARNERS[side]({**task, "side": side}, lambda answer: said.append((steps[-1], answer)))
    assert found["first"] > 0
    assert [step for step, _ in said] == [80, 160, 240]
    assert said[0][1] == {}
    assert all(answer["steps_per_second"] > 0 for _, answer in said[1:])


def test_the_time_between_turns_does_not_count() -> None:
    watch = stopwatch.Watch(
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


def measured() -> Measured:
    sides = {"zoo": Side(1, [900, 1000, 1100]), "sb3": Side(2, [200, 250, 300])}
    for side in sides.values():
        side.last = {"import": 1.0, "build": 0.5, "first": 4.0, "memory": 400 * 2**20}
    shares = {"act": 0.1, "env": 0.2, "store": 0.05, "update": 0.65}
    return Measured(
        "A2C", Workload(**{key: A2C[key] for key in Workload.model_fields if key in A2C}), sides, 4000.0, 8000.0, shares
    )


def test_a_row_has_medians_ratios_and_the_share_of_the_limit() -> None:
    found = measured()
    assert found.ratio("sb3") == 4
    cells = dict(zip(speed.header(["sb3", "sbx"]), speed.row(found, ["sb3", "sbx"]), strict=False))
    assert cells["zoo"] == "1,000 ±10% (1 thr)"
    assert cells["Stable-Baselines3"] == "250 ±20% (2 thr)"
    assert cells["SBX"] == "-"
    assert cells["of limit"] == "25%"
    assert cells["act/env/store/update"] == "10/20/5/65 %"
    assert json.loads(json.dumps(found.to_json()))["ratios"] == {"sb3": 4}


class Fake:
    """Stands for `speed.started`: speeds by side and threads, and who had a turn when."""

    turns: list[tuple[str, int]]

    def __init__(self, workload: Workload, side: str, threads: int, *, turns: int, profile: bool = False) -> None:
        self.racer = (side, threads)

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def turn(self) -> float:
        self.turns.append(self.racer)
        return {("zoo", 1): 100.0, ("sb3", 2): 50.0}.get(self.racer, 20.0)

    def answer(self) -> dict[str, Any]:
        if self.racer[0] == "flops":
            return {"flops": 1e6, "rate": 1e9}
        return {"steps_per_second": 20.0, "shares": {}, **self.end()}

    def end(self) -> dict[str, Any]:
        return {"import": 1, "build": 1, "first": 1, "memory": 1}


def test_sides_take_turns_and_count_at_their_best_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "started", Fake)
    monkeypatch.setattr(speed, "_cores", lambda: 3)
    Fake.turns = []
    (found,) = speed.measure(["a2c"], against=["sb3", "sbx"], repeat=3)
    assert Fake.turns == [("zoo", 1), ("zoo", 2), ("sb3", 1), ("sb3", 2)] * 3  # SBX has no A2C
    assert found.ratio("sb3") == 2
    assert found.sides["zoo"].rates == [100, 100, 100]
    assert found.limit == pytest.approx(1 / (1 / 20 + 1e6 / 1e9))


def test_processes_take_turns() -> None:
    workload = Workload(**{key: A2C[key] for key in Workload.model_fields if key in A2C} | {"steps": 20})
    with speed.started(workload, "sb3", 1, turns=2) as process:
        assert process.answer() == {}
        assert process.turn() > 0
        assert process.turn() > 0
        with pytest.raises(subprocess.TimeoutExpired):  # it would take time from others
            process.popen.wait(1)
        assert process.end()["memory"] > 2**26
    assert process.popen.returncode is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algos", "pppo"], "no workload for 'pppo'; did you mean 'ppo'?"),
        (["--against", "cleanrl"], "--against cleanrl: expected sb3, sbx"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["bench", "speed", *arguments])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_a_side_that_fails_says_why() -> None:
    broken = Workload(algorithm="a2c", env="CartPole-v1", warmup=8, steps=8, settings={"num_envs": 0})
    with pytest.raises(UserError, match=r"zoo failed: .*num_envs"):
        speed.run(broken, "zoo", 1)


def test_the_command_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(speed, "measure", lambda *args, **kwargs: iter([measured()]))
    with pytest.raises(SystemExit) as raised:
        main(["bench", "speed", "--json", str(tmp_path / "speed.json")])
    assert raised.value.code == 0
    assert "4.0x" in capsys.readouterr().out
    assert json.loads((tmp_path / "speed.json").read_text())[0]["workload"] == "A2C"
