"""Runs of a second, of any algorithm, and environments of any space."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from probes import known_settings

from zoo import registry, runs

TIMES = {"seconds", "steps_per_second"}


def small(name: str, **more: Any) -> dict[str, Any]:
    """Settings for a run of a second."""
    wanted = {
        "total_steps": 120,
        "num_envs": 2,
        "num_steps": 10,
        "batch_size": 10,
        "num_epochs": 2,
        "learning_starts": 20,
        "train_every": 10,
        "num_updates": 1,
        "capacity": 1000,
        "hidden": (8,),
        "seed": 0,
        "eval_every": 0,
        "eval_episodes": 0,
        "log_every": 40,
    }
    return known_settings(name, **wanted | more)


def env_for(name: str) -> str:
    return "CartPole-v1" if spaces.Discrete in registry.load_class(name).spaces else "Pendulum-v1"


def trained(name: str, **more: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """The parameters and the rows of metrics, without times, of a small run."""
    rows: list[dict[str, float]] = []
    settings = runs.prepare(name, env_for(name), small(name, **more), source="argument")
    result = runs.run(settings, env_for(name), on_row=rows.append)
    return result.agent.state_dict(), [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, b[key]) for key, value in a.items())


OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "matrix": spaces.Box(-1, 1, (2, 3), np.float64),
    "integer": spaces.Discrete(5, start=2),
    "small image": spaces.Box(0, 255, (10, 10, 2), np.uint8),
    "large image": spaces.Box(0, 255, (1, 40, 40), np.uint8),
}
ACTIONS = {
    "discrete": spaces.Discrete(3, start=-1),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(np.array([-3, 0], np.float32), np.array([1, 5], np.float32)),
}


class RandomEnv(gym.Env[Any, Any]):
    """Random observations of any space, episodes of five steps, and a check of each action."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.time += 1
        return self.observation_space.sample(), float(self.np_random.normal()), False, self.time == 5, {}
