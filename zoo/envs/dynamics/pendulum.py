"""Pendulum: a pendulum that is too heavy to be lifted at once has to be swung up and held.

The equation of motion of a rod of mass m and length l on a pivot, θ = 0 upright, and a quadratic cost:

    θ̈  = 3g / 2l sin θ + 3 / ml² u
    -r = θ² + 0.1 θ̇² + 0.001 u²                       of the state that is left, θ in [-π, π)

State (θ, θ̇); θ counts turns. Semi-implicit Euler steps of dt: θ moves by the new θ̇, which is clipped. It never ends.
"""

from dataclasses import dataclass

import numpy as np

from zoo.envs.dynamics.scalars import square
from zoo.spec import Array, clip


@dataclass(frozen=True)
class Pendulum:
    """gymnasium's PendulumEnv; actions are torques."""

    g: float = 10.0

    max_speed = 8
    max_torque = 2.0
    dt = 0.05
    m = 1.0
    l = 1.0  # noqa: E741

    def initial(self, rng: np.random.Generator) -> Array:
        """The state that gymnasium's reset draws from `rng`, (2,)."""
        high = np.array([np.pi, 1.0])
        return rng.uniform(-high, high)

    def step(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """Successors, (..., 2), rewards, (...), and False, (...); actions are (..., 1)."""
        th, thdot = state[..., 0], state[..., 1]
        # Of float32, as their space is; in gymnasium, too, what is made of torques alone is rounded to float32.
        u = clip(action[..., 0].astype(np.float32), -self.max_torque, self.max_torque)
        costs = square(_normalized(th)) + 0.1 * square(thdot) + 0.001 * square(u)
        push = 3.0 / (self.m * self.l**2) * u
        newthdot = thdot + (3 * self.g / (2 * self.l) * np.sin(th) + push) * self.dt
        newthdot = clip(newthdot, -self.max_speed, self.max_speed)
        newth = th + newthdot * self.dt
        return np.stack([newth, newthdot], -1), -costs, np.zeros(th.shape, np.bool_)

    def observe(self, state: Array) -> Array:
        """(cos θ, sin θ, θ̇), float32, (..., 3)."""
        th, thdot = state[..., 0], state[..., 1]
        return np.stack([np.cos(th), np.sin(th), thdot], -1).astype(np.float32)

    def state_of(self, obs: Array) -> Array:
        """The state that looks like `obs`, (..., 2), with θ in [-π, π]."""
        cos, sin, thdot = np.moveaxis(obs.astype(np.float64), -1, 0)
        return np.stack([np.arctan2(sin, cos), thdot], -1)


def _normalized(x: Array) -> Array:
    """Angles in [-π, π)."""
    angle: Array = ((x + np.pi) % (2 * np.pi)) - np.pi
    return angle
