"""Environments: the same transitions out of every autoreset mode, one seed for each episode, one place for bounds."""

import contextlib
import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from numpy.random import SeedSequence
from probes import ScriptedEnv, row, scripted_action, transitions
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from zoo.buffers.rollout import RolloutBuffer
from zoo.envs.envs import Envs, episode_seed
from zoo.envs.ids import make_env, resolve_id
from zoo.envs.make import vectorize
from zoo.envs.normalize import ObsNormalizer, RewardNormalizer
from zoo.envs.pool import MUJOCO, POOLED
from zoo.envs.replay import replay
from zoo.errors import EnvError, UserError
from zoo.machine import SIGNALS
from zoo.protocol import Transition
from zoo.settings import resolve
from zoo.spec import Spec

STEPS = 40
NUM_ENVS = 3
Vector = VectorEnv[Any, Any, Any]


def scripted(mode: AutoresetMode, kind: Callable[..., Vector] = SyncVectorEnv) -> Envs:
    return Envs(kind([partial(ScriptedEnv, copy) for copy in range(NUM_ENVS)], autoreset_mode=mode), SeedSequence(0))


def collect(envs: Envs, steps: int, *, drop_dead: bool = True) -> list[list[tuple[Any, ...]]]:
    """The transitions of each environment, in order."""
    envs.reset()
    columns: list[list[tuple[Any, ...]]] = [[] for _ in range(envs.num_envs)]
    for _ in range(steps):
        taken = envs.step(scripted_action(envs.obs), np.zeros(envs.num_envs, np.float32))
        for i, column in enumerate(columns):
            if taken.alive[i] or not drop_dead:
                t = taken.transition
                column.append(row(t.obs[i], t.action[i], t.reward[i], t.next_obs[i], t.terminated[i], t.truncated[i]))
    envs.close()
    return columns


def truth(copy: int, count: int) -> list[tuple[Any, ...]]:
    """The same policy in the bare environment, without any vector environment."""
    return list(itertools.islice(transitions(ScriptedEnv(copy), itertools.repeat(None)), count))


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_autoreset_mode_gives_the_bare_environments_transitions(
    mode: AutoresetMode, kind: Callable[..., Vector]
) -> None:
    for copy, column in enumerate(collect(scripted(mode, kind), STEPS)):
        assert len(column) > STEPS // 3
        assert column == truth(copy, len(column))


def test_rows_that_only_reset_are_no_transitions() -> None:
    # The negative control: kept, they are found out.
    for copy, column in enumerate(collect(scripted(AutoresetMode.NEXT_STEP), STEPS, drop_dead=False)):
        assert set(column) - set(truth(copy, 10 * STEPS))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rollouts_are_the_same_and_without_gaps_in_every_mode(mode: AutoresetMode) -> None:
    envs = scripted(mode)
    buffer = RolloutBuffer(envs.spec, NUM_ENVS, 9)
    envs.reset()
    while not (batches := list(buffer.batches())):
        taken = envs.step(scripted_action(envs.obs), np.zeros(NUM_ENVS, np.float32))
        buffer.add(taken.transition, taken.alive)
    (batch,) = batches
    for copy in range(NUM_ENVS):
        fields = (batch.obs, batch.action, batch.reward, batch.next_obs, batch.terminated, batch.truncated)
        rows = [row(*(field[t, copy].numpy() for field in fields)) for t in range(9)]
        assert rows == truth(copy, 9)
    envs.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_returns_and_lengths_are_those_of_the_recorder(mode: AutoresetMode) -> None:
    envs = scripted(mode)
    envs.reset()
    found: list[list[tuple[float, int]]] = [[] for _ in range(NUM_ENVS)]
    owner: dict[int, int] = {}
    for _ in range(STEPS):
        owner |= {int(number): i for i, number in enumerate(envs.numbers)}
        for episode in envs.step(scripted_action(envs.obs), np.zeros(NUM_ENVS, np.float32)).episodes:
            found[owner[episode.number]].append((episode.episode_return, episode.length))
    envs.close()
    for copy, episodes in enumerate(found):
        env = RecordEpisodeStatistics(ScriptedEnv(copy))
        for expected_return, length in episodes:
            obs, _ = env.reset()
            info: dict[str, Any] = {}
            while "episode" not in info:
                obs, _, _, _, info = env.step(scripted_action(obs))
            assert expected_return == pytest.approx(float(info["episode"]["r"]))
            assert length == info["episode"]["l"]


