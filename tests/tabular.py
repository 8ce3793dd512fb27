"""A three-state MDP that linear algebra solves exactly, and what it takes to learn it from tables."""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from numpy.random import SeedSequence
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo import registry
from zoo.envs.envs import Envs
from zoo.envs.make import EnvLike, vectorize
from zoo.protocol import Progress, Segment, Transition
from zoo.spec import Spec

Array = NDArray[np.float64]

# P[s, a, s'], R[s, a], a discount, and two policies π[s, a]. All probabilities are tenths.
P = np.array([[[0.7, 0.3, 0], [0, 0.2, 0.8]], [[0.1, 0.6, 0.3], [0.5, 0, 0.5]], [[0.2, 0.2, 0.6], [0, 0.9, 0.1]]])
R = np.array([[1, -0.5], [0, 2], [0.5, -1]])
GAMMA = 0.9
PI = np.array([[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
MU = np.array([[0.5, 0.5], [0.6, 0.4], [0.1, 0.9]])
STATES, ACTIONS = R.shape

SPEC = Spec(spaces.Discrete(STATES), spaces.Discrete(ACTIONS))
NOW = Progress(1, 1)


# Exact solutions.


def value(policy: Array) -> Array:
    """V^π = (I - γ P_π)⁻¹ r_π, (S,)."""
    dynamics = np.einsum("sa,sat->st", policy, P)
    return np.linalg.solve(np.eye(STATES) - GAMMA * dynamics, (policy * R).sum(-1))


def action_value(values: Array) -> Array:
    """Q(s, a) = R + γ P V, (S, A)."""
    return R + GAMMA * P @ values


def soft(best: Iterable[int], epsilon: float) -> Array:
    """The ε-greedy policy around one action for each state, (S, A)."""
    return epsilon / ACTIONS + (1 - epsilon) * np.eye(ACTIONS)[list(best)]


def soft_optimum(epsilon: float) -> Array:
    """Q of the best ε-greedy policy, found among all of them, (S, A); Q* for ε = 0."""
    candidates = [value(soft(best, epsilon)) for best in product(range(ACTIONS), repeat=STATES)]
    return action_value(np.max(candidates, 0))


def discounted_visits(policy: Array, start: int = 0) -> Array:
    """d_γ(s) = Σ_t γ^t Pr(s_t = s), not normalised, (S,)."""
    dynamics = np.einsum("sa,sat->st", policy, P)
    return np.linalg.solve(np.eye(STATES) - GAMMA * dynamics.T, np.eye(STATES)[start])


# Data.


class M3Env(gym.Env[Any, Any]):
    """The MDP as an environment: it starts in state 0, never terminates, and is cut off after `limit` steps."""

    observation_space = spaces.Discrete(STATES)
    action_space = spaces.Discrete(ACTIONS)

    def __init__(self, limit: int = 20) -> None:
        self.limit = limit

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.time = 0, 0
        return np.int64(self.state), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(R[self.state, action])
        self.state = int(self.np_random.choice(STATES, p=P[self.state, action]))
        self.time += 1
        return np.int64(self.state), reward, False, self.time == self.limit, {}


def tenths(probabilities: Array) -> NDArray[np.int64]:
    """Each index as often as it has tenths of probability, (10,)."""
    counts = np.rint(10 * probabilities).astype(np.int64)
    assert np.allclose(10 * probabilities, counts)
    assert counts.sum() == 10
    return np.repeat(np.arange(len(counts)), counts)


def outcomes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """obs, action, reward, next_obs (60,): ten rows for each (s, a), their successors exactly as P has them."""
    pairs = list(product(range(STATES), range(ACTIONS)))
    obs, action = (torch.tensor(index).repeat_interleave(10) for index in zip(*pairs, strict=True))
    next_obs = torch.from_numpy(np.concatenate([tenths(P[pair]) for pair in pairs]))
    return obs, action, torch.from_numpy(R)[obs, action], next_obs


def drawn(rows: Transition[Tensor]) -> Segment:
    """Rows, (n, N, ...), as a sample of a replay that is not prioritised."""
    size = rows.reward.shape[1]
    return Segment(rows, weight=torch.ones(size), slot=torch.arange(size), error=torch.zeros(size))


# Function approximation.


class Table(nn.Linear):
    """A number for each observation and column, as a linear layer over one-hot observations; (N,) to (N, columns)."""

    def __init__(self, table: Any) -> None:
        table = torch.as_tensor(table, dtype=torch.get_default_dtype())
        super().__init__(*table.shape, bias=False)
        with torch.no_grad():
            self.weight.copy_(table.T)

    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(F.one_hot(obs, self.in_features).to(self.weight.dtype))

    @property
    def table(self) -> Array:
        """The numbers, (observations, columns)."""
        return self.weight.detach().numpy().T.copy()


class Descent(nn.Module):
    """Plain gradient descent in the place of an optimiser; it keeps the last gradient."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.params = list(parameters)

    def minimize(self, loss: Tensor, learning_rate: float | Tensor) -> Tensor:
        self.gradient = torch.autograd.grad(loss, self.params)
        with torch.no_grad():
            for parameter, gradient in zip(self.params, self.gradient, strict=True):
                parameter -= learning_rate * gradient
        return torch.cat([gradient.flatten() for gradient in self.gradient]).norm()


class Still(nn.Module):
    """An optimiser that leaves everything as it is."""

    def minimize(self, loss: Tensor, learning_rate: Tensor) -> Tensor:
        return torch.zeros(())


def make(name: str, spec: Spec, seed: int = 0, **settings: Any) -> Any:
    """An algorithm of the registry."""
    return registry.make(name, spec, registry.load_class(name).Config(**settings), SeedSequence(seed))


NOTHING = np.zeros((STATES, ACTIONS))


def tabulate(algo: Any, table: Any = NOTHING, optimizer: Callable[[Iterable[nn.Parameter]], Any] = Descent) -> Any:
    """Give a value-based algorithm tables for Q and Q̄, and the optimiser that goes with them."""
    algo.q, algo.target_q = Table(table), Table(table).requires_grad_(False)
    algo.optimizer = optimizer(algo.q.parameters())
    return algo


def live(algo: Any, env: EnvLike, *, num_envs: int, total_steps: int, seed: int) -> None:
    """Act, store and learn, as a run does."""
    envs = Envs(vectorize(env, num_envs), SeedSequence(seed))
    envs.reset()
    buffer = algo.make_buffer(envs.spec, num_envs)
    for step in range(0, total_steps, num_envs):
        with torch.inference_mode():
            action, _ = algo.act(torch.from_numpy(envs.obs), Progress(step, total_steps))
        transition, alive, *_ = envs.step(action.numpy())
        buffer.add(transition, alive)
        for batch in buffer.batches():
            algo.update(batch, Progress(step + num_envs, total_steps))
            buffer.learned(batch)
