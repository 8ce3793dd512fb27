"""The benchmark of speed measures the same work on all sides, and its sums are right."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sweeps import A2C

from zoo import registry
from zoo.bench import speed
from zoo.bench.speed import Measured, Side, Workload, workloads
from zoo.cli import main
from zoo.errors import UserError
from zoo.settings import resolve


@pytest.mark.parametrize("title", workloads())
def test_workloads_are_whole_rollouts_with_settings_that_exist(title: str) -> None:
    workload = workloads()[title]
    settings = resolve(workload.algorithm, workload.env, workload.settings)
    if "num_steps" in workload.settings:
        rollout = settings.run.num_envs * settings.config.num_steps
        assert workload.warmup % rollout == workload.steps % rollout == 0


def test_every_entry_is_measured() -> None:
    assert {workload.algorithm for workload in workloads().values()} == set(registry.load().algorithms)


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