def test_a_vector_environment_that_resets_in_a_step_of_its_own_crosses_no_episode() -> None:
    vector = gym.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")
    assert vector.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs, rng = Envs(vector, SeedSequence(3)), np.random.default_rng(0)
    envs.reset()
    single = gym.make("CartPole-v1")
    single.reset(seed=0)
    dead = ends = 0
    for _ in range(120):
        taken = envs.step(rng.integers(2, size=4), np.zeros(4, np.float32))
        dead += int((~taken.alive).sum())
        for i in np.flatnonzero(taken.alive):
            t = taken.transition
            single.unwrapped.state = tuple(t.obs[i].astype(np.float64))  # type: ignore[attr-defined]
            single.unwrapped.steps_beyond_terminated = None  # type: ignore[attr-defined]
            next_obs, reward, terminated, _, _ = single.unwrapped.step(int(t.action[i]))
            np.testing.assert_allclose(t.next_obs[i], next_obs, atol=1e-6)
            assert (t.reward[i], t.terminated[i]) == (reward, terminated)
            ends += terminated
    assert dead >= ends - 4 > 0
    envs.close()


def test_native_cart_poles_are_those_of_sync_episode_for_episode() -> None:
    native, sync = (Envs(vectorize("CartPole-v1", 4, vec), SeedSequence(3)) for vec in ("native", "sync"))
    assert native.mode is AutoresetMode.DISABLED
    assert native.spec.to_json() == sync.spec.to_json()
    rng, lengths = np.random.default_rng(0), []
    np.testing.assert_allclose(native.reset(), sync.reset(), rtol=0, atol=1e-7)
    for t in range(1600):
        upright = sync.obs[:, 2] + 0.3 * sync.obs[:, 3] > 0  # keeps the pole up until the time limit
        action = np.where((t < 400) | (rng.random(4) < 0.01), rng.integers(2, size=4), upright)
        one, other = (envs.step(action, np.zeros(4, np.float32)) for envs in (native, sync))
        for name, mine, theirs in zip(Transition._fields, one.transition, other.transition, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5, err_msg=name)
        assert one.alive.all()
        assert one.episodes == other.episodes
        lengths += [episode.length for episode in one.episodes]
    assert len(lengths) > 40
    assert max(lengths) == 500
    native.close()
    sync.close()


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


def by_time(copy: int, t: int) -> int:
    """An action that does not depend on how observations are whitened."""
    return (copy + t) % 3


def drive(envs: Envs, steps: int) -> list[list[tuple[Any, ...]]]:
    """The first `steps` transitions of each environment, as they are stored, none of them a mere reset."""
    envs.reset()
    columns: list[list[tuple[Any, ...]]] = [[] for _ in range(envs.num_envs)]
    while min(map(len, columns)) < steps:
        action = np.array([by_time(copy, len(column)) for copy, column in enumerate(columns)])
        t, alive, *_ = envs.step(action)
        for i in np.flatnonzero(alive):
            columns[i].append(tuple(np.asarray(field[i]).tolist() for field in t[:6]))
    return [column[:steps] for column in columns]


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


