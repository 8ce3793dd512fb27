"""Vector environments of somebody else's making, which nothing inside guards, and which may reuse what they return."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from zoo.envs.sync import Sync, fail
from zoo.envs.workers import Workers
from zoo.errors import EnvError
from zoo.spec import Array

# What a step returns beside observations: name, numpy's letters for its kinds, and these in words.
PARTS = (("rewards", "biuf", "numbers"), ("terminated", "b", "True or False"), ("truncated", "b", "True or False"))


class Watched:
    """A vector environment of somebody else's making. Raises EnvError if it fails, or returns no such numbers."""

    def __init__(self, vector: VectorEnv[Any, Any, Any]) -> None:
        self.vector: Any = vector
        self.close, self.action_space = vector.close, vector.action_space
        self.shape = (vector.num_envs,)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Return the first observations, and infos."""
        try:
            obs, infos = self.vector.reset(seed=seed, options=options)
        except BaseException as error:
            fail("reset", error)
        return np.array(obs), infos

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, Any]:
        """Observations, rewards, terminated and truncated, (B, ...) each, and infos."""
        try:
            obs, reward, terminated, truncated, infos = self.vector.step(actions)
        except BaseException as error:
            fail("step", error)
        obs, reward, terminated, truncated = map(np.array, (obs, reward, terminated, truncated))
        for values, (name, kinds, expected) in zip((reward, terminated, truncated), PARTS, strict=True):
            if values.dtype.kind not in kinds:
                raise EnvError(f"the environments' {name} are of {values.dtype}; expected {expected}")
            if values.shape != self.shape:
                raise EnvError(f"the environments' {name} have shape {values.shape}; expected {self.shape}")
        return obs, reward, terminated, truncated, infos


def watched(vector: VectorEnv[Any, Any, Any]) -> Any:
    """Return the vector environment, which raises EnvError for whatever goes wrong in it; this package's own do."""
    return vector if isinstance(vector, Sync | Workers) else Watched(vector)
