"""Environments stepped together: numbered episodes of one seed each, one place for bounds, records of what happened."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.random import SeedSequence
from probes import ScriptedEnv, scripted_action
from worlds import FLOATS, Observing, drive

from zoo.envs.envs import Envs, episode_seed
from zoo.envs.make import vectorize
from zoo.envs.normalize import RewardNormalizer
from zoo.envs.replay import replay
from zoo.errors import EnvError


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_an_episode_is_replayable_from_its_seed_and_actions(env_id: str) -> None:
    stream, rng = SeedSequence(5), np.random.default_rng(0)
    envs = Envs(vectorize(env_id, 2), stream)
    envs.reset()
    steps = []
    for _ in range(210):
        number = int(envs.numbers[1])
        action = rng.integers(2, size=2) if env_id == "CartPole-v1" else rng.uniform(-1, 1, (2, 1)).astype(np.float32)
        steps.append((number, action, envs.step(action, np.zeros(2, np.float32)).transition))
    env = gym.make(env_id)
    replayed = None
    for number, action, transition in steps:
        if number != replayed:
            obs, _ = env.reset(seed=episode_seed(stream, number))
            replayed = number
        np.testing.assert_array_equal(transition.obs[1], obs)
        obs, reward, *_ = env.step(envs.spec.decode_action(action)[1])
        np.testing.assert_array_equal(transition.next_obs[1], obs)
        assert transition.reward[1] == pytest.approx(float(reward), rel=1e-6)
    assert replayed > 0, "a second episode was replayed"
    envs.close()


def test_each_episode_gets_the_seed_of_its_number() -> None:
    env = ScriptedEnv(script=None)
    envs = Envs(SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.DISABLED), SeedSequence(7))
    envs.reset()
    for _ in range(30):
        envs.step(scripted_action(envs.obs), np.zeros(1, np.float32))
    assert env.seeds == [episode_seed(SeedSequence(7), number) for number in range(len(env.seeds))]
    assert len(env.seeds) > 5
    envs.close()


def test_neighbouring_seeds_share_no_episode() -> None:
    streams = [SeedSequence(seed).spawn(3)[1] for seed in range(50)]
    seeds = [episode_seed(stream, number) for stream in streams for number in range(8)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_box_actions_are_scaled_and_clipped_in_one_place_and_stored_raw() -> None:
    envs = Envs(vectorize("Pendulum-v1", 2), SeedSequence(0))
    envs.reset()
    given: list[Any] = []
    step = envs.vector.step
    envs.vector.step = lambda action: given.append(action) or step(action)
    raw = np.array([[0.25], [-7.0]], np.float32)
    transition = envs.step(raw, np.zeros(2, np.float32)).transition
    np.testing.assert_array_equal(given[0], [[0.5], [-2.0]])  # Pendulum's torque is bounded by ±2
    np.testing.assert_array_equal(transition.action, raw)
    envs.close()


class Scribbler(gym.Env[Any, Any]):
    """Overwrites the action that it was given, after it moved by it."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = np.zeros(2, np.float32)
        return self.place, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = self.place + action
        action[:] = 1
        return self.place, float(action.sum()), False, False, {}


@pytest.mark.parametrize("space", [spaces.Box(-2, 2, (2,), np.float32), spaces.MultiDiscrete([3, 3])])
def test_an_environment_may_write_into_its_action(space: spaces.Space[Any]) -> None:
    made: Callable[[], Envs] = lambda: Envs(vectorize(partial(Scribbler, space), 2), SeedSequence(0))  # noqa: E731
    envs, rng = made(), np.random.default_rng(0)
    given = [rng.integers(3, size=(2, 2)).astype(space.dtype) for _ in range(5)]
    envs.reset()
    for action in given:
        transition = envs.step(action).transition
        np.testing.assert_array_equal(transition.action, action)
    kept = [envs.spec.decode_action(action) for action in given]
    np.testing.assert_array_equal(envs.actions, kept)
    again = made()
    again.reset()
    again.obs, again.lengths, again.actions = envs.obs, envs.lengths, envs.actions
    assert not len(replay(again))
    np.testing.assert_array_equal(again.actions, kept)  # a replay is an occasion to write, too
    envs.close()
    again.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reward", [np.nan, -np.inf, 1e300, -3.5e38])
def test_a_reward_beyond_float32_is_refused(reward: float) -> None:
    make = partial(Observing, FLOATS, np.zeros(2, np.float32), np.zeros(2, np.float32), reward)
    normalizer = RewardNormalizer(1, 0.9)
    envs = Envs(vectorize(make, 1), SeedSequence(3), reward_normalizer=normalizer)
    envs.reset()
    seed = episode_seed(SeedSequence(3), 0)
    where = f"environment 0, step 1 of the episode with seed {seed}, given action 1: the reward is NaN or infinite as"
    with pytest.raises(EnvError, match=where):
        envs.step(np.ones(1, np.int64))
    assert (float(normalizer.mean), float(normalizer.var)) == (0, 1)
    envs.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_new_episode_that_begins_with_nan_is_refused(mode: AutoresetMode) -> None:
    class Souring(ScriptedEnv):
        def observe(self) -> Any:
            return super().observe() * (np.nan if self.episode == 1 and self.time == 0 else 1)

    envs = Envs(SyncVectorEnv([Souring], autoreset_mode=mode), SeedSequence(3))
    with pytest.raises(EnvError, match=r"step 0 of .* seed \d+.*: the observation is NaN"):
        drive(envs, 20)
    envs.close()
