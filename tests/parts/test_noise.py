"""Ornstein-Uhlenbeck noise is one process for each environment, which starts anew with each of its episodes."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.random import SeedSequence
from numpy.typing import NDArray
from torch import Generator

from zoo import registry
from zoo.envs.envs import Envs
from zoo.parts.noise import ActionNoise
from zoo.protocol import Progress
from zoo.training.loop import act_and_step

Array = NDArray[Any]
LENGTHS = (3, 5, 1, 40)


def draws(seed: int, steps: int, shape: tuple[int, int]) -> Array:
    """The normal numbers that a generator of this seed gives, step by step."""
    generator = Generator().manual_seed(seed)
    return np.stack([torch.empty(shape).normal_(generator=generator).numpy() for _ in range(steps)])


def naive(noise: Array, started: Array, std: float) -> Array:
    """x ← x - θ x dt + σ √dt N(0, 1) with θ = 0.15, dt = 0.01, from 0 at each start, one environment after another."""
    found = np.zeros(noise.shape)
    for i in range(noise.shape[1]):
        x = np.zeros(noise.shape[2])
        for t in range(len(noise)):
            if started[t, i]:
                x = np.zeros(noise.shape[2])
            x = x - 0.15 * x * 0.01 + std * np.sqrt(0.01) * noise[t, i]
            found[t, i] = x
    return found


def test_the_process_restarts_in_the_columns_that_start() -> None:
    started = np.random.default_rng(0).random((200, 4)) < 0.1
    process, generator = ActionNoise("ou", 0.7), Generator().manual_seed(3)
    found = np.stack([process.sample(torch.zeros(4, 2), generator, each).numpy() for each in started])
    expected = naive(draws(3, 200, (4, 2)), started, 0.7)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Control: a process that runs on is another.
    assert np.abs(expected - naive(draws(3, 200, (4, 2)), started & False, 0.7)).max() > 0.1


@pytest.mark.parametrize("kind", ["none", "gaussian"])
def test_other_noise_knows_no_episodes(kind: Any) -> None:
    first, second = (
        ActionNoise(kind, 0.7).sample(torch.zeros(4, 2), Generator().manual_seed(3), started)
        for started in (None, np.ones(4, np.bool_))
    )
    assert torch.equal(first, second)


class Clock(gym.Env[Any, Any]):
    """Episodes of a fixed number of steps."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (2,))

    def __init__(self, length: int) -> None:
        self.length, self.time = length, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return np.zeros(1, np.float32), 0.0, self.time == self.length, False, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", ["ddpg", "td3", "sac"])
def test_noise_of_a_training_restarts_with_each_episode(name: str, mode: AutoresetMode) -> None:
    vector = SyncVectorEnv([lambda length=length: Clock(length) for length in LENGTHS], autoreset_mode=mode)
    envs = Envs(vector, SeedSequence(0))
    config = registry.load_class(name).Config(noise="ou", noise_std=0.5, learning_starts=0, hidden=(4,))
    algo: Any = registry.make(name, envs.spec, config, SeedSequence(0))
    # What an action is besides its noise: 0.
    algo.actor.forward = lambda obs: Silent(len(obs)) if name == "sac" else torch.zeros(len(obs), 2)
    algo.actor.noise = lambda *shape, generator: None
    algo.generator.manual_seed(5)
    envs.reset()
    steps = [act_and_step(algo, envs, Progress(t, 60), torch.device("cpu")) for t in range(60)]
    found = np.stack([step.transition.action for step in steps])
    # An episode starts where the one before has ended; a row that only resets is not a step of either.
    ended = np.stack([(step.transition.terminated | step.transition.truncated) & step.alive for step in steps])
    alive = np.stack([step.alive for step in steps])
    started = np.concatenate([np.ones((1, 4), np.bool_), (ended | ~alive)[:-1]])
    expected = naive(draws(5, 60, (4, 2)), started, 0.5)
    np.testing.assert_allclose(found[alive], expected[alive], atol=1e-5)
    assert {int(n) for n in started.sum(0)} - {1, 2}  # most columns start more than once


class Silent:
    """A policy that always acts 0."""

    def __init__(self, size: int) -> None:
        self.size = size

    def sample(self, noise: None) -> tuple[torch.Tensor, None]:
        return torch.zeros(self.size, 2), None
