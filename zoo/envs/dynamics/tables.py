"""The exact model of environments with few states: gymnasium's table of transitions as arrays."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from zoo.errors import UserError
from zoo.spaces import Array


class Tables(NamedTuple):
    """What each of A actions may lead to from each of S states: K outcomes or fewer, and others of probability 0."""

    next_state: Array  # (S, A, K), int64
    probability: Array  # (S, A, K), the sum over K is 1
    reward: Array  # (S, A, K)
    terminated: Array  # (S, A, K)


def tables(env: gym.Env[Any, Any]) -> Tables:
    """The table of FrozenLake, CliffWalking and Taxi: P[s][a] lists (probability, next state, reward, terminated).

    Raises UserError for an environment without one, or whose steps depend on more than the table's state.
    """
    bare: Any = env.unwrapped
    outcomes = getattr(bare, "P", None)
    if not isinstance(outcomes, dict):
        raise UserError(f"{env} has no table of transitions, as FrozenLake, CliffWalking and Taxi have")
    if getattr(bare, "fickle_passenger", False):
        raise UserError(
            f"{env}: a fickle passenger changes the destination beside the table; leave out fickle_passenger"
        )
    num_states, num_actions = len(outcomes), len(outcomes[0])
    shape = num_states, num_actions, max(len(row[a]) for row in outcomes.values() for a in row)
    probability, reward = np.zeros(shape), np.zeros(shape)
    next_state, terminated = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for s, a, k in np.ndindex(shape):
        if k < len(outcomes[s][a]):
            at = s, a, k
            probability[at], next_state[at], reward[at], terminated[at] = outcomes[s][a][k]
    return Tables(next_state, probability, reward, terminated)
