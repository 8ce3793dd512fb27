"""Environments that return what they are told to, and what drives environments and notes what came of it."""

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from probes import ScriptedEnv, transitions

from zoo.envs.envs import Envs

STEPS = 40
NUM_ENVS = 3


def truth(copy: int, count: int) -> list[tuple[Any, ...]]:
    """The same policy in the bare environment, without any vector environment."""
    return list(itertools.islice(transitions(ScriptedEnv(copy), itertools.repeat(None)), count))


def by_time(copy: int, t: int) -> int:
    """An action that does not depend on how observations are whitened."""
    return (copy + t) % 3


def drive(envs: Envs, steps: int) -> list[list[tuple[Any, ...]]]:
    """The first `steps` transitions of each environment, as they are stored, none of them a mere reset."""
    envs.reset()
    columns: list[list[tuple[Any, ...]]] = [[] for _ in range(envs.num_envs)]
    while min(map(len, columns)) < steps:
        action = np.array([by_time(copy, len(column)) for copy, column in enumerate(columns)])
        t, alive, *_ = envs.step(action)
        for i in np.flatnonzero(alive):
            columns[i].append(tuple(np.asarray(field[i]).tolist() for field in t[:6]))
    return [column[:steps] for column in columns]


class Observing(gym.Env[Any, Any]):
    """Observes what it was made with: at its reset, then in each step."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any], first: Any, then: Any, reward: Any = 1.0) -> None:
        self.observation_space, self.first, self.then, self.reward = space, first, then, reward

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.first, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return self.then, self.reward, False, False, {}


IMAGE = spaces.Box(0, 255, (4, 4, 1), np.uint8)
FLOATS, DOUBLES = (spaces.Box(-np.inf, np.inf, (2,), dtype) for dtype in (np.float32, np.float64))
INTS, FOUR, FROM_TWO = spaces.Box(0, 9, (2,), np.int64), spaces.Discrete(4), spaces.Discrete(4, start=2)


class Images(VectorEnv[Any, Any, Any]):
    """A vector environment of its own: its first observations, what each step returns, and final observations."""

    def __init__(
        self, mode: AutoresetMode, space: spaces.Space[Any], first: Any, taken: Any, final: Any = None
    ) -> None:
        self.num_envs, self.single_observation_space, self.single_action_space = 2, space, spaces.Discrete(2)
        self.action_space = spaces.MultiDiscrete([2, 2])
        self.metadata = {"autoreset_mode": mode}
        self.first, self.taken, self.final = first, taken, final

    def reset(self, **kwargs: Any) -> Any:
        return self.first, {}

    def step(self, actions: Any) -> Any:
        return (*self.taken, {"final_obs": self.final})


GOOD = np.full((2, 4, 4, 1), 7, np.uint8)
NO, YES = np.zeros(2, np.bool_), np.array([False, True])


def image(value: float, dtype: type) -> Any:
    """Two images, the second of them with a pixel of this value."""
    images = GOOD.astype(dtype)
    images[1, 2, 3, 0] = value
    return images


class Speechless(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


class Foreign(BaseException):
    """No Exception, as pytest's own outcomes, trio's and asyncio's cancellations are none."""
