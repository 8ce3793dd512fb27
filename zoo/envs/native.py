"""Environments stepped as arrays, by their own vector environments."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv

from zoo.spec import Array


class CartPoles(CartPoleVectorEnv):
    """gymnasium's CartPoles stepped as one array, reset only when asked; each starts as the single one of its seed."""

    metadata = CartPoleVectorEnv.metadata | {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, num_envs: int = 1, **kwargs: Any) -> None:
        super().__init__(num_envs, **kwargs)
        self.state: Any = np.zeros((4, num_envs))
        self.never = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset all, or those of options["reset_mask"], each with its own seed; all observations, (B, 4)."""
        mask = (options or {}).get("reset_mask", ~self.never)
        for i in np.flatnonzero(mask).tolist():
            rng, _ = seeding.np_random(None if seed is None else seed[i])
            self.state[:, i] = rng.uniform(self.low, self.high, 4)
        self.steps[mask] = 0
        return self.state.T.astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Observations, rewards, terminated and truncated, (B, ...) each."""
        taken = super().step(action)
        self.prev_done = self.never  # which it would reset in its next step
        return taken


# Vector environments that reset themselves, by their entry points, and the same ones that do not.
RESET_WHEN_ASKED = {"gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv": CartPoles}


def _native(env_id: str, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """Return the id's own vector environment, which resets only when asked where that is known."""
    spec = copy.deepcopy(gym.spec(env_id))
    spec.vector_entry_point = RESET_WHEN_ASKED.get(str(spec.vector_entry_point), spec.vector_entry_point)
    return gym.make_vec(spec, num_envs, vectorization_mode="vector_entry_point", **kwargs)