class Observing(gym.Env[Any, Any]):
    """Observes what it was made with: at its reset, then in each step."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any], first: Any, then: Any, reward: Any = 1.0) -> None:
        self.observation_space, self.first, self.then, self.reward = space, first, then, reward

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.first, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return self.then, self.reward, False, False, {}


IMAGE = spaces.Box(0, 255, (4, 4, 1), np.uint8)
FLOATS, DOUBLES = (spaces.Box(-np.inf, np.inf, (2,), dtype) for dtype in (np.float32, np.float64))
INTS, FOUR, FROM_TWO = spaces.Box(0, 9, (2,), np.int64), spaces.Discrete(4), spaces.Discrete(4, start=2)
REFUSED: dict[str, tuple[spaces.Space[Any], Any, str]] = {
    "an image of large integers": (IMAGE, np.full((4, 4, 1), 300), "holds 300, which does not fit uint8"),
    "an image of negative integers": (IMAGE, np.full((4, 4, 1), -1), "holds -1, which does not fit uint8"),
    "an image of floats": (IMAGE, np.full((4, 4, 1), 0.5), "is of float64; its space is of uint8"),
    "floats for integers": (INTS, np.array([1.0, 2.5]), "is of float64; its space is of int64"),
    "texts": (FLOATS, np.array(["a", "b"]), "is of <U1; its space is of float32"),
    "complex numbers": (FLOATS, np.array([1j, 1]), "is of complex128; its space is of float32"),
    "nothing": (FLOATS, [None, None], "is of object; its space is of float32"),
    "a ragged list": (FLOATS, [[1.0], [1.0, 2.0]], "is no array of one shape"),
    "a float beyond float32": (FLOATS, np.array([0, 1e300]), r"holds 1e\+300, which does not fit float32"),
    "a double beyond float32": (DOUBLES, np.array([0, -1e300]), r"holds -1e\+300, which does not fit float32"),
    "NaN": (FLOATS, np.array([np.nan, 0], np.float32), r"NaN or infinite as float32: \[nan  0.\]"),
    "a count beyond its number": (FOUR, 4, r"outside of Discrete\(4\): 4"),
    "a negative count": (FOUR, -1, r"outside of Discrete\(4\): -1"),
    "a count before its start": (FROM_TWO, np.int64(1), r"outside of Discrete\(4, start=2\): 1"),
    "a fraction of a count": (FOUR, 1.5, "is of float64; its space is of int64"),
    "a count without end": (FOUR, 2**70, "is of object; its space is of int64"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize("when", ["reset", "step"])
@pytest.mark.parametrize("case", REFUSED)
def test_an_observation_that_its_space_does_not_hold_is_refused(case: str, when: str, vec: str) -> None:
    space, wrong, message = REFUSED[case]
    good = np.full(space.shape or (), 2, space.dtype)
    make = partial(Observing, space, wrong if when == "reset" else good, wrong)
    normalizer = ObsNormalizer(space) if space in (FLOATS, DOUBLES) else None
    envs = Envs(vectorize(make, 2, vec), SeedSequence(3), obs_normalizer=normalizer)
    if when == "step":
        envs.reset()
    statistics = None if normalizer is None else normalizer.mean.clone()
    with pytest.raises(EnvError, match=message) as raised:
        envs.reset() if when == "reset" else envs.step(np.zeros(2, np.int64))
    found = re.match(r"environment (\d),? .*step (\d) of the episode with seed (\d+)[,:]", str(raised.value))
    assert found is not None
    index, step, seed = map(int, found.groups())  # of two that fail in processes of their own, either is heard first
    assert (step, seed) == (int(when == "step"), episode_seed(SeedSequence(3), index))
    assert normalizer is None or torch.equal(normalizer.mean, statistics)
    envs.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("space", "given", "expected"),
    [
        (FLOATS, np.array([1.5, 1e-300]), [1.5, 0.0]),
        (FLOATS, [1, 2], [1.0, 2.0]),
        (DOUBLES, np.array([1, 2], np.float16), [1.0, 2.0]),
        (INTS, np.array([1, 9], np.int8), [1, 9]),
        (FOUR, 3, 3),
        (FOUR, np.uint8(3), 3),
        (FOUR, True, 1),
        (FROM_TWO, 5, 3),
        (IMAGE, np.full((4, 4, 1), 255), [[[255]] * 4] * 4),
    ],
)
@pytest.mark.parametrize("vec", ["sync", "async"])
def test_a_cast_that_keeps_the_values_is_fine(space: spaces.Space[Any], given: Any, expected: Any, vec: str) -> None:
    envs = Envs(vectorize(partial(Observing, space, given, given), 1, vec), SeedSequence(0))
    assert envs.reset()[0].tolist() == expected
    t = envs.step(np.zeros(1, np.int64)).transition
    assert t.next_obs[0].tolist() == expected
    assert t.next_obs.dtype == envs.spec.obs_dtype
    envs.close()


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


@pytest.mark.parametrize("when", ["made", "reset", "step"])
@pytest.mark.parametrize("vec", ["sync", "async"])
def test_an_environment_that_exits_ends_the_run_in_one_line(when: str, vec: str) -> None:
    class Exiting(Observing):
        def __init__(self) -> None:
            super().__init__(FOUR, 0, 0)
            if when == "made":
                sys.exit(7)

        def reset(self, **kwargs: Any) -> Any:
            return sys.exit(7) if when == "reset" else super().reset(**kwargs)

        def step(self, action: Any) -> Any:
            return sys.exit(7)

    def use() -> None:
        with contextlib.closing(Envs(vectorize(Exiting, 2, vec), SeedSequence(0))) as envs:
            drive(envs, 1)

    with pytest.raises(EnvError, match=r"environment \d failed .*: it called sys.exit\(7\)$"):
        use()


# Vector environments that no guard surrounds


class Images(VectorEnv[Any, Any, Any]):
    """A vector environment of its own: its first observations, what each step returns, and final observations."""

    def __init__(
        self, mode: AutoresetMode, space: spaces.Space[Any], first: Any, taken: Any, final: Any = None
    ) -> None:
        self.num_envs, self.single_observation_space, self.single_action_space = 2, space, spaces.Discrete(2)
        self.action_space = spaces.MultiDiscrete([2, 2])
        self.metadata = {"autoreset_mode": mode}
        self.first, self.taken, self.final = first, taken, final

    def reset(self, **kwargs: Any) -> Any:
        return self.first, {}

    def step(self, actions: Any) -> Any:
        return (*self.taken, {"final_obs": self.final})


GOOD = np.full((2, 4, 4, 1), 7, np.uint8)
NO, YES = np.zeros(2, np.bool_), np.array([False, True])


def image(value: float, dtype: type) -> Any:
    """Two images, the second of them with a pixel of this value."""
    images = GOOD.astype(dtype)
    images[1, 2, 3, 0] = value
    return images


WHERE = r"environment 1, step 1 of .* seed \d+\)?, given action 1: the observation"
UNFIT: dict[str, tuple[Any, str]] = {
    "floats": (image(300.7, np.float64), r"observation is of float64; its space is of uint8$"),
    "whole floats": (image(7, np.float32), r"observation is of float32; its space is of uint8$"),
    "large integers": (image(300, np.int64), rf"{WHERE} holds 300, which does not fit uint8$"),
    "negative integers": (image(-1, np.int32), rf"{WHERE} holds -1, which does not fit uint8$"),
    "another shape": (GOOD[:, :3], r"observations have shape \(2, 3, 4, 1\); expected \(2, 4, 4, 1\)$"),
}


def images_of(mode: AutoresetMode, first: Any, obs: Any, ended: Any = NO, final: Any = None) -> Envs:
    return Envs(Images(mode, IMAGE, first, (obs, np.zeros(2), ended, NO), final), SeedSequence(3))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("case", UNFIT)
def test_an_image_that_a_cast_would_change_is_refused_of_any_vector_environment(case: str, mode: AutoresetMode) -> None:
    wrong, message = UNFIT[case]
    with pytest.raises(EnvError, match=message.replace("step 1", "step 0").replace(", given action 1", "")) as raised:
        images_of(mode, wrong, GOOD).reset()
    assert raised.value.code == 3
    envs = images_of(mode, GOOD, wrong)
    envs.reset()
    with pytest.raises(EnvError, match=message):
        envs.step(np.ones(2, np.int64))


@pytest.mark.parametrize("case", ["floats", "large integers", "negative integers"])
def test_so_is_a_final_image(case: str) -> None:
    wrong, message = UNFIT[case]
    envs = images_of(AutoresetMode.SAME_STEP, GOOD, GOOD, YES, [None, wrong[1]])
    envs.reset()
    with pytest.raises(EnvError, match=message):
        envs.step(np.ones(2, np.int64))


def test_an_image_of_larger_integers_that_fit_is_taken() -> None:
    envs = images_of(AutoresetMode.SAME_STEP, GOOD, image(255, np.int64), YES, [None, image(200, np.int32)[1]])
    envs.reset()
    t = envs.step(np.ones(2, np.int64)).transition
    assert t.next_obs.dtype == envs.obs.dtype == np.uint8
    assert t.next_obs[1].max() == 200
    assert envs.obs[1].max() == 255


@pytest.mark.parametrize(
    ("reward", "terminated", "truncated", "message"),
    [
        (["5", "5"], NO, NO, "rewards are of <U1; expected numbers"),
        (np.zeros(2), np.array(["False", "False"]), NO, "terminated are of <U5; expected True or False"),
        (np.zeros(2), NO, np.array([np.nan, 0]), "truncated are of float64; expected True or False"),
        (np.zeros(2), NO, np.zeros(2, np.int64), "truncated are of int64; expected True or False"),
    ],
)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_parts_of_a_step_that_are_of_another_kind_are_refused(
    mode: AutoresetMode, reward: Any, terminated: Any, truncated: Any, message: str
) -> None:
    envs = Envs(Images(mode, IMAGE, GOOD, (GOOD, reward, terminated, truncated)), SeedSequence(3))
    envs.reset()
    with pytest.raises(EnvError, match=message):
        envs.step(np.ones(2, np.int64))


# What a guarded environment returns beside observations, and raises


class Returning(Observing):
    """Returns this from its steps beside a good observation."""

    def __init__(self, reward: Any, terminated: Any, truncated: Any) -> None:
        super().__init__(FLOATS, np.zeros(2, np.float32), np.zeros(2, np.float32))
        self.parts = reward, terminated, truncated

    def step(self, action: Any) -> Any:
        return (self.then, *self.parts, {})


class Mute:
    """Has nothing to show."""

    def __repr__(self) -> str:
        raise OSError("nothing to show")


ODD_PARTS: dict[str, tuple[tuple[Any, Any, Any], str]] = {
    "a text of a reward": (("5", False, False), "its reward is '5'; expected a real number"),
    "no reward": ((None, False, False), "its reward is None; expected a real number"),
    "a list of rewards": (([1.0], False, False), r"its reward is \[1.0\]; expected a real number"),
    "a complex reward": ((1j, False, False), "its reward is 1j; expected a real number"),
    "a ragged reward": (([1, [2]], False, False), r"its reward is \[1, \[2\]\]; expected a real number"),
    "a text of a flag": ((1.0, "False", False), "its terminated is 'False'; expected True or False"),
    "NaN for a flag": ((1.0, False, np.nan), "its truncated is nan; expected True or False"),
    "a count for a flag": ((1.0, 0, False), "its terminated is 0; expected True or False"),
    "no flag": ((1.0, False, None), "its truncated is None; expected True or False"),
    "what shows nothing": (
        (1.0, Mute(), False),
        r"its terminated is \(its repr\(\) raises OSError\); expected",
    ),
}


@pytest.mark.parametrize("case", ODD_PARTS)
def test_rewards_are_numbers_and_flags_true_or_false(case: str) -> None:
    parts, message = ODD_PARTS[case]
    envs = Envs(vectorize(partial(Returning, *parts), 2), SeedSequence(3))
    envs.reset()
    seed = episode_seed(SeedSequence(3), 0)
    where = f"^environment 0 failed in step 1 of the episode with seed {seed}, given action 1: {message}"
    with pytest.raises(EnvError, match=where):
        envs.step(np.ones(2, np.int64))
    envs.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize(
    ("reward", "flag"),
    [(2, True), (2.0, np.True_), (np.float16(2), np.array(True)), (np.array(2), True), (np.int8(2), True)],
)
def test_numbers_and_flags_of_any_make_are_fine(reward: Any, flag: Any, vec: str) -> None:
    envs = Envs(vectorize(partial(Returning, reward, flag, flag), 1, vec), SeedSequence(3))
    envs.reset()
    t = envs.step(np.ones(1, np.int64)).transition
    assert (t.reward.tolist(), t.terminated.tolist(), t.truncated.tolist()) == ([2], [True], [True])
    envs.close()


class Speechless(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


class Foreign(BaseException):
    """No Exception, as pytest's own outcomes, trio's and asyncio's cancellations are none."""


