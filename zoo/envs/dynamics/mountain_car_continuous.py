"""MountainCarContinuous: MountainCar with a force of any size in [-1, 1], which costs.

Moore 1990, "Efficient memory-based learning for robot control", with gymnasium's force and reward:

    v' = v + 0.0015 a - 0.0025 cos 3x                 clipped to ±0.07
    x' = x + v'                                       clipped to [-1.2, 0.6]; the wall on the left stops the car
    r  = 100 at the goal, x' ≥ 0.45, less 0.1 a²

State (x, v).
"""

from dataclasses import dataclass

import numpy as np

from zoo.envs.dynamics.scalars import cosine
from zoo.spec import Array, clip


@dataclass(frozen=True)
class MountainCarContinuous:
    """gymnasium's Continuous_MountainCarEnv.

    That draws an episode's first state as float64, keeps all later ones as float32, and computes in the type of the
    state. So does this: a state whose numbers all fit float32 is a later one.
    """

    goal_velocity: float = 0

    min_action = -1.0
    max_action = 1.0
    min_position = -1.2
    max_position = 0.6
    max_speed = 0.07
    goal_position = 0.45
    power = 0.0015

    def initial(self, rng: np.random.Generator) -> Array:
        """The state that gymnasium's reset draws from `rng`, (2,)."""
        return np.array([rng.uniform(-0.6, -0.4), 0])

    def step(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """Successors, (..., 2), rewards, (...), and whether the car is at the goal, (...); actions are (..., 1)."""
        force = action[..., 0].astype(np.float32)
        rounded = state.astype(np.float32)
        next_state, terminated = self._move(rounded, force)
        first = (rounded != state).any(-1)
        if first.any():
            first_state, first_terminated = self._move(state, force)
            next_state = np.where(first[..., None], first_state, next_state)
            terminated = np.where(first, first_terminated, terminated)
        reward = np.where(terminated, 100.0, 0.0) - np.square(force.astype(np.float64)) * 0.1
        return next_state.astype(np.float64), reward, terminated

    def _move(self, state: Array, action: Array) -> tuple[Array, Array]:
        """Successors, float32, and whether the car is at the goal, computed in the type of `state`."""
        position, velocity = state[..., 0], state[..., 1]
        force = clip(action, self.min_action, self.max_action)
        pull = 0.0025 * cosine(3 * position)
        push = force * self.power - pull.astype(np.float32)
        clipped = force != action
        if clipped.any():  # there a force is a Python float
            push = np.where(clipped, force.astype(np.float64) * self.power - pull, push)
        velocity = clip(velocity + push.astype(state.dtype), -self.max_speed, self.max_speed)
        position = clip(position + velocity, self.min_position, self.max_position)
        velocity = np.where((position == self.min_position) & (velocity < 0), np.zeros_like(velocity), velocity)
        terminated = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        return np.stack([position, velocity], -1).astype(np.float32), terminated

    def observe(self, state: Array) -> Array:
        """The state, float32, (..., 2)."""
        return state.astype(np.float32)

    def state_of(self, obs: Array) -> Array:
        """The state that `obs` is, (..., 2)."""
        return obs.astype(np.float64)
