"""Fast environments, envpool's above all, are gymnasium's tasks."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.random import SeedSequence

from zoo.envs.envs import Envs
from zoo.envs.ids import make_env
from zoo.envs.make import vectorize
from zoo.envs.pool import MUJOCO, POOLED
from zoo.errors import UserError


def acrobot_state(obs: Any) -> Any:
    return np.array([np.arctan2(obs[1], obs[0]), np.arctan2(obs[3], obs[2]), obs[4], obs[5]])


STATES: dict[str, Callable[[Any], Any]] = {
    "CartPole-v1": np.array,
    "MountainCar-v0": tuple,
    "MountainCarContinuous-v0": np.array,
    "Pendulum-v1": lambda obs: np.array([np.arctan2(obs[1], obs[0]), obs[2]]),
    "Acrobot-v1": acrobot_state,
}


def replay_in(env: gym.Env[Any, Any], obs: Any, action: Any) -> tuple[Any, ...]:
    """One step of the bare environment from the state that shows as `obs`."""
    world: Any = env.unwrapped
    env.reset(seed=0)
    if world.spec.id in STATES:
        world.state = STATES[world.spec.id](obs.astype(np.float64))
    else:  # MuJoCo: all but the first position, then velocities
        world.set_state(np.append(0, obs[: world.model.nq - 1]), obs[world.model.nq - 1 :])
    next_obs, reward, terminated, *_ = world.step(action)
    return next_obs, reward, terminated


@pytest.mark.parametrize(
    ("env_id", "vec"), [("CartPole-v1", "native"), *((each, "envpool") for each in sorted(POOLED))]
)
def test_fast_environments_are_the_same_task(env_id: str, vec: str) -> None:
    """Each transition is what gymnasium's environment makes of the same state; episodes start and end as there."""
    if vec == "envpool":
        pytest.importorskip("envpool")
    if env_id in MUJOCO:
        pytest.importorskip("mujoco")
    envs = Envs(vectorize(env_id, 16, vec), SeedSequence(0))
    bare = make_env(env_id)
    limit = bare.spec.max_episode_steps
    rng, ended = np.random.default_rng(0), []
    starts = [envs.reset()]
    for _ in range(1100):
        shape = bare.action_space.shape
        action = rng.uniform(-1, 1, (16, *shape)).astype(np.float32) if shape else rng.integers(2, size=16)
        t, alive, episodes, _ = envs.step(action)
        assert alive.all()  # no row is spent on a reset
        starts.append(envs.obs[t.terminated | t.truncated])
        ended += episodes
        i = int(rng.integers(16))
        if env_id in MUJOCO and np.abs(t.obs[i]).max() > 9.9:  # velocities are shown up to 10
            continue
        obs, reward, terminated = replay_in(bare, t.obs[i], envs.spec.decode_action(action)[i])
        np.testing.assert_allclose(t.next_obs[i], obs, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(t.reward[i], reward, rtol=1e-4, atol=1e-4)
        assert t.terminated[i] == terminated
    assert ended
    assert all(episode.length <= limit for episode in ended)
    first = np.concatenate(starts)
    theirs = np.array([bare.reset(seed=seed)[0] for seed in range(400)])
    low, high = theirs.min(0), theirs.max(0)
    slack = 0.1 * (high - low) + 1e-6
    assert ((first >= low - slack) & (first <= high + slack)).all()
    envs.close()


def test_envpools_pendulum_is_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("envpool")
    with pytest.raises(UserError, match="envpool's Pendulum-v1 is not known to be gymnasium's task"):
        vectorize("Pendulum-v1", 2, "envpool")
    monkeypatch.setattr("zoo.envs.pool.POOLED", {"Pendulum-v1"})
    with pytest.raises(AssertionError):
        test_fast_environments_are_the_same_task("Pendulum-v1", "envpool")


def test_envpool_makes_environments_of_ids_alone() -> None:
    with pytest.raises(UserError, match="envpool makes environments of ids"):
        vectorize(partial(make_env, "CartPole-v1"), 2, "envpool")


def test_a_missing_envpool_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[envpool\]'"):
        vectorize("CartPole-v1", 2, "envpool")