class Raising(Observing):
    """Raises this when it is made, in its reset, or in its step."""

    def __init__(self, error: type[BaseException], when: str) -> None:
        super().__init__(FOUR, 0, 0)
        self.error, self.when = error, when
        if when == "made":
            raise error

    def reset(self, **kwargs: Any) -> Any:
        if self.when == "reset":
            raise self.error
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("when", ["made", "reset", "step"])
@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize("error", [GeneratorExit, Foreign])
def test_what_is_no_exception_is_a_failure_in_one_line(error: type[BaseException], when: str, vec: str) -> None:
    message = rf"environment \d failed .*(when it was made|in reset|given action \d): {error.__name__}: $"
    with pytest.raises(EnvError, match=message) as raised:
        play(partial(Raising, error, when), vec)
    assert raised.value.code == 3


def play(make: Callable[[], gym.Env[Any, Any]], vec: str) -> None:
    with contextlib.closing(Envs(vectorize(make, 2, vec), SeedSequence(0))) as envs:
        drive(envs, 1)


@pytest.mark.parametrize("when", ["reset", "step"])
@pytest.mark.parametrize("vec", ["sync", "async"])
def test_an_error_that_cannot_say_what_it_is_has_its_place(when: str, vec: str) -> None:
    where = r"environment \d failed in step \d of the episode with seed \d+, (in reset|given action \d)"
    with pytest.raises(EnvError, match=rf"{where}: Speechless: \(its str\(\) raises RuntimeError\)\n"):
        play(partial(Raising, Speechless, when), vec)


