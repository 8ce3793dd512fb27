"""Running statistics: of what is acted on, in every autoreset mode, as Stable-Baselines3 has them."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.random import SeedSequence
from probes import ScriptedEnv, scripted_action
from small import RandomEnv, small
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from worlds import NUM_ENVS, STEPS, by_time, drive, truth

import zoo
from zoo.envs.envs import Envs
from zoo.envs.normalize import ObsNormalizer, RewardNormalizer
from zoo.errors import UserError


def test_statistics_are_those_of_all_that_is_acted_on_and_whiten_the_final_observation_too() -> None:
    plain, whitened = (SyncVectorEnv([ScriptedEnv], autoreset_mode=AutoresetMode.DISABLED) for _ in range(2))
    normalizer = ObsNormalizer(plain.single_observation_space)
    raw, envs = Envs(plain, SeedSequence(0)), Envs(whitened, SeedSequence(0), obs_normalizer=normalizer)
    seen = [raw.reset()]
    envs.reset()
    for _ in range(20):
        action = scripted_action(raw.obs)
        expected = raw.step(action, np.zeros(1, np.float32)).transition
        before = normalizer(expected.next_obs)
        found = envs.step(action, np.zeros(1, np.float32)).transition
        seen.append(raw.obs)
        ended = expected.terminated | expected.truncated
        np.testing.assert_allclose(found.next_obs, before if ended else normalizer(expected.next_obs), atol=1e-6)
        rows = np.concatenate(seen).astype(np.float64)
        np.testing.assert_allclose(normalizer.mean.numpy(), rows.mean(0), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(normalizer.var.numpy(), rows.var(0), rtol=1e-2, atol=1e-2)


def whitened(mode: AutoresetMode, copies: int) -> Envs:
    vector = SyncVectorEnv([partial(ScriptedEnv, copy) for copy in range(copies)], autoreset_mode=mode)
    moments = ObsNormalizer(vector.single_observation_space), RewardNormalizer(copies, 0.9)
    return Envs(vector, SeedSequence(0), obs_normalizer=moments[0], reward_normalizer=moments[1])


def test_one_environment_is_whitened_alike_in_every_mode() -> None:
    """To the bit: transitions and statistics, after each step."""
    found = {}
    for mode in AutoresetMode:
        envs = whitened(mode, 1)
        found[mode] = drive(envs, STEPS)
        found[mode] += [[tuple(getattr(envs.obs_normalizer, name).tolist()) for name in ("mean", "var")]]
        found[mode] += [[float(envs.reward_normalizer.var)]]  # type: ignore[union-attr]
        assert sum(t[4] or t[5] for t in found[mode][0]) > STEPS // 4
        envs.close()
    assert found[AutoresetMode.DISABLED] == found[AutoresetMode.SAME_STEP] == found[AutoresetMode.NEXT_STEP]


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_statistics_take_in_what_is_acted_on_once_each(mode: AutoresetMode, copies: int) -> None:
    """The rows that bare environments, without a vector environment, let one act on; never a final observation."""
    envs, rows, final = whitened(mode, copies), [], []
    envs.reset()
    taken = np.zeros(copies, np.int64)
    for _ in range(STEPS):
        action = np.array([by_time(copy, int(t)) for copy, t in enumerate(taken)])
        taken += envs.step(action).alive
    for copy, count in enumerate(taken):
        env = ScriptedEnv(copy)
        obs, _ = env.reset()
        for t in range(count):
            rows.append(obs)
            obs, _, terminated, truncated, _ = env.step(by_time(copy, t))
            if terminated or truncated:
                final.append(obs)
                obs, _ = env.reset()
        if envs._alive[copy]:  # else its next episode has not begun
            rows.append(obs)
    assert_moments(envs, np.array(rows))
    with pytest.raises(AssertionError):  # the control: final observations counted as well
        assert_moments(envs, np.array(rows + final))
    envs.close()


def assert_moments(envs: Envs, rows: Any) -> None:
    normalizer = envs.obs_normalizer
    assert normalizer is not None
    assert float(normalizer.count) == pytest.approx(len(rows) + 1e-4)
    np.testing.assert_allclose(normalizer.mean.numpy(), rows.mean(0, dtype=np.float64), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normalizer.var.numpy(), rows.var(0, dtype=np.float64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.SAME_STEP])
def test_statistics_are_those_of_stable_baselines(mode: AutoresetMode) -> None:
    envs = whitened(mode, NUM_ENVS)
    theirs = VecNormalize(DummyVecEnv([partial(ScriptedEnv, copy) for copy in range(NUM_ENVS)]), gamma=0.9)
    envs.reset()
    theirs.reset()
    for t in range(STEPS):
        action = np.array([by_time(copy, t) for copy in range(NUM_ENVS)])
        envs.step(action)
        theirs.step(action)
        for ours, other in ((envs.obs_normalizer, theirs.obs_rms), (envs.reward_normalizer, theirs.ret_rms)):
            assert ours is not None
            np.testing.assert_allclose(ours.mean.numpy(), other.mean, rtol=1e-6, atol=1e-6)  # they add in float32
            np.testing.assert_allclose(ours.var.numpy(), other.var, rtol=1e-6, atol=1e-6)
    envs.close()
    theirs.close()


def test_rewards_are_scaled_for_learning_and_reported_raw() -> None:
    vector = SyncVectorEnv([ScriptedEnv], autoreset_mode=AutoresetMode.DISABLED)
    envs = Envs(vector, SeedSequence(0), reward_normalizer=RewardNormalizer(1, gamma=0.9))
    envs.reset()
    returns: list[float] = []
    scaled = []
    for _ in range(12):
        taken = envs.step(scripted_action(envs.obs), np.zeros(1, np.float32))
        returns += [episode.episode_return for episode in taken.episodes]
        scaled.append(float(taken.transition.reward[0]))
    rewards = [(each[2], each[4] or each[5]) for each in truth(0, 12)]
    expected, total = [], 0.0
    for reward, ended in rewards:
        total += reward
        if ended:
            expected.append(total)
            total = 0.0
    assert returns == pytest.approx(expected)
    assert scaled != pytest.approx([reward for reward, _ in rewards])
    assert np.sign(scaled).tolist() == np.sign([reward for reward, _ in rewards]).tolist()


def test_normalisation_of_observations_needs_floats() -> None:
    with pytest.raises(UserError, match="needs observations of floats"):
        zoo.train("ppo", lambda: RandomEnv(spaces.Discrete(3), spaces.Discrete(2)), **small("ppo", normalize_obs=True))
