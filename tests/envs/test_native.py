"""Environments stepped as arrays are those of `sync`."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence

from zoo import settings
from zoo.envs.dynamics import DYNAMICS
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.envs.native import NativeEnvs
from zoo.envs.task import Task
from zoo.errors import UserError
from zoo.protocol import Transition


def play_both(env_id: str, num_steps: int, **kwargs: Any) -> list[int]:
    """Play the same actions in native environments and in sync ones, which must do the same; returns all lengths."""
    task = Task(env_id, kwargs)
    native, sync = (Envs(vectorize(task, 4, vec), SeedSequence(3)) for vec in ("native", "sync"))
    assert isinstance(native.vector.vector, NativeEnvs)
    assert native.mode is AutoresetMode.DISABLED
    native.spec.check_same(sync.spec)
    assert native.vector.action_space == sync.vector.action_space
    rng, lengths = np.random.default_rng(0), []
    np.testing.assert_array_equal(native.reset(), sync.reset())
    for t in range(num_steps):
        action = some_action(env_id, sync, rng, is_random=t < num_steps // 4)
        one, other = (envs.step(action, np.zeros(4, np.float32)) for envs in (native, sync))
        for name, mine, theirs in zip(Transition._fields, one.transition, other.transition, strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
        assert one.alive.all()
        assert one.episodes == other.episodes
        np.testing.assert_array_equal(native.obs, sync.obs)
        lengths += [episode.length for episode in one.episodes]
    native.close()
    sync.close()
    return lengths


def some_action(env_id: str, envs: Envs, rng: np.random.Generator, *, is_random: bool) -> Any:
    """Random actions, then, where it can, a simple rule that comes to an end of its own, or to the time limit."""
    if not envs.spec.action_space.shape:
        sizes = envs.spec.action_sizes
        drawn: Any = rng.integers(sizes[0], size=4)
    else:
        drawn = rng.uniform(-1.2, 1.2, (4, 1)).astype(np.float32)
    if is_random or env_id == "Pendulum-v1":
        return drawn
    if env_id.startswith("CartPole"):
        rule = envs.obs[:, 2] + 0.3 * envs.obs[:, 3] > 0  # keeps the pole up
    elif env_id == "Acrobot-v1":
        rule = 1 + np.sign(envs.obs[:, 5])  # the torque does work, so it swings up
    elif env_id == "MountainCar-v0":
        rule = 1 + np.sign(envs.obs[:, 1])
    else:
        rule = np.sign(envs.obs[:, 1:]).astype(np.float32)
    return np.where(rng.random(drawn.shape) < 0.01, drawn, rule.astype(drawn.dtype))


@pytest.mark.parametrize(
    ("env_id", "num_steps", "shortest", "limit"),
    [
        ("Acrobot-v1", 2200, 120, 500),
        ("CartPole-v1", 1600, 50, 500),
        ("MountainCar-v0", 1000, 180, 200),
        ("MountainCarContinuous-v0", 4400, 200, 999),
        ("Pendulum-v1", 450, 200, 200),
    ],
)
def test_native_environments_are_those_of_sync_episode_for_episode(
    env_id: str, num_steps: int, shortest: int, limit: int
) -> None:
    lengths = play_both(env_id, num_steps)
    assert len(lengths) >= 8
    assert max(lengths) == limit  # the time limit
    assert min(lengths) <= shortest  # an end of its own, but for Pendulum's


def test_arguments_reach_the_dynamics() -> None:
    assert max(play_both("Pendulum-v1", 60, g=9.81, max_episode_steps=17)) == 17
    assert play_both("CartPole-v1", 300, sutton_barto_reward=True)


def test_control_other_dynamics_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DYNAMICS["Pendulum-v1"], "dt", 0.05 + 1e-7)
    with pytest.raises(AssertionError):
        play_both("Pendulum-v1", 60)


def test_each_environment_has_the_seed_that_it_is_given() -> None:
    vector = vectorize("Acrobot-v1", 4, "native")
    first, _ = vector.reset(seed=[7, 7, 7, 8])  # type: ignore[arg-type]
    assert (first[0] == first[1:3]).all()
    assert (first[0] != first[3]).any()
    moved, *_ = vector.step(np.array([0, 1, 2, 1]))
    again, _ = vector.reset(seed=[9, 7, 9, 9], options={"reset_mask": np.array([False, True, False, False])})  # type: ignore[arg-type]
    np.testing.assert_array_equal(again[1], first[0])
    np.testing.assert_array_equal(again[[0, 2, 3]], moved[[0, 2, 3]])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        (
            "Pendulum-v1",
            {"render_mode": "rgb_array"},
            "native of Pendulum-v1 has no argument 'render_mode'.*--vec sync",
        ),
        ("Pendulum-v1", {"gravity": 3.0}, "Pendulum-v1 cannot be made with .*gravity"),
        ("FrozenLake-v1", {}, "FrozenLake-v1 has no vector environment of its own; use --vec sync"),
    ],
)
def test_what_it_does_not_know_is_refused(env_id: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        vectorize(Task(env_id, kwargs), 2, "native")


def test_auto_chooses_no_other_ids() -> None:
    assert DYNAMICS.keys() >= settings.NATIVE
