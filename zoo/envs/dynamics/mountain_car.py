"""MountainCar: a car too weak for the hill on its right has to swing up.

Moore 1990, "Efficient memory-based learning for robot control", as in Sutton & Barto 2018, Example 10.1:

    v' = v + 0.001 (a - 1) - 0.0025 cos 3x            clipped to ±0.07
    x' = x + v'                                       clipped to [-1.2, 0.6]; the wall on the left stops the car

State (x, v). It ends at x ≥ 0.5.
"""

from dataclasses import dataclass

import numpy as np

from zoo.envs.dynamics.scalars import cosine
from zoo.spec import Array, clip


@dataclass(frozen=True)
class MountainCar:
    """gymnasium's MountainCarEnv; actions 0, 1 and 2 push left, not at all and right."""

    goal_velocity: float = 0

    min_position = -1.2
    max_position = 0.6
    max_speed = 0.07
    goal_position = 0.5
    force = 0.001
    gravity = 0.0025

    def initial(self, rng: np.random.Generator) -> Array:
        """The state that gymnasium's reset draws from `rng`, (2,)."""
        return np.array([rng.uniform(-0.6, -0.4), 0])

    def step(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """Successors, (..., 2), rewards, (...), and whether the car is at the goal, (...)."""
        position, velocity = state[..., 0], state[..., 1]
        velocity = velocity + ((action - 1) * self.force + cosine(3 * position) * (-self.gravity))
        velocity = clip(velocity, -self.max_speed, self.max_speed)
        position = clip(position + velocity, self.min_position, self.max_position)
        velocity = np.where((position == self.min_position) & (velocity < 0), 0.0, velocity)
        terminated = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        return np.stack([position, velocity], -1), np.full_like(position, -1.0), terminated

    def observe(self, state: Array) -> Array:
        """The state, float32, (..., 2)."""
        return state.astype(np.float32)

    def state_of(self, obs: Array) -> Array:
        """The state that `obs` is, (..., 2)."""
        return obs.astype(np.float64)
