"""Every algorithm of the registry, on environments whose values and best actions are known."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.random import SeedSequence
from probes import ALGORITHMS, GAMMA, PROBES, Array, Probe, TruncationIsTermination, known_settings

import zoo
from zoo import registry
from zoo.config import build
from zoo.envs.envs import Envs
from zoo.taxonomy import Target
from zoo.training.loop import Inline, Learner

# With rectified units the actors saturate on some seeds before the critic has the right slope.
DETERMINISTIC = {"num_updates": 4, "learning_rate": 0.003, "noise_std": 0.5, "hidden": (64, 64), "activation": "tanh"}

SEGMENTS = {"num_steps": 1, "hidden": (32,), "optimizer": "adam", "learning_rate": 0.01, "learning_rate_end": 0.001}

# A few thousand steps must do. An algorithm takes what it knows of `all` and of its data axis, then its own.
SETTINGS: dict[str, dict[str, Any]] = {
    "all": {"total_steps": 2048, "num_envs": 8, "gamma": GAMMA, "eval_every": 0, "eval_episodes": 0},
    "on": {"num_steps": 1, "hidden": (32,), "learning_rate": 0.01, "learning_rate_end": 0.001},
    "off": {
        "capacity": 2048,
        "batch_size": 32,
        "learning_starts": 128,
        "train_every": 8,
        "num_updates": 2,
        "target_every": 1,
        "tau": 0.05,
        "hidden": (32, 32),
        "learning_rate": 0.005,
    },
    "ppo": {"num_steps": 8, "batch_size": 64, "num_epochs": 8},
    "a2c": {"optimizer": "adam"},
    "qac": {"total_steps": 6144, "baseline": True, "hidden": (64, 64), "activation": "relu", "learning_rate": 0.003},
    "tdv": {"total_steps": 6144, "exploration_fraction": 0.5},
    "dqn": {"exploration_fraction": 0.5},
    "d3qn": {"exploration_fraction": 0.5},
    "ddpg": DETERMINISTIC,
    "td3": DETERMINISTIC,
    "impala": SEGMENTS,
    "impala_replay": SEGMENTS,
}


def settings_of(name: str) -> dict[str, Any]:
    axis = str(registry.load_class(name).cell.data)
    return known_settings(name, **SETTINGS["all"], **SETTINGS[axis]) | SETTINGS.get(name, {})


def supported(name: str, probe: Probe) -> bool:
    return issubclass(probe.space, registry.load_class(name).spaces)


def has_critic(name: str) -> bool:
    return registry.load_class(name).cell.target is Target.V


CONTROL = [
    (name, key) for name in ALGORITHMS for key, probe in PROBES.items() if probe.is_best and supported(name, probe)
]
VALUES = [
    (name, key)
    for name in ALGORITHMS
    for key, probe in PROBES.items()
    if probe.values and has_critic(name) and supported(name, probe)
]
FIRST_FORM = {
    name: next(form for form in ("discrete", "box") if supported(name, PROBES[f"stay-{form}"])) for name in ALGORITHMS
}


def train(name: str, make: Callable[[], gym.Env[Any, Any]]) -> zoo.Agent:
    return zoo.train(name, make, seed=0, **settings_of(name))


def values(algo: Any, probe: Probe) -> Array:
    with torch.no_grad():
        critic = algo.v if hasattr(algo, "v") else algo.critic
        found: Array = critic(torch.as_tensor(probe.observations())).numpy()
    return found


def assert_values(algo: Any, probe: Probe) -> None:
    np.testing.assert_allclose(values(algo, probe), probe.values, rtol=0.05, atol=0.02)


def best_everywhere(agent: zoo.Agent, probe: Probe) -> bool:
    assert probe.is_best is not None
    actions, _ = agent.predict(probe.observations())
    return all(probe.is_best(state, action) for state, action in zip(probe.states, actions, strict=True))


@pytest.mark.parametrize(("name", "key"), CONTROL)
def test_greedy_actions_are_the_best(name: str, key: str) -> None:
    agent = train(name, PROBES[key].make)
    assert best_everywhere(agent, PROBES[key]), agent.predict(PROBES[key].observations())[0]


@pytest.mark.parametrize(("name", "key"), VALUES)
def test_critic_knows_the_values(name: str, key: str) -> None:
    assert_values(train(name, PROBES[key].make).algo, PROBES[key])


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if has_critic(name)])
def test_endless_reward_is_worth_little_where_truncation_ends_it(name: str) -> None:
    probe = PROBES[f"endless-{FIRST_FORM[name]}"]
    agent = train(name, lambda: TruncationIsTermination(probe.make()))
    # One reward and no future: 1, not 1 / (1 - γ).
    np.testing.assert_allclose(values(agent.algo, probe), 1.0, rtol=0.05)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_staying_is_a_mistake_where_truncation_ends_it(name: str) -> None:
    probe = PROBES[f"stay-{FIRST_FORM[name]}"]
    assert not best_everywhere(train(name, lambda: TruncationIsTermination(probe.make())), probe)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if has_critic(name)])
def test_rows_that_only_reset_teach_nothing(name: str, mode: AutoresetMode) -> None:
    probe, settings = PROBES[f"final_obs-{FIRST_FORM[name]}"], settings_of(name)
    # Every second row of a NEXT_STEP environment starts at a final observation, earns nothing and leads to a reset.
    envs = Envs(SyncVectorEnv([probe.make] * settings["num_envs"], autoreset_mode=mode), SeedSequence(0))
    cls = registry.load_class(name)
    config: Any = build(cls.Config, {key: settings[key] for key in settings if key in cls.Config.__annotations__}, name)
    algo = registry.make(name, envs.spec, config, SeedSequence(1))
    buffer = algo.make_buffer(envs.spec, envs.num_envs)
    steps = settings["total_steps"]
    for _ in Learner(algo, Inline(algo, envs), buffer).reports(total_steps=steps, log_every=steps):
        pass
    assert_values(algo, probe)
