"""The dynamics of gymnasium's classic environments: transitions as pure functions of batches of states and actions.

They are written in gymnasium's order of operations and in its types, so that their numbers are its numbers.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from zoo.envs.dynamics.acrobot import Acrobot
from zoo.envs.dynamics.cartpole import CartPole
from zoo.envs.dynamics.mountain_car import MountainCar
from zoo.envs.dynamics.mountain_car_continuous import MountainCarContinuous
from zoo.envs.dynamics.pendulum import Pendulum
from zoo.spaces import Array


class Dynamics(Protocol):
    """What an environment does; the fields of one are the arguments that gymnasium's has, attributes its constants.

    States are float64, (..., S). Actions are as in the action space: (...) of a Discrete, (..., A) of a Box.
    """

    def initial(self, rng: np.random.Generator) -> Array:
        """The state that gymnasium's reset draws from `rng`, (S,)."""
        ...

    def step(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """Successors, (..., S), rewards, (...), and whether the task ends there, (...)."""
        ...

    def observe(self, state: Array) -> Array:
        """Observations, float32, (..., O)."""
        ...

    def state_of(self, obs: Array) -> Array:
        """States that look like `obs`, (..., S): rounded as it is, angles in [-π, π]."""
        ...


DYNAMICS: dict[str, Callable[..., Dynamics]] = {
    "Acrobot-v1": Acrobot,
    "CartPole-v0": CartPole,
    "CartPole-v1": CartPole,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous,
    "Pendulum-v1": Pendulum,
}


def successors(dynamics: Dynamics, obs: Array, actions: Array) -> tuple[Array, Array, Array]:
    """What each of A actions leads to from each of N observations.

    `obs` is (N, O), `actions` (A,) or (A, D). Returns next observations, (N, A, O), rewards, (N, A), and whether the
    task ends there, (N, A).
    """
    state = dynamics.state_of(obs)[:, None]  # (N, 1, S)
    state = np.repeat(state, len(actions), 1)  # (N, A, S)
    action = np.broadcast_to(actions, (len(obs), *actions.shape))  # (N, A, ...)
    next_state, reward, terminated = dynamics.step(state, action)
    return dynamics.observe(next_state), reward, terminated
