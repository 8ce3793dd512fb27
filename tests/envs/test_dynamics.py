"""The dynamics are gymnasium's: its environments are the reference, transition by transition."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import seeding
from numpy.typing import NDArray

from zoo.envs.dynamics import DYNAMICS, Dynamics, MountainCar, Pendulum, successors

Array = NDArray[Any]
COUNT = 10_000

# States that are drawn evenly: beyond the bounds at which a task ends, a wall stops, or an angle has turned.
BOUNDS: dict[str, tuple[list[float], list[float]]] = {
    "Acrobot-v1": ([-np.pi, -np.pi, -4 * np.pi, -9 * np.pi], [np.pi, np.pi, 4 * np.pi, 9 * np.pi]),
    "CartPole-v1": ([-2.6, -3, -0.25, -3], [2.6, 3, 0.25, 3]),
    "MountainCar-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "MountainCarContinuous-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "Pendulum-v1": ([-20, -8], [20, 8]),
}
# What gymnasium's step expects of its own state.
KINDS: dict[str, Callable[[Array], Any]] = {"MountainCar-v0": tuple}

each_id = pytest.mark.parametrize("env_id", BOUNDS)


def some_states(env_id: str, count: int = COUNT) -> Array:
    low, high = map(np.array, BOUNDS[env_id])
    states = np.random.default_rng(0).uniform(low, high, (count, len(low)))
    if env_id == "MountainCarContinuous-v0":  # whose states are of float32 but for an episode's first
        states[::2] = states[::2].astype(np.float32)
    return states


def some_actions(space: gym.Space[Any], count: int = COUNT) -> Array:
    """Actions of every kind; of a Box also some on its bounds and some beyond."""
    rng = np.random.default_rng(1)
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=count)
    assert isinstance(space, gym.spaces.Box)
    actions = rng.uniform(1.2 * space.low, 1.2 * space.high, (count, *space.shape)).astype(np.float32)
    actions[::10] = space.high
    return actions


def gymnasiums(env: gym.Env[Any, Any], state: Array, action: Any) -> tuple[Array, Array, float, bool]:
    """The state, the observation, the reward and the end that gymnasium makes of a state and an action."""
    bare: Any = env.unwrapped
    env_id = env.spec.id if env.spec else ""
    bare.reset(seed=0)
    if env_id == "MountainCarContinuous-v0" and (state.astype(np.float32) == state).all():
        state = state.astype(np.float32)
    bare.state = KINDS.get(env_id, np.array)(state)
    obs, reward, terminated, *_ = bare.step(action)
    return np.array(bare.state, np.float64), obs, reward, terminated


def both(env_id: str, count: int, dynamics: Dynamics | None = None, **kwargs: Any) -> tuple[list[Array], list[Array]]:
    """Next states, observations, rewards and ends of random transitions: the dynamics' and gymnasium's."""
    env = gym.make(env_id, **kwargs)
    dynamics = DYNAMICS[env_id](**kwargs) if dynamics is None else dynamics
    states, actions = some_states(env_id, count), some_actions(env.action_space, count)
    next_states, rewards, terminated = dynamics.step(states, actions)
    theirs = [gymnasiums(env, state, action) for state, action in zip(states, actions, strict=True)]
    mine = [next_states, dynamics.observe(next_states), rewards, terminated]
    return mine, [np.array(part) for part in zip(*theirs, strict=True)]


def assert_same(mine: list[Array], theirs: list[Array]) -> None:
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-12, atol=0)
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(mine[2], theirs[2], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(mine[3], theirs[3])


@each_id
def test_ten_thousand_random_transitions_are_gymnasiums(env_id: str) -> None:
    mine, theirs = both(env_id, COUNT)
    assert mine[0].dtype == np.float64
    assert theirs[3].any() == (env_id != "Pendulum-v1")
    assert_same(mine, theirs)
    # Where they are the same bit for bit, whole episodes are, and `--vec auto` may choose without changing a run.
    for own, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("CartPole-v1", {"sutton_barto_reward": True}),
        ("MountainCar-v0", {"goal_velocity": 0.03}),
        ("MountainCarContinuous-v0", {"goal_velocity": 0.03}),
        ("Pendulum-v1", {"g": 9.81}),
    ],
)
def test_arguments_mean_what_they_mean_to_gymnasium(env_id: str, kwargs: dict[str, Any]) -> None:
    assert_same(*both(env_id, 1000, **kwargs))
    with pytest.raises(AssertionError):
        assert_same(*both(env_id, 1000, DYNAMICS[env_id](), **kwargs))


@pytest.mark.parametrize(
    ("env_id", "constant", "value"),
    [
        ("Acrobot-v1", "LINK_MOI", 1.0 + 1e-9),
        ("CartPole-v1", "tau", 0.02 + 1e-9),
        ("MountainCar-v0", "gravity", 0.0025 + 1e-9),
        ("MountainCarContinuous-v0", "power", 0.0015 + 1e-9),
        ("Pendulum-v1", "dt", 0.05 + 1e-9),
    ],
)
def test_control_a_constant_that_is_off_shows(
    env_id: str, constant: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DYNAMICS[env_id], constant, value)
    with pytest.raises(AssertionError):
        assert_same(*both(env_id, 1000))


@each_id
def test_episodes_begin_as_gymnasiums_of_the_same_seed(env_id: str) -> None:
    env, dynamics = gym.make(env_id), DYNAMICS[env_id]()
    for seed in range(100):
        obs, _ = env.reset(seed=seed)
        rng, _ = seeding.np_random(seed)
        state, bare = dynamics.initial(rng), env.unwrapped
        np.testing.assert_array_equal(state, bare.state)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(dynamics.observe(state), obs)


@each_id
def test_a_state_of_an_observation_looks_like_it(env_id: str) -> None:
    dynamics = DYNAMICS[env_id]()
    obs = dynamics.observe(some_states(env_id))
    assert obs.dtype == np.float32
    assert dynamics.state_of(obs).dtype == np.float64
    np.testing.assert_allclose(dynamics.observe(dynamics.state_of(obs)), obs, rtol=1e-6, atol=1e-6)


@each_id
def test_any_leading_shape_is_a_batch(env_id: str) -> None:
    env, dynamics = gym.make(env_id), DYNAMICS[env_id]()
    states, actions = some_states(env_id, 24), some_actions(env.action_space, 24)
    flat = dynamics.step(states, actions)
    deep = dynamics.step(states.reshape(2, 3, 4, -1), actions.reshape(2, 3, 4, *actions.shape[1:]))
    alone = [dynamics.step(state, action) for state, action in zip(states, actions, strict=True)]
    for one, other, single in zip(flat, deep, zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(one, other.reshape(one.shape))
        np.testing.assert_array_equal(one, np.array(single))
    np.testing.assert_array_equal(dynamics.observe(deep[0]).reshape(24, -1), dynamics.observe(flat[0]))


@each_id
def test_successors_are_those_of_every_action(env_id: str) -> None:
    env, dynamics = gym.make(env_id), DYNAMICS[env_id]()
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    actions = np.arange(int(env.action_space.n)) if discrete else np.array([[-1], [0.3]], np.float32)  # type: ignore[attr-defined]
    obs = dynamics.observe(some_states(env_id, 50))
    next_obs, rewards, terminated = successors(dynamics, obs, actions)
    for i in range(len(obs)):
        for j, action in enumerate(actions):
            _, their_obs, reward, end = gymnasiums(env, dynamics.state_of(obs)[i], action)
            np.testing.assert_allclose(next_obs[i, j], their_obs, rtol=1e-6, atol=1e-6)
            assert (rewards[i, j], terminated[i, j]) == (pytest.approx(reward, rel=1e-6), end)


def test_angles_count_turns_in_pendulum_and_are_wrapped_in_acrobot() -> None:
    state, _, _ = Pendulum().step(np.array([[7.0, 8.0]]), np.array([[2.0]], np.float32))
    assert state[0, 0] > 2 * np.pi
    assert abs(Pendulum().state_of(Pendulum().observe(state))[0, 0]) < np.pi
    state, _, _ = DYNAMICS["Acrobot-v1"]().step(np.array([[3.1, -3.1, 12.0, -28.0]]), np.array([1]))
    assert (np.abs(state[0, :2]) <= np.pi).all()


def test_the_wall_stops_a_mountain_car() -> None:
    state, reward, terminated = MountainCar().step(np.array([[-1.19, -0.07]]), np.array([0]))
    assert (state.tolist(), reward.tolist(), terminated.tolist()) == ([[-1.2, 0.0]], [-1.0], [False])
