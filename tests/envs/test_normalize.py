"""Running statistics: of what is acted on, in every autoreset mode, as Stable-Baselines3 has them."""

import copy
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.random import SeedSequence
from numpy.typing import NDArray
from probes import ScriptedEnv, scripted_action
from small import RandomEnv, small
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from worlds import NUM_ENVS, STEPS, by_time, drive, truth

import zoo
from zoo.buffers import RolloutBuffer
from zoo.envs.envs import Envs
from zoo.envs.normalize import ObsNormalizer, RewardNormalizer, RunningMoments
from zoo.errors import UserError
from zoo.protocol import Transition

Array = NDArray[Any]

CHOICE = spaces.Discrete(3)
OBS = spaces.Box(-1, 1, (2,))


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
    for number, count in enumerate(taken):
        env = ScriptedEnv(number)
        obs, _ = env.reset()
        for t in range(count):
            rows.append(obs)
            obs, _, terminated, truncated, _ = env.step(by_time(number, t))
            if terminated or truncated:
                final.append(obs)
                obs, _ = env.reset()
        if envs._alive[number]:  # else its next episode has not begun
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


def batches(seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal([5, -100], [2, 0.1], size=(size, 2)) for size in (1, 3, 1, 20, 7)]


def assert_moments_of(moments: RunningMoments, rows: Array) -> None:
    """Those of all rows together with the prior: a weight of 1e-4 on mean 0 and variance 1."""
    prior = np.stack([np.ones(rows.shape[1:]), -np.ones(rows.shape[1:])])
    weights = np.concatenate([np.full(2, 0.5e-4), np.ones(len(rows))])
    everything = np.concatenate([prior, rows])
    mean = np.average(everything, axis=0, weights=weights)
    var = np.average((everything - mean) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(moments.var, var, rtol=1e-10)
    assert moments.count.item() == pytest.approx(len(rows) + 1e-4)


def test_moments_of_batches_are_those_of_all_rows() -> None:
    moments, rows = RunningMoments((2,)), np.concatenate(batches())
    for batch in batches():
        moments.update(batch)
    assert_moments_of(moments, rows)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.var[0], rows.var(0)[0], rtol=1e-3)


def test_moments_of_bytes_do_not_overflow() -> None:
    moments = RunningMoments(())
    rows = np.full(1000, 255, np.uint8)
    rows[::2] = 0
    moments.update(rows)
    assert moments.mean.item() == pytest.approx(127.5, rel=1e-6)
    assert moments.var.item() == pytest.approx(127.5**2, rel=1e-6)


def test_an_empty_batch_changes_nothing() -> None:
    moments = RunningMoments((2,))
    moments.update(np.ones((3, 2)))
    before = copy.deepcopy(moments.state_dict())
    moments.update(np.ones((0, 2)))
    assert all(torch.equal(value, before[key]) for key, value in moments.state_dict().items())


def test_moments_are_saved_and_stay_in_double_precision() -> None:
    moments, loaded = RunningMoments((2,)), RunningMoments((2,))
    moments.update(batches()[3])
    loaded.load_state_dict(moments.state_dict())
    moments.to(torch.float32)
    assert moments.mean.dtype == torch.float64
    for each in (moments, loaded):
        each.update(batches()[4])
    assert torch.equal(loaded.var, moments.var)


def test_observations_are_whitened_and_clipped() -> None:
    normalizer, rows = ObsNormalizer(OBS), np.concatenate(batches())
    normalizer.update(rows)
    whitened = normalizer(rows)
    expected = (rows - rows.mean(0)) / rows.std(0)
    assert whitened.dtype == np.float32
    # The prior's pinch shows in the second column, whose mean is a thousand deviations from 0.
    np.testing.assert_allclose(whitened[:, 0], expected[:, 0], rtol=1e-3, atol=1e-3)
    assert normalizer(np.array([[1e6, -1e6]])).tolist() == [[10, -10]]
    assert_moments_of(normalizer, rows)


