"""What sweeps consist of."""

import json
import shlex
from pathlib import Path

import gymnasium as gym
import pytest
import yaml
from sweeps import TINY

from zoo import registry
from zoo.bench import plan as planning
from zoo.bench.plan import Job, Plan, code, job, plan, presets, references
from zoo.crosscheck.sb3 import COUNTERPARTS
from zoo.errors import UserError


@pytest.mark.parametrize("preset", [name for name, preset in presets().items() if not preset.algorithms])
def test_every_entry_is_in_every_preset(preset: str) -> None:
    sweep = plan(preset, algorithms=[], envs=[], seeds=1, against="sb3")
    assert {name for side, name in sweep.rows if side == "zoo"} == set(registry.load().algorithms)
    assert {job.algorithm for job in sweep.jobs if job.side == "zoo"} == set(registry.load().algorithms)
    assert {job.algorithm for job in sweep.jobs if job.side == "sb3"} == set(COUNTERPARTS)
    assert {job.env for job in sweep.jobs if job.side == "random"} == set(sweep.envs)


def test_what_cannot_play_says_why() -> None:
    sweep = plan("quick", algorithms=["dqn", "sac"], envs=[], seeds=1)
    assert sweep.unsupported == {
        ("dqn", "Pendulum-v1"): "needs Discrete actions",
        ("sac", "CartPole-v1"): "needs Box actions",
    }
    assert [(job.row, job.env) for job in sweep.jobs] == [
        ("random", "CartPole-v1"),
        ("zoo/dqn", "CartPole-v1"),
        ("random", "Pendulum-v1"),
        ("zoo/sac", "Pendulum-v1"),
    ]


def test_settings_decide_who_a_result_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    first = job("zoo", "ppo", "CartPole-v1", 0, TINY).key
    assert first == job("zoo", "ppo", "CartPole-v1", 0, dict(TINY)).key
    others = [
        job("sb3", "ppo", "CartPole-v1", 0, TINY),
        job("zoo", "a2c", "CartPole-v1", 0, {"total_steps": 512}),
        job("zoo", "ppo", "CartPole-v1", 1, TINY),
        job("zoo", "ppo", "CartPole-v1", 0, TINY | {"learning_rate": 0.01}),
    ]
    assert len({first, *(other.key for other in others)}) == 5
    monkeypatch.setattr(planning, "code", lambda side, algorithm: "changed")
    assert job("zoo", "ppo", "CartPole-v1", 0, TINY).key != first


def test_results_belong_to_the_code_of_their_entry_and_their_side() -> None:
    """What that code is: bench/test_fingerprint.py."""
    keys = {code(side, name) for side, name in (("zoo", "ppo"), ("zoo", "a2c"), ("sb3", "ppo"), ("random", ""))}
    assert len(keys) == 4


def test_a_twin_gets_the_same_settings() -> None:
    ours, theirs = (job(side, "sac", "Pendulum-v1", 3, {"total_steps": 500}) for side in ("zoo", "sb3"))
    assert ours.settings == theirs.settings
    assert ours.command == "zoo run sac --env Pendulum-v1 --seed 3 --total-steps 500"


def test_an_environment_without_a_version_is_the_newest() -> None:
    assert plan("quick", algorithms=["ppo"], envs=["CartPole"], seeds=1).envs == ["CartPole-v1"]
    assert planning._newest("Box", ["Box-v9", "Box-v10", "Boxes-v11", "Box-v1-v12"]) == "Box-v10"
    with pytest.raises(UserError, match="has no version '7'; known: CartPole-v0, CartPole-v1"):
        plan("quick", algorithms=[], envs=["CartPole-v7"], seeds=1)


OWN = """
import gymnasium as gym

def make_env(**kwargs):
    return gym.make("Pendulum-v1", **kwargs)
"""


def test_an_environment_of_ones_own_is_planned_with_the_settings_of_all_runs(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    env, own = f"{tmp_path}/own.py:make_env", {"total_steps": 700, "env_kwargs": {"g": 5.0}}
    sweep = plan("quick", algorithms=["ppo", "dqn"], envs=[env, "CartPole"], seeds=1, own={"total_steps": 700})
    assert sweep.envs == ["CartPole-v1", env]
    assert sweep.unsupported == {("dqn", env): "needs Discrete actions"}
    assert {job.total_steps for job in sweep.jobs if job.algorithm} == {700}
    changed = plan("quick", algorithms=["ppo"], envs=[env], seeds=1, own=own)
    random, ppo = changed.jobs
    assert ppo.settings["run"]["env_kwargs"] == random.overrides["env_kwargs"] == {"g": 5.0}
    assert shlex.split(ppo.command)[-2:] == ["--env-kwargs", '{"g": 5.0}']
    assert {random.key, ppo.key}.isdisjoint(job.key for job in sweep.jobs)
    with pytest.raises(UserError, match="--env-kwargs would change CartPole-v1, whose scores are compared"):
        plan("quick", algorithms=["ppo"], envs=["CartPole"], seeds=1, own=own)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'CartPole'"):
        plan("quick", algorithms=[], envs=["Cartpole-v1"], seeds=1)
    with pytest.raises(UserError, match="ppoo"):
        plan("quick", algorithms=["ppoo"], envs=[], seeds=1)


@pytest.mark.parametrize(
    "env", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "MountainCarContinuous-v0"]
)
def test_actions_are_of_the_type_that_is_written_down(env: str) -> None:
    assert type(gym.make(env).action_space).__name__ == references()[env]["actions"]


def test_presets_are_plain_data() -> None:
    assert set(yaml.safe_load((planning.FOLDER / "presets.yaml").read_text())) == {"quick", "standard", "twins", "full"}


def test_plan_and_job_are_values() -> None:
    assert Plan([], [], [], {}) == Plan([], [], [], {})
    one = job("zoo", "ppo", "CartPole-v1", 0, TINY)
    assert Job(**json.loads(json.dumps(one.to_json()))).key == one.key
