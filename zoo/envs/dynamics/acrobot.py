"""Acrobot: two links that hang from a pivot and are to be swung up by a torque at the joint between them.

Sutton 1996, "Generalization in reinforcement learning: successful examples using sparse coarse coding", with the
equations of motion of Sutton & Barto 1998, section 11.3 (gymnasium's "book"):

    d₁ = m₁ lc₁² + m₂ (l₁² + lc₂² + 2 l₁ lc₂ cos θ₂) + I₁ + I₂        d₂ = m₂ (lc₂² + l₁ lc₂ cos θ₂) + I₂
    φ₂ = m₂ lc₂ g cos(θ₁ + θ₂ - π/2)
    φ₁ = -m₂ l₁ lc₂ θ̇₂² sin θ₂ - 2 m₂ l₁ lc₂ θ̇₂ θ̇₁ sin θ₂ + (m₁ lc₁ + m₂ l₁) g cos(θ₁ - π/2) + φ₂
    θ̈₂ = (u + d₂/d₁ φ₁ - m₂ l₁ lc₂ θ̇₁² sin θ₂ - φ₂) / (m₂ lc₂² + I₂ - d₂²/d₁)
    θ̈₁ = -(d₂ θ̈₂ + φ₁) / d₁

State (θ₁, θ₂, θ̇₁, θ̇₂), θ₁ = 0 downwards, θ₂ relative to the first link. One Runge-Kutta step of dt, then angles are
wrapped to [-π, π] and velocities clipped.
"""

from dataclasses import dataclass

import numpy as np
from numpy import cos, pi, sin

from zoo.envs.dynamics.scalars import square
from zoo.spec import Array, clip


@dataclass(frozen=True)
class Acrobot:
    """gymnasium's AcrobotEnv; actions 0, 1 and 2 are the torques -1, 0 and 1."""

    dt = 0.2
    LINK_LENGTH_1 = 1.0
    LINK_MASS_1 = 1.0
    LINK_MASS_2 = 1.0
    LINK_COM_POS_1 = 0.5
    LINK_COM_POS_2 = 0.5
    LINK_MOI = 1.0
    MAX_VEL_1 = 4 * pi
    MAX_VEL_2 = 9 * pi
    AVAIL_TORQUE = np.array([-1.0, 0.0, 1.0])
    GRAVITY = 9.8

    def initial(self, rng: np.random.Generator) -> Array:
        """The state that gymnasium's reset draws from `rng`, (4,), of float32 as there."""
        return rng.uniform(-0.1, 0.1, 4).astype(np.float32)

    def step(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """Successors, (..., 4), rewards, (...), and whether the tip is above the line, (...)."""
        torque = self.AVAIL_TORQUE[action]
        theta1, theta2, dtheta1, dtheta2 = self._runge_kutta(np.moveaxis(state, -1, 0), torque)
        theta1, theta2 = _wrapped(theta1), _wrapped(theta2)
        dtheta1 = clip(dtheta1, -self.MAX_VEL_1, self.MAX_VEL_1)
        dtheta2 = clip(dtheta2, -self.MAX_VEL_2, self.MAX_VEL_2)
        terminated = -cos(theta1) - cos(theta2 + theta1) > 1.0
        reward = np.where(terminated, 0.0, -1.0)
        return np.stack([theta1, theta2, dtheta1, dtheta2], -1), reward, terminated

    def observe(self, state: Array) -> Array:
        """(cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ̇₁, θ̇₂), float32, (..., 6)."""
        theta1, theta2, dtheta1, dtheta2 = np.moveaxis(state, -1, 0)
        parts = [cos(theta1), sin(theta1), cos(theta2), sin(theta2), dtheta1, dtheta2]
        return np.stack(parts, -1).astype(np.float32)

    def state_of(self, obs: Array) -> Array:
        """The state that looks like `obs`, (..., 4), with angles in [-π, π]."""
        cos1, sin1, cos2, sin2, dtheta1, dtheta2 = np.moveaxis(obs.astype(np.float64), -1, 0)
        return np.stack([np.arctan2(sin1, cos1), np.arctan2(sin2, cos2), dtheta1, dtheta2], -1)

    def _runge_kutta(self, y: Array, torque: Array) -> Array:
        """One classical Runge-Kutta step from y, (4, ...)."""
        dt, half = self.dt, self.dt / 2.0
        k1 = self._derivatives(y, torque)
        k2 = self._derivatives(y + half * k1, torque)
        k3 = self._derivatives(y + half * k2, torque)
        k4 = self._derivatives(y + dt * k3, torque)
        after: Array = y + dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        return after

    def _derivatives(self, y: Array, torque: Array) -> Array:
        """(θ̇₁, θ̇₂, θ̈₁, θ̈₂), (4, ...)."""
        m1, m2, l1, g = self.LINK_MASS_1, self.LINK_MASS_2, self.LINK_LENGTH_1, self.GRAVITY
        lc1, lc2, moi = self.LINK_COM_POS_1, self.LINK_COM_POS_2, self.LINK_MOI
        theta1, theta2, dtheta1, dtheta2 = y
        cos2, sin2 = cos(theta2), sin(theta2)
        d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2 + 2 * l1 * lc2 * cos2) + moi + moi
        d2 = m2 * (lc2**2 + l1 * lc2 * cos2) + moi
        phi2 = m2 * lc2 * g * cos(theta1 + theta2 - pi / 2.0)
        phi1 = (
            -m2 * l1 * lc2 * square(dtheta2) * sin2
            - 2 * m2 * l1 * lc2 * dtheta2 * dtheta1 * sin2
            + (m1 * lc1 + m2 * l1) * g * cos(theta1 - pi / 2)
            + phi2
        )
        ddtheta2 = (torque + d2 / d1 * phi1 - m2 * l1 * lc2 * square(dtheta1) * sin2 - phi2) / (
            m2 * lc2**2 + moi - square(d2) / d1
        )
        ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
        return np.stack([dtheta1, dtheta2, ddtheta1, ddtheta2])


def _wrapped(x: Array) -> Array:
    """Angles in [-π, π], by whole turns."""
    while (above := x > pi).any():
        x = np.where(above, x - 2 * pi, x)
    while (below := x < -pi).any():
        x = np.where(below, x + 2 * pi, x)
    return x
