"""The same transitions out of every autoreset mode: those of the bare environments."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from numpy.random import SeedSequence
from probes import ScriptedEnv, row, scripted_action
from worlds import NUM_ENVS, STEPS, truth

from zoo.buffers.rollout import RolloutBuffer
from zoo.envs.envs import Envs

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
