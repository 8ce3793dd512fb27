"""Environments whose observations tell who acted and with which weights, and algorithms that make them tell it.

Ids in `VECTORS`, one for each autoreset mode, have vector environments of their own (`vec="native"`).
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.random import SeedSequence
from torch import Tensor

from zoo import registry
from zoo.protocol import Progress
from zoo.spec import Spec
from zoo.training.weights import acting_parameters

CHOICES = 64


class Stamps(gym.Env[Any, Any]):
    """Observes the last action and the process that it is in; episodes of 1 to 7 steps, half of them truncated."""

    observation_space = spaces.Box(0, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(CHOICES)

    def __init__(self, pause: float = 0.0, hangs_in: int | None = None) -> None:
        self.pause, self.hangs_in, self.count = pause, hangs_in, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left, self.truncates = self.np_random.integers(1, 8), self.np_random.random() < 0.5
        return np.array([0, os.getpid()], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.left -= 1
        time.sleep(3600 if self.count == self.hangs_in else self.pause)
        obs = np.array([action, os.getpid()], np.float32)
        return obs, 1.0, self.left == 0 and not self.truncates, self.left == 0 and bool(self.truncates), {}


class Failing(Stamps):
    """Raises an error in its third step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.count == 2:
            raise ZeroDivisionError("no ground below")
        return super().step(action)


def vector_of(make: Callable[..., gym.Env[Any, Any]], mode: AutoresetMode) -> Callable[..., Any]:
    """A vector entry point that resets as `mode` says."""

    def make_vector(num_envs: int, **kwargs: Any) -> Any:
        return SyncVectorEnv([partial(make, **kwargs)] * num_envs, autoreset_mode=mode)

    return make_vector


VECTORS = {mode: f"Stamps{mode.value}-v0" for mode in AutoresetMode}
for mode, name in VECTORS.items():
    gym.register(name, entry_point=Stamps, vector_entry_point=vector_of(Stamps, mode))


def parameter_of(algo: Any) -> Tensor:
    """A number among the weights: what stamps are made of."""
    return acting_parameters(algo)[0].view(-1)[:1]


def make_stamping(name: str, config: Any, spec: Spec, seeds: SeedSequence) -> Any:
    """An algorithm whose action is that number."""
    algo: Any = registry.make(name, spec, config, seeds)

    def act(obs: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
        return parameter_of(algo).long().expand(len(obs)), torch.zeros(len(obs))

    algo.act = act
    return algo


def make_telling_progress(name: str, config: Any, spec: Spec, seeds: SeedSequence) -> Any:
    """An algorithm whose action says which share of the run is done."""
    algo: Any = registry.make(name, spec, config, seeds)

    def act(obs: Tensor, progress: Progress) -> tuple[Tensor, None]:
        return torch.full((len(obs),), int(progress.fraction * (CHOICES - 1))), None

    algo.act = act
    return algo