def test_a_constant_observation_is_whitened_to_zero() -> None:
    normalizer = ObsNormalizer(OBS)
    for _ in range(3):
        normalizer.update(np.full((50, 2), [0.0, 7.0]))
    whitened = normalizer(np.array([[0.0, 7.0]]))
    np.testing.assert_allclose(whitened, 0, atol=1e-2)


PLANES = spaces.Box(0, 1, (10, 10, 4), np.bool_)


@pytest.mark.parametrize("space", [CHOICE, spaces.Box(0, 255, (8, 8, 3), np.uint8), PLANES], ids=str)
def test_only_floats_are_whitened(space: spaces.Space[Any]) -> None:
    with pytest.raises(UserError, match="normalize_obs needs observations of floats"):
        ObsNormalizer(space)


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_clipped_rewards_are_learned_from_and_the_environments_own_are_reported(engine: str, tmp_path: Path) -> None:
    learned: list[float] = []
    add = RolloutBuffer.add

    def watched(self: RolloutBuffer, transition: Transition[Any], alive: Any) -> None:
        learned.extend(transition.reward.tolist())
        add(self, transition, alive)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RolloutBuffer, "add", watched)
        settings: dict[str, Any] = {"num_steps": 400, "num_envs": 1, "seed": 0, "engine": engine, "eval_episodes": 3}
        zoo.train("ppo", "Pendulum-v1", total_steps=400, clip_reward=True, **settings, out=tmp_path / "run")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of another budget, and of actors that start new episodes
            evaluation = zoo.resume(tmp_path / "run", total_steps=800).evaluation
    assert len(learned) == 800
    assert set(learned) == {-1.0}
    assert evaluation is not None
    assert evaluation.mean < -300  # an episode has 200 steps


def test_rewards_are_not_clipped_and_normalised_at_once() -> None:
    with pytest.raises(UserError, match="clipped to their signs, or normalised, not both"):
        zoo.train("ppo", "Pendulum-v1", clip_reward=True, normalize_reward=True)


@pytest.mark.parametrize("seed", range(3))
def test_rewards_are_scaled_by_the_deviation_of_discounted_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gamma, num_envs, steps = 0.9, 3, 25
    reward = rng.normal(1, 5, size=(steps, num_envs))
    alive = rng.random((steps, num_envs)) < 0.8
    ended = alive & (rng.random((steps, num_envs)) < 0.2)
    normalizer = RewardNormalizer(num_envs, gamma)

    sums: list[float] = []
    current: list[list[float]] = [[] for _ in range(num_envs)]
    for t in range(steps):
        scaled = normalizer.scale(reward[t], np.flatnonzero(ended[t]), alive[t])
        for b in np.flatnonzero(alive[t]):
            current[b].append(reward[t, b])
            # Σ γ^k r_{t-k} over the episode so far.
            sums.append(sum(gamma**k * r for k, r in enumerate(reversed(current[b]))))
            if ended[t, b]:
                current[b] = []
        assert_moments_of(normalizer, np.array(sums))
        expected = reward[t] / np.sqrt(normalizer.var.item() + 1e-8)
        np.testing.assert_allclose(scaled, np.clip(expected, -10, 10), rtol=1e-10)
    assert normalizer.var.item() == pytest.approx(np.var(sums), rel=1e-3)


def test_scaled_rewards_keep_their_signs_and_are_clipped() -> None:
    normalizer = RewardNormalizer(2, 0.99)
    nobody, everyone = np.array([], np.int64), np.ones(2, np.bool_)
    for _ in range(20):
        scaled = normalizer.scale(np.array([1.0, 2.0]), nobody, everyone)
    assert (scaled > 0).all()
    assert scaled[1] == pytest.approx(2 * scaled[0])
    scaled = normalizer.scale(np.array([1e9, -1e9]), nobody, np.array([False, False]))
    assert scaled.tolist() == [10, -10]