@pytest.mark.parametrize("when", ["made", "reset", "step"])
def test_an_interruption_in_an_environment_remains_one(when: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(partial(Raising, KeyboardInterrupt, when), "sync")


@pytest.mark.parametrize("error", [Foreign, Speechless])
@pytest.mark.parametrize("when", ["reset", "step"])
def test_a_vector_environment_may_raise_anything(error: type[BaseException], when: str) -> None:
    class Failing(Images):
        def reset(self, **kwargs: Any) -> Any:
            if when == "reset":
                raise error
            return super().reset(**kwargs)

        def step(self, actions: Any) -> Any:
            raise error

    envs = Envs(Failing(AutoresetMode.DISABLED, IMAGE, GOOD, ()), SeedSequence(3))
    with pytest.raises(EnvError, match=f"the environments failed in {when}: {error.__name__}"):
        drive(envs, 1)


def test_actions_without_a_dimension_are_refused() -> None:
    with pytest.raises(UserError, match=r"action space Box\(.*\(0,\), float32\) has no dimension"):
        Spec(FLOATS, spaces.Box(-1, 1, (0,), np.float32))


def test_making_processes_leaves_the_signals_of_this_one_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    envs = Envs(vectorize("CartPole-v1", 2, "async"), SeedSequence(0))
    assert [signal.getsignal(number) for number in SIGNALS] == before
    envs.close()


def test_processes_that_nobody_closed_end_with_the_program() -> None:
    """They ignore the signal by which multiprocessing would end them, and would be waited for."""
    program = """
import numpy as np
from numpy.random import SeedSequence
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
kept = Envs(vectorize("CartPole-v1", 2, "async"), SeedSequence(0))
kept.reset()
import builtins
builtins.kept = kept
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert time.monotonic() - began < 60


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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Pendulum", "Pendulum-v1"),
        ("CartPole", "CartPole-v1"),
        ("CartPole-v0", "CartPole-v0"),
        ("Acrobot", "Acrobot-v1"),
    ],
)
def test_names_mean_the_newest_version(name: str, meant: str) -> None:
    assert resolve_id(name) == meant


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Pendulumm", "did you mean 'Pendulum'"),
        ("pendulum", "did you mean 'Pendulum'"),
        ("CartPole-v7", "has no version '7'; known: CartPole-v0, CartPole-v1"),
        ("Zzz", "lists what is installed"),
    ],
)
def test_unknown_environments_are_refused_with_a_hint(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_id(name)


def test_what_cannot_be_vectorised_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be 2 environments"):
        vectorize(ScriptedEnv(), 2)
    with pytest.raises(UserError, match="no vector environment of its own"):
        vectorize("Pendulum-v1", 2, "native")
    with pytest.raises(UserError, match="cannot be made"):
        make_env("CartPole-v1", no_such_argument=1)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(env_id: str, **kwargs: Any) -> None:
        raise gym.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(UserError, match=r"pip install -e '\.\[box2d\]'"):
        make_env("LunarLander-v3")


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
    monkeypatch.setattr("zoo.envs.make.POOLED", {"Pendulum-v1"})
    with pytest.raises(AssertionError):
        test_fast_environments_are_the_same_task("Pendulum-v1", "envpool")


def test_envpool_makes_environments_of_ids_alone() -> None:
    with pytest.raises(UserError, match="envpool makes environments of ids"):
        vectorize(partial(make_env, "CartPole-v1"), 2, "envpool")


def test_a_missing_envpool_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[envpool\]'"):
        vectorize("CartPole-v1", 2, "envpool")


@pytest.mark.parametrize(
    ("env", "num_envs", "vec"), [("CartPole-v1", 16, "native"), ("CartPole-v1", 8, "sync"), ("Pendulum-v1", 64, "sync")]
)
def test_auto_is_decided_by_the_settings_and_recorded(env: str, num_envs: int, vec: str) -> None:
    assert resolve("ppo", env, {"num_envs": num_envs}).run.vec == vec
    assert resolve("ppo", env, {"num_envs": num_envs, "vec": "async"}).run.vec == "async"
