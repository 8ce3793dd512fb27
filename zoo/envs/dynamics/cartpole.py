"""CartPole: a pole on a cart that is pushed left or right.

Barto, Sutton & Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning control problems",
without friction; the equations are those of Florian 2005, "Correct equations for the dynamics of the cart-pole system":

    a  = (F + m l θ̇² sin θ) / (M + m)
    θ̈  = (g sin θ - a cos θ) / (l (4/3 - m cos²θ / (M + m)))
    ẍ  = a - m l θ̈ cos θ / (M + m)

State (x, ẋ, θ, θ̇) in m, m/s, rad, rad/s; l is half of the pole's length. Euler steps of τ.
"""

import math
from dataclasses import dataclass

import numpy as np

from zoo.spaces import Array


@dataclass(frozen=True)
class CartPole:
    """gymnasium's CartPoleEnv; actions 0 and 1 push left and right."""

    sutton_barto_reward: bool = False  # -1 for the fall and 0 else, rather than 1 for every step

    gravity = 9.8
    masscart = 1.0
    masspole = 0.1
    total_mass = masspole + masscart
    length = 0.5
    polemass_length = masspole * length
    force_mag = 10.0
    tau = 0.02
    theta_threshold_radians = 12 * 2 * math.pi / 360
    x_threshold = 2.4

    def initial(self, rng: np.random.Generator) -> Array:
        """The state that gymnasium's reset draws from `rng`, (4,)."""
        return rng.uniform(-0.05, 0.05, 4)

    def step(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """Successors, (..., 4), rewards, (...), and whether the pole fell or the cart left its track, (...)."""
        x, x_dot, theta, theta_dot = (state[..., i] for i in range(4))
        force = np.where(action == 1, self.force_mag, -self.force_mag)
        cos, sin = np.cos(theta), np.sin(theta)
        temp = (force + self.polemass_length * np.square(theta_dot) * sin) / self.total_mass
        inertia = self.length * (4.0 / 3.0 - self.masspole * np.square(cos) / self.total_mass)
        thetaacc = (self.gravity * sin - cos * temp) / inertia
        xacc = temp - self.polemass_length * thetaacc * cos / self.total_mass
        x, x_dot = x + self.tau * x_dot, x_dot + self.tau * xacc
        theta, theta_dot = theta + self.tau * theta_dot, theta_dot + self.tau * thetaacc
        terminated = (np.abs(x) > self.x_threshold) | (np.abs(theta) > self.theta_threshold_radians)
        reward = np.where(terminated, -1.0, 0.0) if self.sutton_barto_reward else np.ones_like(x)
        return np.stack([x, x_dot, theta, theta_dot], -1), reward, terminated

    def observe(self, state: Array) -> Array:
        """The state, float32, (..., 4)."""
        return state.astype(np.float32)

    def state_of(self, obs: Array) -> Array:
        """The state that `obs` is, (..., 4)."""
        return obs.astype(np.float64)
