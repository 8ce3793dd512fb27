"""Tables are gymnasium's own, entry by entry, and what its environments do."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from zoo.envs.dynamics.tables import tables
from zoo.envs.ids import make_env
from zoo.errors import UserError

TASKS: dict[str, dict[str, Any]] = {
    "FrozenLake-v1": {},
    "FrozenLake8x8-v1": {"is_slippery": False},
    "CliffWalking-v1": {},
    "CliffWalkingSlippery-v1": {},
    "Taxi-v4": {"is_rainy": True},
}
each_task = pytest.mark.parametrize("env_id", TASKS)


@each_task
def test_tables_hold_every_outcome(env_id: str) -> None:
    env = make_env(env_id, **TASKS[env_id])
    table, outcomes = tables(env), env.unwrapped.P  # type: ignore[attr-defined]
    states, actions = env.observation_space.n, env.action_space.n  # type: ignore[attr-defined]
    assert all(part.shape[:2] == (states, actions) for part in table)
    np.testing.assert_allclose(table.probability.sum(-1), 1, rtol=1e-12)
    values = np.random.default_rng(0).normal(size=states)
    for s in range(states):
        for a in range(actions):
            listed = outcomes[s][a]
            found = list(zip(*(part[s, a] for part in table), strict=True))
            assert [(p, t, r, end) for t, p, r, end in found[: len(listed)]] == [tuple(each) for each in listed]
            assert all(p == 0 for _, p, _, _ in found[len(listed) :])
            expected = sum(p * (r + 0.9 * (not end) * values[t]) for p, t, r, end in listed)
            q = table.probability * (table.reward + 0.9 * ~table.terminated * values[table.next_state])
            assert q[s, a].sum() == pytest.approx(expected)


@each_task
def test_steps_are_drawn_from_the_tables(env_id: str) -> None:
    env, rng = make_env(env_id, **TASKS[env_id]), np.random.default_rng(0)
    table, count = tables(env), 2000
    for _ in range(5):
        state, action = int(rng.integers(table.reward.shape[0])), int(rng.integers(table.reward.shape[1]))
        expected: dict[Any, float] = {}
        for outcome in zip(*(part[state, action] for part in table), strict=True):
            next_state, p, *rest = (each.item() for each in outcome)
            expected[(next_state, *rest)] = expected.get((next_state, *rest), 0) + p
        found = draw(env, state, action, count)
        assert found.keys() <= {key for key, p in expected.items() if p > 0}
        for key, p in expected.items():
            assert found.get(key, 0) / count == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / count))


def draw(env: gym.Env[Any, Any], state: int, action: int, count: int) -> dict[Any, int]:
    """How often each (next state, reward, end) came."""
    bare: Any = env.unwrapped
    bare.reset(seed=0)
    found: dict[Any, int] = {}
    for _ in range(count):
        bare.s = state
        next_state, reward, terminated, *_ = bare.step(action)
        key = (int(next_state), float(reward), bool(terminated))
        found[key] = found.get(key, 0) + 1
    return found


def test_control_another_table_shows() -> None:
    slippery, dry = (tables(make_env("FrozenLake-v1", is_slippery=each)) for each in (True, False))
    assert slippery.probability.shape == (16, 4, 3)
    assert dry.probability.shape == (16, 4, 1)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("CartPole-v1", {}, "no table of transitions, as FrozenLake"),
        ("Taxi-v4", {"fickle_passenger": True}, "leave out fickle_passenger"),
    ],
)
def test_what_a_table_cannot_tell_is_refused(env_id: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tables(make_env(env_id, **kwargs))
