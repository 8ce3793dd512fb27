"""The cliff: who learns the value of its own clumsy policy keeps away from the edge, who learns the best does not.

Sutton and Barto 2018, example 6.6
"""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from tabular import Array, live, make, tabulate

from zoo.parts.optim import Adam
from zoo.spec import Spec

CELLS, MOVES, COLUMNS = 48, 4, 12
SPEC = Spec(spaces.Discrete(CELLS), spaces.Discrete(MOVES))
EPSILON = 0.1

# Every cell of the row above the cliff, but those above the start and the goal.
EDGE = set(range(2 * COLUMNS + 1, 3 * COLUMNS - 1))


each_seed = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])


def make_env() -> gym.Env[Any, Any]:
    return TimeLimit(gym.make("CliffWalking-v1"), 200)


def walk(q: Array) -> tuple[float, set[int]]:
    """Return and cells of the greedy walk, (48, 4) values, of at most fifty steps."""
    env = gym.make("CliffWalking-v1")
    state, _ = env.reset(seed=0)
    total, cells = 0.0, {int(state)}
    for _ in range(50):
        state, reward, terminated, _, _ = env.step(int(q[state].argmax()))
        total += float(reward)
        cells.add(int(state))
        if terminated:
            break
    return total, cells


def solve(epsilon: float) -> Array:
    """Q of the best ε-greedy policy, by value iteration on the environment's own model."""
    model = gym.make("CliffWalking-v1").unwrapped.P
    outcomes = [model[state][move][0] for state in range(CELLS) for move in range(MOVES)]
    _, successor, reward, terminated = (np.array(field).reshape(CELLS, MOVES) for field in zip(*outcomes, strict=True))
    q = np.zeros((CELLS, MOVES))
    for _ in range(3000):
        values = epsilon * q.mean(-1) + (1 - epsilon) * q.max(-1)
        q = reward + ~terminated * values[successor]
    return q


def is_safe(q: Array) -> bool:
    """Whether the walk reaches the goal by a detour of one or two rows: 15 or 17 steps."""
    total, cells = walk(q)
    return total in (-15, -17) and not cells & EDGE


def is_daring(q: Array) -> bool:
    """Whether the walk reaches the goal by the shortest way, along the whole edge."""
    total, cells = walk(q)
    return total == -13 and cells >= EDGE


def learn(name: str, seed: int, *, num_envs: int, total_steps: int, **settings: Any) -> Array:
    """The table that an algorithm learns; ε is the same all the time."""
    shared = {"gamma": 1.0, "loss": "mse", "epsilon_start": EPSILON, "epsilon_end": EPSILON}
    algo = tabulate(make(name, SPEC, seed, **shared, **settings), np.zeros((CELLS, MOVES)), Adam)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    live(algo, make_env, num_envs=num_envs, total_steps=total_steps, seed=seed)
    torch.set_num_threads(threads)
    return algo.q.table


def test_exact_values_lead_along_the_edge_and_exact_values_of_the_clumsy_do_not() -> None:
    assert is_daring(solve(0.0))
    assert is_safe(solve(EPSILON))


@each_seed
def test_sarsa_takes_the_safe_path(seed: int) -> None:
    settings = {"num_steps": 1, "learning_rate": 0.3, "learning_rate_end": 0.001}
    assert is_safe(learn("sarsa", seed, num_envs=16, total_steps=120_000, **settings))


@each_seed
def test_dqn_walks_along_the_edge(seed: int) -> None:
    settings: dict[str, Any] = {"batch_size": 128, "capacity": 30_000, "train_every": 8, "target_every": 1}
    settings |= {"learning_rate": 0.1, "learning_rate_end": 0.001}
    q = learn("dqn", seed, num_envs=8, total_steps=32_000, **settings)
    assert is_daring(q)
    # It knows the way's value too.
    assert q[36].max() == pytest.approx(-13, abs=0.5)
